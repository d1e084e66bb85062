"""All calls: who is taken in, who is refused, how they end."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from ari_app.agent.interface import Briefing
from ari_app.call import calls as calls_module
from ari_app.call.admission import NoRoom
from ari_app.call.conversation import HELD_BY_PHONE
from ari_app.call.signals import ConsultRequested
from ari_app.call.states import State
from ari_app.line.interface import Outcome, Status
from ari_app.records.events import CallEnded, CallEvent
from ari_app.records.record import CallRecord
from tests.unit.call.fake_ari import (
    CONTINUE,
    DESTROY_BRIDGE,
    HANGUP,
    SET_VARIABLE,
    Landed,
    Moment,
    never,
    status,
)
from tests.unit.call.full_asterisk import FullAsterisk
from tests.unit.call.stage import Stage, heard_ms
from tests.waiting import Turns, until


def now() -> float:
    return asyncio.get_running_loop().time()


def outage(stage: Stage, trouble: Moment) -> None:
    """Asterisk cannot be reached; the lines are up."""
    for operation in (SET_VARIABLE, CONTINUE, HANGUP, DESTROY_BRIDGE):
        stage.asterisk.before[operation] = trouble
    stage.ari.link.set(False)


async def refused(stage: Stage, *args: str) -> Landed:
    """A caller who is not taken in: where he lands."""
    session = await stage.enter(*args)
    await session.ended.wait()
    assert session.conversation_id == ""
    assert session.state is State.ENDED
    return stage.landed(session)


# --- taking calls in


async def test_one_call_too_many_is_rejected() -> None:
    async with Stage(max_calls=2) as stage:
        first, _ = await stage.talk(), await stage.talk()
        assert stage.calls.count() == 2
        landed = await refused(stage)
        assert (landed.status, landed.reason) == ("REJECTED", "at_capacity")
        assert landed.variables["AGENT_SESSION_ID"]
        stage.asterisk.hang_up(first.call_id)
        # The first need not be gone altogether: its agent is free.
        await stage.talk()
        assert stage.calls.count() == 2


async def test_calls_count_from_their_first_moment() -> None:
    async with Stage(max_calls=1) as stage:
        stage.agents.ready.clear()
        await stage.enter()
        assert (await refused(stage)).reason == "at_capacity"


async def test_a_call_without_an_agent() -> None:
    async with Stage(briefing=Briefing("")) as stage:
        landed = await refused(stage)
        assert (landed.status, landed.reason) == ("FAILED", "no_agent_id")


async def test_a_refused_call_asks_asterisk_for_nothing_but_its_way_on(stage: Stage) -> None:
    stage.calls.draining = True
    landed = await refused(stage)
    assert (landed.status, landed.reason) == ("REJECTED", "draining")
    asked = {seen.operation for seen in stage.asterisk.seen}
    assert asked <= {SET_VARIABLE, CONTINUE, HANGUP, DESTROY_BRIDGE}


async def test_a_typing_error_in_the_dialplan_is_logged_and_costs_no_call(stage: Stage) -> None:
    with capture_logs() as logs:
        session = await stage.talk("nonsense", "wait=soon", "customer_name=Jane")
    problems = [entry["problem"] for entry in logs if entry["event"] == "bad_argument"]
    assert problems == [
        "argument 1 is not name=value",
        "wait is not a number of seconds from 0 to 3600",
    ]
    assert session.state is State.TALKING


async def test_who_holds_us_while_waiting_is_known_to_hold_when_the_agent_comes(
    stage: Stage,
) -> None:
    session = await stage.enter("wait=30", answered=True)
    session.line.held_by_phone(True)
    waiting = session.live
    assert isinstance(waiting, calls_module.Waiting)
    record = stage.calls.assign(waiting, stage.plan(), "named")
    call = stage.session(record.session_id)
    await stage.until(call, State.TALKING)
    named = stage.asterisk.requests(SET_VARIABLE)
    assert named[-1].parameters == {"variable": "__AGENT_SESSION_ID", "value": "named"}
    assert ("context", HELD_BY_PHONE) in stage.agent().told
    assert call.call.context.on_hold


async def test_who_hangs_up_while_the_call_is_planned_leaves_a_record_of_it(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.plan_moment = gate.wait
    caller = stage.caller()
    stage.asterisk.enter(caller)
    await stage.settle()
    stage.asterisk.hang_up(caller)
    gate.set()
    await stage.settle()
    (record,) = stage.calls.records.values()
    assert (record.state, record.status) == ("ended", "ended")
    assert (record.agent_status, record.end_reason) == ("COMPLETED", "caller_hung_up")
    assert record.ended_at is not None and record.conversation_id == ""
    assert stage.calls.count() == 0
    assert {seen.operation for seen in stage.asterisk.seen} == {SET_VARIABLE}, "it was named"


async def test_a_caller_is_not_lost_over_a_fault_of_ours(stage: Stage) -> None:
    def fail() -> None:
        raise RuntimeError("unforeseen")

    stage.plan_moment = fail
    caller = stage.caller()
    with capture_logs() as logs:
        stage.asterisk.enter(caller)
        await stage.settle()
    (landed,) = stage.asterisk.landed
    assert (landed.channel, landed.status, landed.reason) == (caller, "FAILED", "internal_error")
    assert [entry["event"] for entry in logs] == ["call_not_taken_in"]


async def test_a_caller_comes_back_while_the_last_call_is_still_being_given_back(
    stage: Stage,
) -> None:
    """A dialplan that passes the caller from one agent to the next."""
    session = await stage.talk("agent_id=first")
    first = stage.agent()
    gate = asyncio.Event()
    first.before_close = gate.wait
    again: list[str] = []

    def back_to_stasis(landed: Landed) -> None:
        if not again:
            again.append(landed.channel)
            stage.asterisk.enter(landed.channel, "agent_id=second", answered=True)

    stage.asterisk.on_landed = back_to_stasis
    first.handler.tool_call("transfer_call", "1", {"to": "second"}, True)
    await until(lambda: bool(again))
    await asyncio.sleep(0.5)
    assert not session.ended.is_set()
    second = stage.session_of(session.call_id)
    assert second is not session
    assert (second.state, second.agent_id) == (State.TALKING, "second")
    gate.set()
    await session.ended.wait()
    await asyncio.sleep(0.1)
    stage.asterisk.hang_up(second.call_id)
    await second.ended.wait()
    assert second.outcome == Outcome(Status.COMPLETED, "caller_hung_up")
    assert stage.left_behind() == []


async def test_a_caller_who_is_taken_from_one_agent_to_another_comes_anew(stage: Stage) -> None:
    """Both are told in the same turn: nothing of the first call has been given back yet."""
    session = await stage.talk("agent_id=first")
    stage.asterisk.take_away(session.call_id)
    stage.asterisk.enter(session.call_id, "agent_id=second", answered=True)
    await session.ended.wait()
    assert session.outcome == Outcome(Status.COMPLETED, "caller_left")
    second = stage.session_of(session.call_id)
    assert second is not session
    await stage.until(second, State.TALKING)
    assert second.agent_id == "second"
    stage.asterisk.hang_up(second.call_id)
    await second.ended.wait()
    assert second.outcome == Outcome(Status.COMPLETED, "caller_hung_up")
    assert stage.left_behind() == []


async def test_a_caller_may_be_taken_away_and_come_anew_while_the_call_is_planned(
    stage: Stage,
) -> None:
    gate, caller = asyncio.Event(), stage.caller()
    stage.plan_moment = gate.wait
    stage.asterisk.enter(caller, "agent_id=first")
    await stage.settle()
    stage.plan_moment = None
    stage.asterisk.take_away(caller)
    stage.asterisk.enter(caller, "agent_id=second", answered=True)
    await until(lambda: bool(stage.calls.records))
    second = stage.session_of(caller)
    await stage.until(second, State.TALKING)
    gate.set()
    await stage.settle()
    assert (second.state, second.agent_id) == (State.TALKING, "second")
    stage.asterisk.hang_up(caller)
    await second.ended.wait()
    assert stage.left_behind() == []


# --- ending calls


async def test_ending_a_session_waits_until_everything_is_given_back(stage: Stage) -> None:
    session = await stage.talk()
    await stage.calls.end(session.session_id)
    assert session.ended.is_set()
    assert (stage.landed(session).status, stage.landed(session).reason) == (
        "COMPLETED",
        "end_requested",
    )
    assert stage.left_behind() == []
    await stage.calls.end(session.session_id, "again")
    assert stage.landed(session).reason == "end_requested"
    with pytest.raises(KeyError):
        await stage.calls.end("nobody")


async def test_an_ended_session_is_seen_for_a_minute(stage: Stage) -> None:
    session = await stage.talk()
    await stage.calls.end(session.session_id)
    await asyncio.sleep(59.9)
    assert stage.calls.record(session.session_id) is session.record
    await asyncio.sleep(0.2)
    assert stage.calls.record(session.session_id) is None
    assert stage.calls.records == {}


async def test_ended_sessions_are_kept_in_bounds(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "_MAX_ENDED", 3)
    stage.calls.draining = True
    for _ in range(6):
        last = await stage.enter()
        await last.ended.wait()
    await stage.settle()
    assert len(stage.calls.records) == 3
    assert last.session_id in stage.calls.records


async def test_draining_lets_calls_finish_and_refuses_new_ones(stage: Stage) -> None:
    session = await stage.talk()
    draining = asyncio.create_task(stage.calls.drain(600))
    await asyncio.sleep(100)
    assert not draining.done()
    assert (await refused(stage)).reason == "draining"
    stage.asterisk.hang_up(session.call_id)
    began = now()
    await draining
    assert now() - began < 1
    assert session.outcome == Outcome(Status.COMPLETED, "caller_hung_up")


async def test_draining_ends_calls_at_last(stage: Stage) -> None:
    sessions = [await stage.talk(), await stage.talk()]
    began = now()
    await stage.calls.drain(60)
    assert now() - began == pytest.approx(60, abs=0.1)
    assert {stage.landed(session).status for session in sessions} == {"FAILED"}
    assert {stage.landed(session).reason for session in sessions} == {"shutting_down"}
    assert stage.left_behind() == []


async def test_draining_without_calls_takes_no_time(stage: Stage) -> None:
    began = now()
    await stage.calls.drain(60)
    assert now() == began
    assert stage.calls.draining


async def test_draining_waits_for_asterisk_only_so_long(stage: Stage) -> None:
    await stage.talk()
    for operation in (SET_VARIABLE, CONTINUE, HANGUP, DESTROY_BRIDGE):
        stage.asterisk.before[operation] = never
    began = now()
    await stage.calls.drain(0)
    assert 10 <= now() - began <= 16


@pytest.mark.parametrize("trouble", [status(503), never], ids=["refused", "no answer"])
async def test_draining_in_an_outage_has_an_end(stage: Stage, trouble: Moment) -> None:
    session = await stage.talk()
    outage(stage, trouble)
    began = now()
    with capture_logs() as logs:
        await stage.calls.drain(0)
    assert session.ended.is_set()
    assert stage.asterisk.landed == []
    assert 16 <= now() - began <= 22
    assert [entry["calls"] for entry in logs if entry["event"] == "calls_not_given_back"] == [1]


@pytest.mark.parametrize("trouble", [status(503), never], ids=["refused", "no answer"])
async def test_a_call_that_ends_in_an_outage_lands_as_it_ended(
    stage: Stage, trouble: Moment
) -> None:
    session = await stage.talk()
    outage(stage, trouble)
    stage.agent().closes()
    await asyncio.sleep(600)
    assert session.state is State.RELEASING
    assert not stage.agent().is_open
    assert heard_ms(stage.media(session)) > 300 * 100, "somebody is there"
    assert stage.calls.count() == 0
    stage.asterisk.before.clear()
    stage.ari.link.set(True)
    await session.ended.wait()
    (landed,) = stage.asterisk.landed
    assert (landed.status, landed.reason) == ("COMPLETED", "agent_ended")
    await stage.settle()
    assert stage.left_behind() == []


async def test_who_asks_for_an_end_in_an_outage_does_not_wait_for_its_end(stage: Stage) -> None:
    session = await stage.talk()
    outage(stage, status(503))
    began = now()
    await stage.calls.end(session.session_id)
    assert now() - began == 10
    assert session.state is State.RELEASING
    assert session.end_reason == "end_requested"


@pytest.mark.parametrize("planning", [False, True])
async def test_who_was_refused_while_draining_is_given_back_before_it_ends(
    stage: Stage, planning: bool
) -> None:
    running = await stage.talk()
    draining = asyncio.create_task(stage.calls.drain(600))
    await stage.settle()

    async def slowly() -> None:
        await asyncio.sleep(2)

    if planning:
        stage.plan_moment = slowly
    else:
        stage.asterisk.before[CONTINUE] = slowly
    late = stage.caller()
    stage.asterisk.enter(late)
    await asyncio.sleep(1)
    stage.asterisk.hang_up(running.call_id)
    await draining
    assert [landed.channel for landed in stage.asterisk.landed] == [late]


async def test_ending_all_calls_ends_each_of_them_once(stage: Stage) -> None:
    sessions = [await stage.talk() for _ in range(3)]
    await stage.calls.end(sessions[0].session_id)
    stage.calls.end_all("shutting_down")
    stage.calls.end_all("again")
    for session in sessions:
        await session.ended.wait()
    assert [stage.landed(session).reason for session in sessions] == [
        "end_requested",
        "shutting_down",
        "shutting_down",
    ]


@pytest.mark.parametrize("how", ["transfer", "take over"])
async def test_two_who_speak_speak_on_when_the_service_stops(how: str) -> None:
    async with Stage(asterisk=lambda clock: FullAsterisk(clock, lambda point: None)) as stage:
        session = await stage.talk()
        if how == "transfer":
            session.call.context.post(ConsultRequested("+493023125001"))
            await stage.until(session, State.HANDED_OVER)
        else:
            session.call.take_over("+493023125004", "lea")
            await stage.until(session, State.TAKEN_OVER)
        await asyncio.sleep(0.1)
        target, bridge = session.line.target_id, stage.asterisk.world.bridges[session.bridge_id]
        stage.calls.end_all("shutting_down")
        await session.ended.wait()
        assert set(bridge.channels) == {session.call_id, target}
        assert stage.lines.lines == 0
        await stage.sweep()
        assert set(bridge.channels) == {session.call_id, target}
        stage.asterisk.hang_up(target)
        await stage.sweep()
        assert stage.landed(session).reason == "transferred"
        assert stage.left_behind() == []


async def test_many_that_end_at_once_leave_others_their_turn() -> None:
    async with Stage(max_calls=30) as stage:
        sessions = [await stage.talk() for _ in range(30)]
        turns = Turns()

        def heard(record: CallRecord, event: CallEvent) -> None:
            if isinstance(event, CallEnded):
                turns.note()

        stage.services.journal.listen(heard)
        for session in sessions:
            stage.asterisk.hang_up(session.call_id)
        for session in sessions:
            await session.ended.wait()
        turns.stop()
        assert len(set(turns.noted)) == len(turns.noted) == 30


async def test_draining_keeps_no_wish_waiting(stage: Stage) -> None:
    running = [await stage.talk() for _ in range(stage.max_calls)]
    admission = stage.calls.admission
    wish = asyncio.create_task(admission.enter(paced=True, wait_seconds=300))
    await stage.settle()
    draining = asyncio.create_task(stage.calls.drain(60))
    began = now()
    with pytest.raises(NoRoom, match="draining"):
        await wish
    assert now() == began
    await draining
    assert all(session.ended.is_set() for session in running)
