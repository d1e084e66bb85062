"""Asterisk goes away: its event socket, all of its HTTP, or all of it; and it stands still."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from ari_app.call.signals import HoldRequested
from ari_app.call.states import State
from ari_app.line.asterisk.ari.socket import EventSocket
from ari_app.records.events import CallEvent, StateChanged
from ari_app.records.journal import Listener
from ari_app.records.record import CallRecord
from lab.asterisk import Installation, LabAsterisk
from lab.faults import TcpProxy
from lab.practice_agent import AgentBook, ConversationRecord
from lab.softphone.call import Call
from lab.softphone.sounds import tone, tone_dbfs
from tests.e2e.harness import HUMAN_HZ, Bench, bench, book, loud_seconds
from tests.e2e.test_agent_faults import MUSIC_HZ, dead_air
from tests.session_view import Session
from tests.waiting import until

pytestmark = pytest.mark.e2e

QUIET = {"dialogue": {"first_message": "", "turns": []}}
LOUD = -35.0
TONE_HZ, STAND_IN_HZ = 1000, 425


@pytest.fixture
async def own(installation: Installation) -> AsyncIterator[LabAsterisk]:
    """An Asterisk that a test may break."""
    async with LabAsterisk(installation=installation) as asterisk:
        yield asterisk


@contextlib.asynccontextmanager
async def proxied(
    asterisk: LabAsterisk, *listeners: Listener, agents: AgentBook | None = None
) -> AsyncIterator[tuple[Bench, TcpProxy]]:
    """A bench whose way to ARI can be disturbed; without `agents` one that says nothing."""
    host, _, port = asterisk.ari_url.removeprefix("http://").rpartition(":")
    async with (
        TcpProxy(host, int(port), mark=b"GET /ari/events") as proxy,
        bench(asterisk, agents or book(**QUIET), listeners, ari_url=f"http://{proxy.address}") as b,
    ):
        yield b, proxy


def conversation(b: Bench, session: Session) -> ConversationRecord:
    return next(c for c in b.agent.conversations if c.conversation_id == session.conversation_id)


def keys_heard(b: Bench, session: Session) -> list[str]:
    told = conversation(b, session).messages
    return [str(each["text"]) for each in told if each.get("type") == "user_message"]


async def hears(call: Call, hz: int) -> None:
    await until(lambda: bool(tone_dbfs(call.heard_pcm()[-1600:], hz) > -30))


class CutsAt:
    """Cuts the event socket when a call has reached a state."""

    def __init__(self, state: State) -> None:
        self.proxy: TcpProxy | None = None
        self.cuts = 0
        self._state = state

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        reached = event == StateChanged(self._state.value, record.status)
        if reached and self.proxy is not None and not self.cuts:
            self.cuts += 1
            self.proxy.cut(marked_only=True)


async def test_a_short_break_while_the_caller_is_answered_does_not_end_the_call(
    own: LabAsterisk,
) -> None:
    """What happened meanwhile, the caller's way into the bridge, is found out afterwards."""
    cutter = CutsAt(State.JOINING)
    async with proxied(own, cutter.heard) as (b, proxy):
        cutter.proxy = proxy
        call, session = await b.talk()
        assert cutter.cuts == 1
        assert b.bridge.ari.link.outages > 1, "beside the one before it was connected"
        await call.play(tone(TONE_HZ, 300, -20))
        await until(lambda: loud_seconds(conversation(b, session)) > 0.2)
        await call.hang_up()
        await b.all_gone()


async def test_a_call_whose_media_channel_finds_no_application_goes_on_in_the_dialplan(
    own: LabAsterisk,
) -> None:
    cutter = CutsAt(State.CONNECTING)
    async with proxied(own, cutter.heard) as (b, proxy):
        cutter.proxy = proxy
        call = await b.call()
        await hears(call, HUMAN_HZ)
        await own.wait_for_log("landed=human stasis=SUCCESS agent=FAILED reason=")
        await call.hang_up()
        await b.all_gone()


