"""What is asked of calls from outside, over a line that is no Asterisk."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.call.amd import OnMachine
from ari_app.call.states import State
from ari_app.control.planner import Wish
from ari_app.control.refusals import ControlRefused, NotPossible, SessionNotFound
from ari_app.line.interface import (
    Arrival,
    Ended,
    Outcome,
    PhoneHeld,
    Screened,
    Status,
    TargetLost,
)
from lab.softphone.sounds import babble
from tests.unit.call.test_any_line import House, flows, house
from tests.unit.line.fake_line import FRAME, FakeGateway, FakeLine

NUMBER = "+493023125001"


async def refused(home: House, **wish: Any) -> ControlRefused:
    """Ask for what cannot be had; why not."""
    known = set(home.calls.records)
    with pytest.raises(ControlRefused) as refusal:
        await home.control.initiate(Wish(**wish))
    assert set(home.calls.records) == known
    return refusal.value


async def waits(home: House, *, answered: bool = False) -> FakeLine:
    """A caller who waits, for ten seconds."""
    line = FakeLine(answered=answered)
    home.calls.take(Arrival(line, "agent_7", {"customer_name": "Jane"}, wait_seconds=10))
    await asyncio.sleep(0.01)
    assert home.record.state == "waiting"
    return line


# --- calls that are placed


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"called_number": ""}, "invalid_number"),
        ({"called_number": "12"}, "invalid_number"),
        ({"called_number": "+49 30 12&PJSIP/1"}, "invalid_number"),
        ({"called_number": f"{NUMBER},tT"}, "invalid_number"),
        ({"called_number": "${EXTEN}"}, "invalid_number"),
        ({"called_number": "+49\n3023125001"}, "invalid_number"),
        ({"called_number": "+493023125@evil"}, "invalid_number"),
        ({"called_number": NUMBER, "caller_number": "a<b>"}, "invalid_number"),
        ({"called_number": NUMBER, "session_id": "../x"}, "invalid_session_id"),
        ({"reference": "1700000000.1", "sip_headers": {"X-A": "b"}}, "no_such_way"),
        ({"called_number": NUMBER, "channel_variables": {"TRUNK": "b"}}, "no_such_way"),
        ({"reference": "1700000000.1"}, "no_such_channel"),
        ({}, "no_such_channel"),
    ],
    ids=str,
)
async def test_a_wish_that_cannot_be_granted(wish: dict[str, Any], code: str) -> None:
    gateway = FakeGateway()
    async with house(gateway) as home:
        assert (await refused(home, **wish)).code == code
        assert gateway.lines == []


async def test_a_name_is_given_once() -> None:
    async with house() as home:
        await home.control.initiate(Wish(called_number=NUMBER, session_id="mine-1"))
        again = await refused(home, called_number=NUMBER, session_id="mine-1")
        assert again.code == "session_exists"


@pytest.mark.parametrize(
    ("on_machine", "state"), [(None, State.TALKING), (OnMachine.HANG_UP, State.ENDED)]
)
async def test_what_is_done_with_a_machine_is_the_wishs_affair(
    on_machine: OnMachine | None, state: State
) -> None:
    gateway = FakeGateway()
    gateway.slow = frozenset({"screen"})
    async with house(gateway) as home:
        await home.control.initiate(
            Wish(called_number=NUMBER, amd=True, on_machine=on_machine, session_id="s")
        )
        (line,) = gateway.lines
        await home.until(State.SCREENING)
        line.tells(Screened("MACHINE", "LONGGREETING-2000-2000"))
        await home.until(state)


async def test_no_call_without_a_way_out_or_while_the_service_stops() -> None:
    gateway = FakeGateway()
    async with house(gateway) as home:
        gateway.connected = False
        assert (await refused(home, called_number=NUMBER)).code == "not_connected"
        gateway.connected = True
        home.calls.draining = True
        assert (await refused(home, called_number=NUMBER)).code == "draining"


async def test_at_the_limit_a_wish_is_refused_or_waits() -> None:
    async with house() as home:
        for name in "ab":
            await home.control.initiate(Wish(called_number=NUMBER, session_id=name))
        told: list[str] = []
        home.control._on_refused = told.append
        full = await refused(home, called_number=NUMBER)
        assert told == ["capacity"]
        assert (full.code, full.retry_after) == ("capacity", 5)
        late = await refused(home, called_number=NUMBER, wait_seconds=0.3)
        assert late.code == "queue_timeout"
        wish = Wish(called_number=NUMBER, session_id="c", wait_seconds=10)
        waiting = asyncio.create_task(home.control.initiate(wish))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await home.control.end("a", "changed_my_mind")
        assert home.calls.records["a"].end_reason == "changed_my_mind"
        assert (await waiting).session_id == "c"


# --- callers who wait


@pytest.mark.parametrize(("answered", "asked"), [(False, "ring"), (True, "music")])
async def test_a_waiting_caller_gets_the_agent_that_is_named(answered: bool, asked: str) -> None:
    async with house() as home:
        line = await waits(home, answered=answered)
        assert (line.asked, home.agents.dialled) == ([asked], [])
        record = await home.control.initiate(
            Wish("agent_8", "mine", line.id, "+15550100009", metadata={"campaign": "spring"})
        )
        await home.until(State.TALKING)
        assert record is home.calls.records["mine"]
        assert (record.metadata["campaign"], list(home.calls.records)) == ("spring", ["mine"])
        assert home.agent.agent_id == "agent_8"
        assert home.agent.briefing.variables["customer_name"] == "Jane"
        assert home.agent.briefing.variables["caller_id"] == "+15550100009"
        assert (await refused(home, reference=line.id)).code == "no_such_channel"


async def test_nobody_names_an_agent() -> None:
    async with house() as home:
        line = await waits(home)
        await asyncio.sleep(10)
        assert line.outcome == Outcome(Status.FAILED, "wait_timeout")
        assert (await refused(home, reference=line.id)).code == "no_such_channel"


async def test_a_waiting_caller_hangs_up_or_is_sent_on_when_the_service_stops() -> None:
    async with house() as home:
        first = await waits(home)
        first.tells(Ended("caller_hung_up"))
        await home.until(State.ENDED)
        assert home.record.end_reason == "caller_hung_up"
        second = await waits(home)
        await home.calls.drain(10)
        assert second.outcome == Outcome(Status.REJECTED, "draining")
        assert home.agents.dialled == []


async def test_a_waiting_caller_at_the_limit() -> None:
    async with house() as home:
        for name in "ab":
            await home.control.initiate(Wish(called_number=NUMBER, session_id=name))
        line = await waits(home)
        assert (await refused(home, reference=line.id)).code == "capacity"
        wish = Wish(reference=line.id, wait_seconds=5)
        queued = asyncio.create_task(home.control.initiate(wish))
        await asyncio.sleep(0.1)
        await home.control.end("a")
        assert (await queued).line_id == line.id


# --- a call in its middle


async def test_what_is_said_to_the_agent_and_what_the_line_refuses() -> None:
    async with house() as home:
        await home.talks(FakeLine())
        name, control = home.record.session_id, home.control
        await control.say_to_agent(name, "context", "A good customer.")
        await control.say_to_agent(name, "user", "Hello?")
        assert home.agent.told == [("context", "A good customer."), ("text", "Hello?")]
        for wrong, code in (
            (control.send_dtmf(name, "12x"), "bad_digits"),
            (control.transfer(name, "x&y"), "bad_target"),
            (control.transfer(name, "support", "attended"), "bad_target"),
        ):
            with pytest.raises(NotPossible) as refusal:
                await wrong
            assert refusal.value.code == code
        assert home.record.state == State.TALKING


async def test_a_caller_is_passed_on() -> None:
    async with house() as home:
        blind, attended = FakeLine("blind"), FakeLine("attended", slow=frozenset({"consult"}))
        await home.talks(blind)
        await home.control.transfer(home.record.session_id, "support")
        await flows(blind, 0.1)
        await asyncio.sleep(2)
        assert blind.outcome is not None
        assert (blind.outcome.reason, blind.outcome.transfer_to) == (
            "transfer_requested",
            "support",
        )
        await home.talks(attended)
        await home.control.transfer(home.record.session_id, NUMBER, "attended")
        assert attended.asked[-1] == f"consult {NUMBER}"
        assert home.record.state == State.CONSULTING
        with pytest.raises(NotPossible) as refusal:
            await home.control.transfer(home.record.session_id, NUMBER)
        assert refusal.value.code == "already_transferring"
        attended.tells(Ended("caller_hung_up"))
        await home.until(State.ENDED)
        assert home.record.legs[-1].result == "call_ended"


@pytest.mark.parametrize("mode", ["blind", "attended"])
async def test_a_caller_on_hold_is_passed_on(mode: Literal["blind", "attended"]) -> None:
    async with house() as home:
        line = FakeLine(slow=frozenset({"consult"}))
        await home.talks(line)
        session_id = home.record.session_id
        await home.control.hold(session_id, on=True)
        await home.control.transfer(session_id, NUMBER, mode)
        if mode == "blind":
            await home.until(State.ENDED)
            assert line.outcome is not None and line.outcome.transfer_to == NUMBER
            return
        assert home.record.state == State.CONSULTING
        line.tells(TargetLost("busy"))
        assert (home.record.state, line.asked[-1]) == (State.TALKING, "connect")


@pytest.mark.parametrize("other", ["transfer", "take_over"])
async def test_an_agent_whose_transfer_overlaps_another_is_told_so(other: str) -> None:
    async with house() as home:
        line = FakeLine(slow=frozenset({"consult", "bring_in"}))
        await home.talks(line)
        session_id = home.record.session_id
        if other == "transfer":
            await home.control.transfer(session_id, NUMBER, "attended")
        else:
            await home.control.take_over(session_id, NUMBER, "somebody")
        asked = list(line.asked)
        to = {"to": NUMBER, "mode": "attended"}
        home.agent.handler.tool_call("transfer_call", "1", to, True)
        await asyncio.sleep(1)
        (_, text, is_error), *_ = home.agent.results
        why = "a transfer is under way" if other == "transfer" else "a colleague is being called"
        assert is_error and why in text
        assert line.asked == asked


async def test_a_transfer_is_called_off() -> None:
    async with house() as home:
        line = FakeLine(slow=frozenset({"consult"}))
        await home.talks(line)
        to = {"to": NUMBER, "mode": "attended"}
        home.agent.handler.tool_call("transfer_call", "1", to, True)
        await home.until(State.CONSULTING)
        await home.control.give_back(home.record.session_id)
        assert home.record.state == State.TALKING
        await asyncio.sleep(0.1)
        ((_, text, is_error),) = home.agent.results
        assert is_error and "somebody else has called it off" in text
        assert line.asked[-2:] == ["drop_target", "connect"]
        with pytest.raises(NotPossible):
            await home.control.give_back(home.record.session_id)


@pytest.mark.parametrize("declines", [True, False])
async def test_who_is_asked_to_take_a_call_may_say_no(declines: bool) -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        # The caller is held by their telephone, which keeps nobody from hearing the target.
        line.tells(PhoneHeld(on=True))
        await home.control.transfer(home.record.session_id, NUMBER, "attended")
        await home.until(State.BRIEFING)
        home.agent.says(500, event_id=2, final=True)
        await flows(line, 1.5)
        heard = len(home.agent.heard)
        says = babble(1000, -15)
        for start in range(0, len(says), len(FRAME)):
            await flows(line, 0.02, says[start : start + len(FRAME)])
        assert any(map(any, home.agent.heard[heard:]))
        await flows(line, 2.5)
        assert home.record.state == State.BRIEFING, "the agent owes an answer"
        home.agent.says(500, event_id=3, final=True)
        if declines:
            home.agent.handler.tool_call("cancel_transfer", "1", {}, True)
            await flows(line, 0.4)
            assert home.record.state == State.BRIEFING, "what it is saying is heard first"
        await flows(line, 2.5)
        notes = [line.text for line in home.record.transcript if line.who == "note"][1:]
        assert notes[:2] == ["the target of a transfer is called", "the target hears the agent"]
        if not declines:
            assert home.record.state == State.HANDED_OVER
            assert notes[2:] == ["the caller goes on without the agent"]
            return
        assert notes[2:] == ["the transfer has come to nothing: the target does not want the call"]
        assert home.record.state == State.TALKING
        assert home.agent.results == [
            ("1", "The target is gone; the caller hears you again.", False)
        ]
        assert [leg.result for leg in home.record.legs] == [None, "declined"]
        assert line.asked[-2:] == ["drop_target", "connect"]
        assert all(way != "text" for way, _ in home.agent.told), "it needs no other word"


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_transfer_that_did_not_come_about_is_told_as_none(hangs_up: bool) -> None:
    """While the agent still finishes its sentence."""
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        record = home.record
        await home.control.transfer(record.session_id, "support")
        assert (record.agent_status, record.transfer_to) == ("TRANSFER", "support")
        if hangs_up:
            line.tells(Ended("caller_hung_up"))
            await asyncio.sleep(1)
        else:
            await home.control.end(record.session_id, "customer_paid")
        assert record.end_reason == ("caller_hung_up" if hangs_up else "customer_paid")
        assert record.transfer_to is None


async def test_a_caller_who_is_muted_is_heard_as_silence() -> None:
    async with house() as home:
        line, loud = FakeLine(), b"\x10\x10" * 160
        await home.talks(line)
        for muted in (True, False):
            await home.control.mute(home.record.session_id, muted)
            home.agent.heard.clear()
            await flows(line, 0.2, loud)
            assert any(b"".join(home.agent.heard)) is not muted


async def test_a_call_that_ends_on_hold() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        await home.control.hold(home.record.session_id, on=True)
        assert home.record.state == State.HOLDING
        await home.control.end(home.record.session_id)
        assert line.outcome == Outcome(Status.COMPLETED, "end_requested")


async def test_when_the_call_is_over() -> None:
    async with house() as home:
        await home.talks(FakeLine())
        record, control = home.record, home.control
        home.agent.closes(CloseKind.LOCAL)
        assert await control.end(record.session_id) is record
        assert await control.end(record.session_id) is record, "it ends once"
        with pytest.raises(NotPossible, match="The call is ended"):
            await control.hold(record.session_id, on=True)
        with pytest.raises(SessionNotFound):
            await control.mute("nobody", True)
        with pytest.raises(SessionNotFound):
            await control.end("nobody")


# --- traces

TRACE = f"00-{'1' * 32}-{'2' * 16}-01"


async def test_a_wish_brings_its_trace_to_the_call_that_it_places() -> None:
    async with house() as home:
        record = await home.control.initiate(Wish(called_number=NUMBER, traceparent=TRACE))
        assert record.trace is not None
        assert record.trace.traceparent == TRACE


@pytest.mark.parametrize(
    ("own", "trace_id"), [("", "1" * 32), (f"00-{'3' * 32}-{'4' * 16}-01", "3" * 32)]
)
async def test_a_waiting_caller_keeps_a_trace_of_its_own(own: str, trace_id: str) -> None:
    async with house() as home:
        line = FakeLine()
        home.calls.take(Arrival(line, "agent_7", wait_seconds=10, traceparent=own))
        await asyncio.sleep(0.01)
        record = await home.control.initiate(Wish(reference=line.id, traceparent=TRACE))
        assert record.trace_id == trace_id
