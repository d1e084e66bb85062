"""A process is lost, and the next one goes on with its calls: in virtual time, with all parts.

What was written is in memory here; `tests/unit/records/test_running.py` has the files.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from structlog.testing import capture_logs

from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.agent.elevenlabs.errors import AgentUnavailable
from ari_app.audio.sound_file import SoundFile
from ari_app.call.calls import Waiting
from ari_app.call.checkpoint import restore
from ari_app.call.keypad import Keypad
from ari_app.call.plan import Announcement
from ari_app.call.resume import GO_ON
from ari_app.call.signals import ConsultRequested, EndRequested, HoldRequested
from ari_app.call.states import State
from ari_app.control.control import CallControl
from ari_app.control.refusals import NotPossible
from ari_app.line.asterisk.ari.resources import ADD_CHANNEL, ANSWER, CREATE_BRIDGE, START_MOH
from ari_app.line.interface import KeyPressed, Outcome, PhoneHeld, Rings, Status, TargetLost
from ari_app.records.checkpoints import CheckpointFile, Checkpoints, OrphanedCall, _line, read_lines
from ari_app.records.document import call_document
from ari_app.records.events import Adopted, CallEnded
from linekit.clock import FrameClock
from tests.session_view import Session
from tests.unit.call.full_asterisk import FullAsterisk
from tests.unit.call.stage import Stage, heard_ms, now, sound
from tests.waiting import until

PHRASE = SoundFile(np.full(4000, 5000, "<i2").tobytes(), 8000)  # half a second
DONE = Outcome(Status.COMPLETED, "end_requested")


class InMemory:
    """The files of one process's calls."""

    def __init__(self) -> None:
        self.files: dict[CheckpointFile, bytes] = {}
        self.frozen = False

    def begin(self) -> CheckpointFile:
        return CheckpointFile(self._put, "memory")

    def _put(self, work: tuple[Any, ...]) -> None:
        file, kind, parts = work
        if self.frozen:
            return
        if kind is None:
            self.files.pop(file, None)
        else:
            self.files[file] = self.files.get(file, b"") + _line(kind, parts)

    def left(self, last_seen: float) -> list[OrphanedCall]:
        return [
            OrphanedCall(file, read_lines(data)[0], last_seen, [last_seen])
            for file, data in self.files.items()
        ]


