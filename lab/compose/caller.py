"""The automatic softphone: calls, talks, shows what is said, and calls again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lab.asterisk import LabError
from lab.compose.watch import NoAnswer, Watcher
from lab.demo import scene
from lab.demo.caller import ScriptedCaller
from lab.demo.transcript import Entry, Kind, render
from lab.demo.voice import caller_voice, spoken
from lab.softphone import CallFailed, Phone

USERNAME = "caller"
ANSWER_SECONDS = 15.0
_END_SECONDS = 10.0
_BEAT_SECONDS = 10.0
_ATTEMPTS = 3
_KINDS: dict[str, Kind] = {"agent": "agent", "caller": "heard", "correction": "correction"}


@dataclass(frozen=True, slots=True)
class Round:
    """What the caller needs to know.

    Attributes:
        target: Whom it calls, as a SIP URI.
        pause_seconds: From the end of one call to the next.
        costs_money: Rest after the first call that reached an agent, however it ended, and give
            up after three in a row that did not.
        heartbeat: A file that is touched as long as the last call went well, and not there
            otherwise.
    """

    target: str
    pause_seconds: float
    costs_money: bool
    heartbeat: Path


@dataclass(slots=True)
class Report:
    """What the service said of one call.

    Attributes:
        reached_agent: An agent was there, or nobody can tell: then it may have been.
    """

    status: str = ""
    reason: str = ""
    reached_agent: bool = False
    response_seconds: list[float] = field(default_factory=list)


async def keep_calling(
    plan: Round, password: str, watcher: Watcher, console: Console, stop: asyncio.Event
) -> None:
    """Hold one call after another until `stop` is set, or as many as may be paid for. A call that
    fails is shown, no more."""
    voice = caller_voice()
    sounds = await asyncio.to_thread(lambda: [spoken(voice, line.text) for line in scene.CALLER])
    heart = Heart(plan.heartbeat)
    beating = asyncio.create_task(heart.beat())
    in_vain = 0
    try:
        while not stop.is_set():
            report = Report()
            well = await _one_call(plan, password, sounds, watcher, console, stop, report)
            heart.set(well)
            in_vain = 0 if report.reached_agent else in_vain + 1
            if rest := why_rest(plan, report, in_vain):
                console.print(rest)
                console.print("`docker compose restart caller` calls again.")
                await stop.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), plan.pause_seconds)
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


def why_rest(plan: Round, report: Report, in_vain: int) -> str:
    """Why no further call is placed, in a sentence; empty when one is.

    `in_vain` is the number of calls until now, one after another, that reached no agent.
    """
    if not plan.costs_money:
        return ""
    if report.reached_agent:
        return "A call to a real agent costs money: this was the only one."
    if in_vain >= _ATTEMPTS:
        return f"{in_vain} calls have reached no agent: no further one is placed."
    return ""


async def _one_call(
    plan: Round,
    password: str,
    sounds: list[bytes],
    watcher: Watcher,
    console: Console,
    stop: asyncio.Event,
    report: Report,
) -> bool:
    talk = asyncio.create_task(_talk(plan, password, sounds, watcher, console, report))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({talk, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not talk.done():
            return True
        await talk
    except (LabError, CallFailed, OSError) as error:
        console.print(Text(f"The call failed: {error}", style="bold red"))
        return False
    finally:
        talk.cancel()
        stopping.cancel()
        await asyncio.gather(talk, stopping, return_exceptions=True)
    return True


async def _talk(
    plan: Round,
    password: str,
    sounds: list[bytes],
    watcher: Watcher,
    console: Console,
    report: Report,
) -> None:
    known = await watcher.session_ids(USERNAME)
    async with Phone(
        await asyncio.to_thread(own_address, plan.target), username=USERNAME, password=password
    ) as phone:
        console.print(Text(f"\nCalling {plan.target}\n", style="bold"))
        call = await phone.dial(plan.target)
        began = time.monotonic()

        def show(kind: Kind, text: str) -> None:
            console.print(render(Entry(time.monotonic() - began, kind, text)))

        caller = ScriptedCaller(
            call, scene.CALLER, sounds, on_speaking=lambda text: show("caller", text)
        )
        following = asyncio.create_task(follow(watcher, known, report, show))
        try:
            await _within(ANSWER_SECONDS, call.answered(), "It was not answered")
            await _converse(caller, following, report)
            await _within(_END_SECONDS, following, "The service did not let the call go")
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        heard = call.stats()
        console.print(_summary(report, time.monotonic() - began, heard.packets))
        if report.status != "COMPLETED":
            raise LabError(f"It ended as {report.status or 'nothing'}, {report.reason}.")


async def _converse(caller: ScriptedCaller, following: asyncio.Task[None], report: Report) -> None:
    """Let the caller talk until the call is over or the service has given it away."""
    conversing = asyncio.create_task(caller.converse())
    try:
        await asyncio.wait({conversing, following}, return_when=asyncio.FIRST_COMPLETED)
        if not conversing.done():
            await following
            if report.status != "COMPLETED":
                # The dialplan goes on with the call: whatever is heard now is not the agent.
                raise LabError(f"It ended as {report.status}, {report.reason}.")
        await conversing
    finally:
        conversing.cancel()
        await asyncio.gather(conversing, return_exceptions=True)


async def _within(seconds: float, done: Awaitable[None], otherwise: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await done
    except TimeoutError:
        raise LabError(f"{otherwise} within {seconds:g} s.") from None


async def follow(
    watcher: Watcher, known: set[str], report: Report, show: Callable[[Kind, str], None]
) -> None:
    """Wait for a call of ours that is not `known`, show its events as they come, and fill in
    `report`.

    Raises:
        LabError: there is none, or its events cannot be had.
    """
    try:
        session_id = await watcher.new_session(USERNAME, known)
    except NoAnswer:
        report.reached_agent = True
        raise
    # Until the service says otherwise.
    report.reached_agent = True
    agent_was_there = False
    async for event in watcher.events(session_id):
        match event:
            case {"type": "transcript", "who": who, "text": text} if who in _KINDS:
                show(_KINDS[who], text)
            case {"type": "interruption" | "tool" as kind, "text": text}:
                show(kind, text)
            case {"type": "agent", "connect_seconds": seconds}:
                agent_was_there = True
                show("call", f"the agent is ready after {seconds * 1000:.0f} ms")
            case {"type": "response_time", "seconds": seconds}:
                report.response_seconds.append(seconds)
            case {"type": "ended", "agent_status": status, "end_reason": reason}:
                report.status, report.reason = status or "", reason or ""
                report.reached_agent = agent_was_there


def _summary(report: Report, seconds: float, packets: int) -> Text:
    answers = ", ".join(f"{value * 1000:.0f}" for value in report.response_seconds) or "-"
    return Text(
        f"\n{report.status or 'no status'} ({report.reason}) after {seconds:.0f} s. "
        f"Answers after {answers} ms. {packets} packets heard.",
        style="green" if report.status == "COMPLETED" else "bold red",
    )


def own_address(target: str) -> str:
    """The address of this machine from which `target`, a SIP URI with a host, is reached.

    Raises:
        OSError: its host is not known.
    """
    host = target.rpartition("@")[2].partition(":")[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Connecting a UDP socket sends nothing; it only looks the way up.
        probe.connect((host, 9))
        return str(probe.getsockname()[0])


class Heart:
    """Tells Docker that all is well: a file that stays young, and goes when a call fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_well = False

    def set(self, is_well: bool) -> None:
        """Say how the last call went."""
        self._is_well = is_well
        if is_well:
            self._path.touch()
        else:
            self._path.unlink(missing_ok=True)

    async def beat(self) -> None:
        """Keep the file young for as long as this runs."""
        while True:
            self.set(self._is_well)
            await asyncio.sleep(_BEAT_SECONDS)