Break = Callable[[TcpProxy], Awaitable[None]]
OUTAGES: dict[str, tuple[Break, float]] = {
    "event socket refused": (lambda proxy: proxy.refuse(marked_only=True), 3.0),
    "all refused": (lambda proxy: proxy.refuse(), 3.0),
    # As long as it takes to find out by pings, and some more.
    "nothing passes": (lambda proxy: proxy.blackhole(), 9.0),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_calls_go_on_without_ari_and_end_as_they_ended(own: LabAsterisk, outage: str) -> None:
    break_off, seconds = OUTAGES[outage]
    async with proxied(own) as (b, proxy):
        stays, session = await b.talk()
        leaves, left = await b.talk()
        ended, over = await b.talk()
        assert proxy.marked == 1

        await break_off(proxy)
        broken_at = asyncio.get_running_loop().time()
        await leaves.hang_up()
        ending = asyncio.create_task(b.bridge.control.end(over.session_id, "enough"))
        await stays.play(tone(TONE_HZ, 1000, -20))
        heard = conversation(b, session)
        await until(lambda: loud_seconds(heard) > 0.9)
        await until(lambda: conversation(b, over).closing is not None)
        if outage == "all refused":
            await until(lambda: bool(tone_dbfs(ended.heard_pcm()[-3200:], STAND_IN_HZ) > -40))
        else:
            await until(lambda: not ended.is_up or b.bridge.lines.lines == 2)
        assert not over.counts, "it holds no place"

        await until(lambda: b.bridge.readiness().status == "not_ready")
        found_after = asyncio.get_running_loop().time() - broken_at
        assert found_after < 9
        if outage != "nothing passes":  # Asterisk knows that nobody is there
            new = await b.call()
            await hears(new, HUMAN_HZ)
            await own.wait_for_log("landed=human stasis=FAILED agent= reason=")
            await new.hang_up()
        else:
            new = await b.dial()
        await asyncio.sleep(max(0.0, broken_at + seconds - asyncio.get_running_loop().time()))
        assert session.state is State.TALKING
        assert left.state is State.TALKING, "nothing has said that the caller is gone"
        assert ended.is_up is (outage != "event socket refused")

        await proxy.restore()
        back_at = asyncio.get_running_loop().time()
        await until(lambda: left.ended.is_set() and over.ended.is_set())
        assert left.end_reason == "caller_hung_up"
        await own.wait_for_log("landed=bye reason=enough")
        assert asyncio.get_running_loop().time() - back_at < 5
        await ending
        if outage == "nothing passes":
            await own.wait_for_log("landed=human stasis=SUCCESS agent=FAILED reason=session_lost")
            await new.hang_up()
        # What happens from now on is heard of again.
        await until(lambda: b.bridge.readiness().status == "ready")
        await stays.send_digits("7#")
        await until(lambda: keys_heard(b, session) == ["7"])
        await stays.hold()
        await until(lambda: session.call.context.on_hold)
        await stays.unhold()
        await stays.hang_up()
        await until(session.ended.is_set, 2)
        another, _ = await b.talk()
        await another.hang_up()
        await b.all_gone()


DYING = {
    "faults": {"times": 1, "close": {"code": 1006, "mid_response": True, "after_ms": 500}},
    "delivery": {"think_ms": 2500},
}


@pytest.mark.parametrize(("at", "seconds"), [(0.7, 0.6), (0.1, 6.0)], ids=["music", "all the gap"])
async def test_the_agent_is_lost_while_ari_is_away(
    own: LabAsterisk, at: float, seconds: float
) -> None:
    async with proxied(own, agents=book(**DYING)) as (b, proxy):
        call, session = await b.talk()
        first = await b.conversation(0)
        await until(lambda: first.closing is not None)
        died = time.monotonic()
        await asyncio.sleep(at)
        await proxy.refuse()
        await asyncio.sleep(seconds)
        await proxy.restore()
        await until(lambda: len(b.agent.conversations) == 2)
        await until(lambda: session.state is State.TALKING)
        record = conversation(b, session)
        await until(lambda: record.agent_audio_seconds > 0)
        await asyncio.sleep(1)
        assert dead_air(call, died) < 5
        await until(lambda: b.bridge.readiness().status == "ready")
        assert session.state is State.TALKING
        await call.hang_up()
        await b.all_gone()


async def test_one_reset_ends_no_hold(own: LabAsterisk) -> None:
    async with proxied(own) as (b, proxy):
        call, session = await b.talk()
        for on, state in ((True, State.HOLDING), (False, State.TALKING)):
            proxy.cut()
            session.post(HoldRequested(on=on))
            await until(lambda: b.bridge.readiness().status == "ready")
            assert session.state is state
            if on:
                await hears(call, MUSIC_HZ)
        said = loud_seconds(conversation(b, session))
        await call.play(tone(TONE_HZ, 500, -20))
        await until(lambda: loud_seconds(conversation(b, session)) > said + 0.4)
        await call.hang_up()
        await b.all_gone()


@pytest.mark.parametrize("how", ["killed", "restarted"])
async def test_asterisk_comes_back_and_the_next_call_works(
    own: LabAsterisk, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = open_files()
    not_understood: list[str] = []
    monkeypatch.setattr(
        EventSocket, "_tell_of_unknown", lambda _, kind: not_understood.append(kind)
    )
    async with bench(own, book(**QUIET), recordings_dir=tmp_path) as b:
        for _ in range(3):
            await b.talk()
        await b.dial("103")
        await until(lambda: b.sessions()[-1].state == "waiting")
        waiting = b.sessions()[-1]
        _, held = await b.talk()
        await b.bridge.control.hold(held.session_id, on=True)
        await until(lambda: held.state is State.HOLDING)
        all_sessions = b.sessions()

        if how == "killed":
            own.kill()
            await until(lambda: b.bridge.lines.lines == 0)
            await until(lambda: all(c.closing is not None for c in b.agent.conversations))
            # The waiting call has no line that could tell; nor can its channel be asked after.
            assert {s.state for s in all_sessions} == {State.RELEASING, "waiting"}
            await own.revive()
        else:
            await own.restart()
        await until(lambda: all(s.ended.is_set() for s in all_sessions))
        assert all(s.end_reason for s in all_sessions)
        assert waiting.end_reason == "caller_hung_up"
        await until(lambda: b.bridge.readiness().status == "ready")
        assert b.bridge.lines.expected == 0
        assert sum(len(names) for *_, names in os.walk(tmp_path)) == 4

        next_call, session = await b.talk()
        await next_call.play(tone(TONE_HZ, 500, -20))
        await until(lambda: loud_seconds(conversation(b, session)) > 0.4)
        await next_call.hang_up()
        await b.all_gone()
        assert not_understood == [], "Asterisk was asked, before and after, to tell no others"
    await until(lambda: open_files() == files)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_calls_survive_an_asterisk_that_stands_still(own: LabAsterisk) -> None:
    """For 3 s: no call ends, no frame is lost on the line, and nothing stays late."""
    greeting = {"dialogue": {"first_message": "One two three four five. " * 12, "turns": []}}
    async with bench(own, book(**greeting)) as b:
        call, session = await b.talk()
        await call.wait_for_sound(LOUD, since=0)
        call.send(tone(TONE_HZ, 4000, -20))
        await asyncio.sleep(0.5)
        own.freeze()
        await asyncio.sleep(3)
        assert session.state is State.TALKING
        own.thaw()
        record = conversation(b, session)
        # What the caller said meanwhile arrives late, but whole, and what comes next is in time.
        await until(lambda: loud_seconds(record) > 3.9)
        await asyncio.sleep(1)
        said = loud_seconds(record)
        before = asyncio.get_running_loop().time()
        # Louder than the long tone, which counts as the line's noise by now.
        await call.play(tone(TONE_HZ, 300, -10))
        await until(lambda: loud_seconds(record) > said + 0.25)
        assert asyncio.get_running_loop().time() - before < 1
        stats = call.ear.stats()
        assert (stats.lost, stats.duplicated) == (0, 0)
        assert session.line.frames_not_read == 0
        # From now on sound comes every 20 ms again, not in bursts.
        late = [each.at for each in call.ear.arrivals][-25:]
        assert late[-1] - late[0] > 0.35
        assert b.bridge.readiness().status == "ready", "the event socket outlived it"
        await call.hang_up()
        await b.all_gone()