class Process:
    """The process that serves the calls of a stage; it can be lost, and then another one is."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.memory = InMemory()
        running = cast(Checkpoints, self.memory)
        stage.services = replace(stage.services, checkpoints=running)
        stage.calls = stage.another()

    @property
    def frozen(self) -> bool:
        """It is lost, and no other has come yet."""
        return self.memory.frozen

    def freeze(self) -> None:
        """Nothing that it does has any effect from now on."""
        self.memory.frozen = True
        self.stage.ari.lose()

    async def is_lost(self) -> None:
        """Nothing of it runs any more: connections close, and nobody tells anybody anything."""
        if not self.frozen:
            # What is kept of a moment is written at its end.
            await asyncio.sleep(0)
        self.freeze()
        stage = self.stage
        stage.asterisk.on_event = lambda event: None
        for live in stage.calls._live.values():
            if isinstance(live, Waiting):
                live._timer.cancel()
                live.arrival.line._tell = None  # type: ignore[attr-defined]
                live.arrival.line._closing = True  # type: ignore[attr-defined]
                continue
            if live.ended.is_set():
                continue
            for timer in live._timers.values():
                timer.cancel()
            keeper, live.context.keeper = live.context.keeper, None
            if keeper is not None:
                keeper._timer.cancel()
            live.record.chronicle.watch = lambda *told: None
            live.context.let_go()
            live.line._tell = None  # type: ignore[attr-defined]
            live.line._closing = True  # type: ignore[attr-defined]
            if (timer := live.line._rtp_timer) is not None:  # type: ignore[attr-defined]
                timer.cancel()
            live.sound.stop()
        await stage.calls.close()
        await stage.gateway.close()
        own = [
            task
            for task in asyncio.all_tasks() - {asyncio.current_task()}
            if task.get_name().startswith("call ")
        ]
        for task in own:
            task.cancel()
        await asyncio.gather(*own, return_exceptions=True)
        for media in stage.asterisk.media.values():
            media.close()
        for socket in stage.asterisk.sockets.values():
            socket.channel.hang_up()
        for agent in stage.agents.conversations:
            agent.handler.tell = lambda event: None
            agent.closes(CloseKind.LOST, 1006)

    async def goes_on(self, *, after: float = 0.3) -> None:
        """Another one takes its place."""
        await self.adopts(after=after)
        await self.is_connected()

    async def adopts(self, *, after: float = 0.3) -> None:
        """Another one takes its place, and is not connected with Asterisk yet."""
        stage, lost_at = self.stage, now()
        await self.is_lost()
        await asyncio.sleep(after)
        self.memory.frozen = False
        stage.calls = stage.another()
        for left in self.memory.left(lost_at):
            assert stage.calls.adopt(restore(left), stage.gateway.adopt)

    async def is_connected(self) -> None:
        """What it has adopted goes on."""
        stage = self.stage
        await stage.gateway.mend(expected=True, adopting=True)
        await stage.gateway._connected()
        await stage.settle()

    def session(self, before: Session) -> Session:
        """The same call, in the process that has it now."""
        return self.stage.session(before.record.session_id)


def files_of(folder: Path) -> list[Path]:
    return list(folder.rglob("*.wav"))


def full(clock: FrameClock) -> FullAsterisk:
    return FullAsterisk(clock, lambda point: None)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage(asterisk=full) as stage:
        yield stage


@pytest.fixture
async def process(stage: Stage) -> Process:
    return Process(stage)


@pytest.mark.parametrize("heard_before", [0.4, 1.5])
async def test_what_was_not_announced_to_its_end_is_announced_anew(heard_before: float) -> None:
    tone = SoundFile(np.full(8000, 777, "<i2").tobytes(), 8000)
    async with Stage(asterisk=full, announcements={Announcement.LISTENING: tone}) as stage:
        process = Process(stage)
        before = await stage.talk()
        await asyncio.sleep(heard_before)
        await process.goes_on()
        session = process.session(before)
        await asyncio.sleep(2)
        heard = np.count_nonzero(sound(stage.media(session)) == 777)
        assert heard == (8000 if heard_before < 1 else 0)
        stage.asterisk.hang_up(session.call_id)
        await session.ended.wait()


async def test_who_talked_hears_the_agent_again(stage: Stage, process: Process) -> None:
    before = await stage.talk("customer_name=Jane")
    stage.agent().handler.agent_response("Hello, how can I help?", 1)
    stage.agent().says(1000, event_id=1)
    await asyncio.sleep(0.5)
    stage.agent().handler.user_transcript("My bicycle was stolen.", 2)
    began = before.record.began
    await process.goes_on()
    session = process.session(before)
    assert session.record.began == began
    await until(lambda: session.state is State.RECOVERING)
    second = stage.agent()
    assert second.briefing.variables["customer_name"] == "Jane"
    assert second.briefing.resumed is not None
    assert "Caller: My bicycle was stolen." in second.briefing.resumed.transcript
    assert second.told[-1] == ("text", GO_ON)
    await until(lambda: len(stage.asterisk.requests(START_MOH)) == 1)
    second.says(400, event_id=1, final=True)
    await stage.until(session, State.TALKING)
    await asyncio.sleep(1)
    assert heard_ms(stage.media(session)) == pytest.approx(400, abs=20)
    assert second.heard, "it hears the caller"
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()
    document = call_document(session.record)
    first, own, *_ = document["turns"]
    assert (first["text"], own["text"]) == ("Hello, how can I help?", "My bicycle was stolen.")
    assert first["heard"] is not None, "it was cut when the process was lost"
    assert document["notes"][0]["text"].startswith("the process that carried the call was lost")
    assert document["reason"] == "caller_hung_up"
    assert len(document["legs"]) == 1
    assert len(stage.asterisk.requests(CREATE_BRIDGE)) == 1
    await asyncio.sleep(2)
    assert not process.memory.files
    assert stage.left_behind() == []


async def test_followers_go_on_where_they_were(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    history = stage.journal._history(before.record)
    seqs = [entry.seq for entry in history.entries]
    await process.goes_on()
    record = process.session(before).record
    entries = list(stage.journal._history(record).entries)
    assert [entry.seq for entry in entries][: len(seqs)] == seqs
    assert isinstance(next(e.event for e in entries if e.seq == len(seqs) + 2), Adopted)
    assert all(entry.at <= datetime.now(UTC) for entry in entries)


async def test_lost_twice_in_a_row(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    await process.goes_on()
    await process.goes_on()
    session = process.session(before)
    stage.agent().says(100, final=True)
    await stage.until(session, State.TALKING)
    kinds = [entry.event.kind for entry in stage.journal._history(session.record).entries]
    assert kinds.count("adopted") == 2


async def test_no_agent_comes(stage: Stage, process: Process) -> None:
    before = await stage.talk()

    def away() -> None:
        raise AgentUnavailable("away")

    stage.agents.before = away
    await process.goes_on()
    await until(lambda: bool(stage.asterisk.landed))
    landed = stage.landed(before)
    assert (landed.status, landed.reason) == ("FAILED", "worker_lost")
    assert landed.variables["AGENT_SESSION_ID"] == before.record.session_id


async def test_the_caller_hung_up_meanwhile(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    await process.is_lost()
    stage.asterisk.hang_up(before.call_id)
    ended: list[str] = []
    stage.journal.listen(
        lambda record, event: (
            ended.append(record.end_reason or "") if isinstance(event, CallEnded) else None
        )
    )
    await process.goes_on()
    await until(lambda: bool(ended))
    assert ended == ["caller_hung_up"]
    assert not stage.calls._live
    await asyncio.sleep(2)
    assert not process.memory.files


async def test_who_rang_gets_an_agent(stage: Stage, process: Process) -> None:
    stage.agents.ready.clear()
    before = await stage.enter()
    await asyncio.sleep(0.1)
    await process.is_lost()
    stage.agents.ready.set()
    await process.goes_on()
    session = process.session(before)
    await stage.until(session, State.TALKING)
    assert len(stage.asterisk.requests(ANSWER)) == 1
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()


async def test_who_was_not_yet_in_a_call_comes_anew(stage: Stage, process: Process) -> None:
    await process.is_lost()
    stage.asterisk.enter("late", "customer_name=Jane")
    await process.goes_on()
    await until(lambda: len(stage.calls.records) == 1)
    session = stage.session_of("late")
    await stage.until(session, State.TALKING)
    assert stage.agent().briefing.variables["customer_name"] == "Jane"
    assert not stage.asterisk.landed


async def test_timers_run_on(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    began = now()
    await asyncio.sleep(500)
    await process.goes_on()
    session = process.session(before)
    stage.agent().says(100, final=True)
    await session.ended.wait()
    assert now() - began == pytest.approx(600, abs=1)
    assert stage.landed(session).reason == "call_timeout"


async def test_its_agents_time_and_its_trunk_are_counted_on(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    before.line.trunk = "PJSIP/trunk"
    before.call.context.mark()
    await asyncio.sleep(100)
    told: list[float] = []
    stage.journal.listen(lambda record, event: told.append(record.with_agent(now() - began)))
    began = before.record.began
    await process.goes_on(after=5)
    session = process.session(before)
    assert told[0] == pytest.approx(100, abs=0.1), "who counts what is spent hears of it anew"
    stage.agent().says(100, final=True)
    await stage.until(session, State.TALKING)
    await asyncio.sleep(50)
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()
    document = call_document(session.record)
    assert document["trunk"] == "PJSIP/trunk"
    assert document["agent_seconds"] == pytest.approx(150, abs=1)
    assert document["seconds"] == pytest.approx(155, abs=1)


async def test_what_the_parts_of_a_call_knew(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    before.call.mute(True)
    before.tells(PhoneHeld(True))
    before.tells(KeyPressed("1"))
    before.tells(KeyPressed("2"))
    await stage.settle()
    await process.goes_on()
    session = process.session(before)
    assert session.call.sound.muted
    session.tells(PhoneHeld(False))
    assert session.call.sound.muted
    stage.agent().says(100, final=True)
    await stage.until(session, State.TALKING)
    session.tells(KeyPressed("#"))
    assert ("dtmf", "12") in stage.agent().told


async def test_held_it_stays_held(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    before.call.context.post(HoldRequested(on=True))
    await stage.settle()
    await process.goes_on()
    session = process.session(before)
    await asyncio.sleep(1)
    assert session.state is State.HOLDING
    assert not [told for told in stage.agent().told if told[0] == "text"]
    session.call.context.post(HoldRequested(on=False))
    assert stage.agent().told[-1] == ("text", GO_ON)
    stage.agent().says(200, final=True)
    await asyncio.sleep(1)
    assert heard_ms(stage.media(session)) > 100


async def test_music_in_place_of_a_lost_agent_ends_with_the_next_ones_first_word(
    stage: Stage, process: Process
) -> None:
    before = await stage.talk()
    stage.agents.ready.clear()
    stage.agent().closes(CloseKind.LOST, 1006)
    await until(lambda: len(stage.asterisk.requests(START_MOH)) == 1)
    await process.goes_on()
    session = process.session(before)
    stage.agents.ready.set()
    await until(lambda: len(stage.agents.conversations) == 2)
    await stage.settle()
    stage.agent().says(200, final=True)
    await stage.until(session, State.TALKING)
    await stage.settle()
    bridge = stage.asterisk.world.bridges[session.line.bridge_id]
    assert session.call_id in bridge.channels, "and hears no music any more"


async def test_the_phrase_waits_until_the_caller_hears_the_line(
    stage: Stage, process: Process
) -> None:
    stage.with_policy(loss_sound=PHRASE)
    before = await stage.talk()
    stage.agents.ready.clear()
    joins = asyncio.Event()
    stage.asterisk.before[ADD_CHANNEL] = joins.wait
    await process.goes_on()
    session = process.session(before)
    await until(lambda: session.media_id in stage.asterisk.media)
    await asyncio.sleep(1)
    assert heard_ms(stage.media(session)) == 0
    joins.set()
    await asyncio.sleep(1)
    assert heard_ms(stage.media(session)) == 500
    stage.agents.ready.set()
    await until(lambda: len(stage.agents.conversations) == 2)
    await stage.settle()
    stage.agent().says(200, final=True)
    await stage.until(session, State.TALKING)


async def test_who_listened_hears_no_more(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    with before.call.supervision.listened("lea"):
        await asyncio.sleep(2)
        await process.goes_on()
    session = process.session(before)
    assert session.record.listening == []
    (listener,) = session.record.listeners
    assert listener.until == pytest.approx(listener.began + 2, abs=0.01)


async def test_a_take_over_that_was_given_up_stays_given_up(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    before.call.take_over("+493023125004", "lea")
    await stage.settle()
    before.call.give_back()
    await stage.settle()
    await process.goes_on()
    (over,) = process.session(before).record.take_overs
    assert over.failed == "given_up"
    kinds = [e.event.kind for e in stage.journal._history(process.session(before).record).entries]
    assert kinds.count("take_over_failed") == 1


async def test_a_target_that_rings_rings_on(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    before.call.context.post(ConsultRequested("+493023125001"))
    await asyncio.sleep(0.1)
    target = before.line.target_id
    await process.goes_on()
    session = process.session(before)
    assert (session.state, session.line.target_id) == (State.CONSULTING, target)
    await stage.until(session, State.BRIEFING)
    await stage.until(session, State.HANDED_OVER)
    await asyncio.sleep(0.1)
    bridge = stage.asterisk.world.bridges[session.line.bridge_id]
    assert set(bridge.channels) == {session.call_id, target}
    await process.goes_on()
    again = process.session(before)
    assert again.state is State.HANDED_OVER
    assert set(bridge.channels) == {again.call_id, target}
    stage.asterisk.hang_up(target)
    await again.ended.wait()
    assert stage.landed(again).reason == "transferred"


async def test_a_transfer_that_fails_before_the_agent_is_there_is_told_to_it(
    stage: Stage, process: Process
) -> None:
    before = await stage.talk()
    came_to_nothing = "came to nothing: nobody has taken the call"
    before.call.context.post(ConsultRequested("+493023125001"))
    await asyncio.sleep(0.1)
    stage.agents.ready.clear()
    await process.goes_on()
    session = process.session(before)
    session.tells(TargetLost("busy"))
    await stage.until(session, State.RECOVERING)
    stage.agents.ready.set()
    await until(lambda: len(stage.agents.conversations) == 2)
    await stage.settle()
    told = [text for way, text in stage.agent().told if way == "context"]
    assert [came_to_nothing in text for text in told] == [False, True]
    stage.agent().says(200, final=True)
    await stage.until(session, State.TALKING)
    await process.goes_on()
    await until(lambda: len(stage.agents.conversations) == 3)
    await stage.settle()
    assert came_to_nothing not in str(stage.agent().told), "that is over"


async def test_a_supervisor_speaks_on_with_the_caller(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    before.call.take_over("+493023125004", "lea")
    await stage.until(before, State.TAKEN_OVER)
    supervisor = before.line.target_id
    await process.goes_on()
    session = process.session(before)
    assert session.state is State.TAKEN_OVER
    await until(lambda: session.media_id in stage.asterisk.world.channels)
    await asyncio.sleep(1)
    bridge = stage.asterisk.world.bridges[session.line.bridge_id]
    assert set(bridge.channels) == {session.call_id, supervisor, session.media_id}
    assert len(stage.agents.conversations) == 1, "the agent is not needed now"
    session.call.give_back()
    await until(lambda: len(stage.agents.conversations) == 2)
    await stage.settle()
    stage.agent().says(200, final=True)
    await stage.until(session, State.TALKING)
    assert supervisor not in stage.asterisk.world.channels
    (over,) = call_document(session.record)["take_overs"]
    assert (over["who"], over["renewed"]) == ("lea", True)


async def test_nobody_gives_back_what_does_not_go_on_yet(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    before.call.take_over("+493023125004", "lea")
    await stage.until(before, State.TAKEN_OVER)
    await process.adopts()
    session = process.session(before)
    name = session.record.session_id
    gateways = [stage.gateway]
    control = CallControl(stage.calls, gateways, cast(Any, None), stage.services.policy, now)
    with pytest.raises(NotPossible, match="cannot be reached just now"):
        await control.give_back(name)
    await process.is_connected()
    await control.give_back(name)
    await until(lambda: len(stage.agents.conversations) > 1)
    await asyncio.sleep(1)
    assert len(stage.agents.conversations) == 2, "one agent comes in the place of the lost one"


async def test_a_supervisor_who_leaves_before_it_goes_on_brings_one_agent(
    stage: Stage, process: Process
) -> None:
    before = await stage.talk()
    before.call.take_over("+493023125004", "lea")
    await stage.until(before, State.TAKEN_OVER)
    await process.goes_on()
    await process.adopts()
    session = process.session(before)
    session.tells(TargetLost("hung_up"))
    await asyncio.sleep(0.1)
    await process.is_connected()
    await asyncio.sleep(1)
    assert session.state is State.RECOVERING
    assert len(stage.agents.conversations) == 2


async def test_whom_we_call_and_who_answers_before_it_goes_on_gets_one_agent(
    stage: Stage, process: Process
) -> None:
    stage.asterisk.withheld.add("ChannelStateChange")
    before = stage.place()
    await until(lambda: before.call_id in stage.asterisk.world.channels)
    assert before.state is State.DIALLING
    await process.adopts()
    session = process.session(before)
    session.tells(Rings())
    await asyncio.sleep(0.1)
    await process.is_connected()
    await asyncio.sleep(1)
    assert len(stage.agents.conversations) == 1


async def test_an_end_that_was_decided(stage: Stage, process: Process) -> None:
    before = await stage.talk()
    before.call.context.post(EndRequested(DONE))
    await process.is_lost()
    await process.goes_on()
    await until(lambda: bool(stage.asterisk.landed))
    assert stage.landed(before).reason == "end_requested"
    await asyncio.sleep(2)
    assert not process.memory.files


@pytest.mark.parametrize(
    ("had_ended", "reason"), [(False, "internal_error"), (True, "end_requested")]
)
async def test_one_that_cannot_be_taken_up_lands_and_strands_no_other(
    stage: Stage,
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
    had_ended: bool,
    reason: str,
) -> None:
    first, second = await stage.talk(), await stage.talk()
    if had_ended:
        first.call.context.post(EndRequested(DONE))
    await process.is_lost()
    resume = Keypad.resume
    broken = iter((True, False))

    def resume_the_second(self: Keypad, begun: str) -> None:
        if next(broken):
            raise ZeroDivisionError
        resume(self, begun)

    monkeypatch.setattr(Keypad, "resume", resume_the_second)
    with capture_logs() as logs:
        await process.goes_on()
        await until(lambda: bool(stage.asterisk.landed))
        session = process.session(second)
        stage.agent().says(100, final=True)
        await stage.until(session, State.TALKING)
    assert stage.landed(first).reason == reason
    (told,) = (entry for entry in logs if entry["event"] == "call_not_taken_up")
    assert told["session"] == first.record.session_id
    assert stage.calls.live(first.record.session_id) is None
    assert stage.calls.records[first.record.session_id].end_reason == reason


async def test_a_call_that_we_placed(stage: Stage, process: Process) -> None:
    before = stage.place()
    await until(lambda: before.call_id in stage.asterisk.world.channels)
    await process.goes_on()
    session = process.session(before)
    assert session.state in (State.DIALLING, State.RINGING)
    await stage.until(session, State.TALKING)
    await process.goes_on()
    session = process.session(before)
    stage.agent().says(100, final=True)
    await stage.until(session, State.TALKING)
    assert session.record.result == "answered"
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()
    assert session.record.result == "answered"


async def test_a_recording_goes_on_in_another_file(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path, recorded=True) as stage:
        process = Process(stage)
        before = await stage.talk()
        await asyncio.sleep(2)
        await process.goes_on()
        session = process.session(before)
        stage.agent().says(500, final=True)
        await stage.until(session, State.TALKING)
        await asyncio.sleep(2)
        stage.asterisk.hang_up(session.call_id)
        await session.ended.wait()
        assert session.record.recording == "on"
        assert stage.services.recordings is not None
        await stage.services.recordings.close()
        assert len(files_of(tmp_path)) == 2
