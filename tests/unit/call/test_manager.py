from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from ari_app.call import calls as manager_module
from ari_app.call.admission import NoRoom
from ari_app.call.states import State
from ari_app.line.asterisk.ari.events import parse_event
from ari_app.line.asterisk.ari.rest import Operation
from ari_app.line.interface import Outcome, Status
from tests.unit.call.fake_ari import (
    CONTINUE,
    CREATE_BRIDGE,
    DESTROY_BRIDGE,
    GET_APPLICATION,
    HANGUP,
    LIST_BRIDGES,
    LIST_CHANNELS,
    NOW,
    SET_VARIABLE,
    Landed,
    Moment,
    never,
    status,
)
from tests.unit.call.stage import Stage, heard_ms, until


def now() -> float:
    return asyncio.get_running_loop().time()


def outage(stage: Stage, trouble: Moment) -> None:
    """Asterisk cannot be reached; the lines are up."""
    for operation in (SET_VARIABLE, CONTINUE, HANGUP, DESTROY_BRIDGE):
        stage.asterisk.before[operation] = trouble
    stage.services.ari.link.set(False)


async def refused(stage: Stage, *args: str) -> Landed:
    """A caller who is not taken in: where he lands."""
    session = await stage.enter(*args)
    await session.ended.wait()
    assert session.agent is None
    assert session.state is State.ENDED
    return stage.landed(session)


# --- taking calls in


async def test_one_call_too_many_is_rejected() -> None:
    async with Stage(max_calls=2) as stage:
        first, _ = await stage.talk(), await stage.talk()
        assert stage.calls.get_active_sessions_count() == 2
        landed = await refused(stage)
        assert (landed.status, landed.reason) == ("REJECTED", "at_capacity")
        assert landed.variables["AGENT_SESSION_ID"]
        stage.asterisk.hang_up(first.call_id)
        # The first need not be gone altogether: its agent is free.
        await stage.talk()
        assert stage.calls.get_active_sessions_count() == 2


async def test_calls_count_from_their_first_moment() -> None:
    async with Stage(max_calls=1) as stage:
        stage.agents.ready.clear()
        await stage.enter()
        assert (await refused(stage)).reason == "at_capacity"


async def test_a_call_without_an_agent() -> None:
    async with Stage(agent_id="") as stage:
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
    problems = [entry["problem"] for entry in logs if entry["event"] == "bad_stasis_argument"]
    assert problems == [
        "argument 1 is not name=value",
        "wait is not a number of seconds from 0 to 3600",
    ]
    assert session.state is State.TALKING


async def test_who_hangs_up_before_being_taken_in_is_nobodys_call(stage: Stage) -> None:
    stage.plan_moment = asyncio.Event().wait
    gate = asyncio.Event()
    stage.plan_moment = gate.wait
    caller = stage.caller()
    stage.asterisk.enter(caller)
    await stage.settle()
    stage.asterisk.hang_up(caller)
    gate.set()
    await stage.settle()
    assert stage.calls.sessions == {}
    assert stage.asterisk.seen == []


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


# --- events


async def test_events_of_others_are_none_of_our_business(stage: Stage) -> None:
    session = await stage.enter()
    world = stage.asterisk.world
    await stage.until(session, State.TALKING)
    stage.asterisk.add("sip-stranger", bridge="a-bridge-of-somebody")
    for event in (
        {"type": "ChannelEnteredBridge", "bridge": {"id": "other"}},
        {
            "type": "ChannelEnteredBridge",
            "bridge": {"id": "other"},
            "channel": world.channels[session.call_id].to_json(),
        },
        {"type": "StasisEnd", "channel": world.channels["sip-stranger"].to_json()},
        {"type": "ChannelDestroyed", "channel": world.channels["sip-stranger"].to_json()},
        {"type": "ChannelStateChange", "channel": world.channels["sip-stranger"].to_json()},
        {"type": "ChannelHangupRequest", "channel": world.channels["sip-stranger"].to_json()},
        {"type": "ChannelHangupRequest", "channel": world.channels[session.media_id].to_json()},
        {"type": "SomethingNew"},
    ):
        stage.calls.handle(parse_event(orjson.dumps(event)))
    await stage.settle()
    assert session.state is State.TALKING
    assert not session.caller_hung_up
    del world.channels["sip-stranger"], world.bridges["a-bridge-of-somebody"]


async def test_a_media_channel_without_a_call_is_removed(stage: Stage) -> None:
    world = stage.asterisk.world
    world.open_media("voice-agent-media-of-old", "127.0.0.1:1", "uuid", NOW)
    with capture_logs() as logs:
        for event in world.media_starts("voice-agent-media-of-old", NOW):
            stage.calls.handle(parse_event(orjson.dumps(event)))
        await stage.settle()
    assert world.channels == {}
    assert "stray_channel_removed" in [entry["event"] for entry in logs]


# --- ending calls


async def test_ending_a_session_waits_until_everything_is_given_back(stage: Stage) -> None:
    session = await stage.talk()
    await stage.calls.end_session(session.session_id)
    assert session.ended.is_set()
    assert (stage.landed(session).status, stage.landed(session).reason) == (
        "COMPLETED",
        "end_requested",
    )
    assert stage.left_behind() == []
    await stage.calls.end_session(session.session_id, "again")
    assert stage.landed(session).reason == "end_requested"
    with pytest.raises(KeyError):
        await stage.calls.end_session("nobody")


async def test_an_ended_session_is_seen_for_a_minute(stage: Stage) -> None:
    session = await stage.talk()
    await stage.calls.end_session(session.session_id)
    await asyncio.sleep(59.9)
    assert stage.calls.get_session(session.session_id) is session
    await asyncio.sleep(0.2)
    assert stage.calls.get_session(session.session_id) is None
    assert stage.calls.sessions == {}


async def test_ended_sessions_are_kept_in_bounds(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "_MAX_ENDED", 3)
    stage.calls.draining = True
    for _ in range(6):
        last = await stage.enter()
        await last.ended.wait()
    await stage.settle()
    assert len(stage.calls.sessions) == 3
    assert last.session_id in stage.calls.sessions


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
    assert stage.manager.get_active_sessions_count() == 0
    stage.asterisk.before.clear()
    stage.services.ari.link.set(True)
    await session.ended.wait()
    (landed,) = stage.asterisk.landed
    assert (landed.status, landed.reason) == ("COMPLETED", "agent_ended")
    await stage.settle()
    assert stage.left_behind() == []


async def test_who_asks_for_an_end_in_an_outage_does_not_wait_for_its_end(stage: Stage) -> None:
    session = await stage.talk()
    outage(stage, status(503))
    began = now()
    await stage.calls.end_session(session.session_id)
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
    await stage.calls.end_session(sessions[0].session_id)
    stage.calls.end_all("shutting_down")
    stage.calls.end_all("again")
    for session in sessions:
        await session.ended.wait()
    assert [stage.landed(session).reason for session in sessions] == [
        "end_requested",
        "shutting_down",
        "shutting_down",
    ]


# --- what is left behind


async def lost_sight(stage: Stage) -> None:
    """Asterisk's events come no more."""
    stage.asterisk.on_event = lambda event: None


async def test_all_is_well(stage: Stage) -> None:
    session = await stage.talk()
    asked = len(stage.asterisk.seen)
    began = now()
    await stage.calls.reconcile()
    assert [seen.operation for seen in stage.asterisk.seen[asked:]] == [
        GET_APPLICATION,
        LIST_BRIDGES,
        LIST_CHANNELS,
    ]
    assert now() == began, "one look is enough"
    assert session.state is State.TALKING


async def test_a_caller_who_hung_up_while_nobody_listened(stage: Stage) -> None:
    session = await stage.talk()
    await lost_sight(stage)
    stage.asterisk.hang_up(session.call_id)
    await asyncio.sleep(1)
    assert session.state is State.TALKING
    await stage.calls.reconcile()
    await session.ended.wait()
    assert session.outcome == Outcome(Status.COMPLETED, "caller_hung_up")
    assert stage.left_behind() == []


async def test_a_media_channel_that_ended_while_nobody_listened(stage: Stage) -> None:
    session = await stage.talk()
    await lost_sight(stage)
    # Its connection stays open: Asterisk's end is stuck, say.
    stage.asterisk.world.channel_ends(session.media_id, NOW)
    await stage.calls.reconcile()
    await session.ended.wait()
    assert session.outcome == Outcome(Status.FAILED, "media_channel_gone")


def leave_behind(stage: Stage) -> None:
    """What a process that was killed leaves: a caller, a bridge, a media channel."""
    stage.asterisk.add("sip-x", bridge="voice-agent-bridge-x")
    stage.asterisk.add("voice-agent-media-y")


async def test_what_a_killed_process_left_behind_is_given_back(stage: Stage) -> None:
    session = await stage.talk()
    leave_behind(stage)
    stage.asterisk.add("sip-in-another-bridge", bridge="somebody-elses")
    began = now()
    await stage.calls.reconcile()
    assert now() - began == pytest.approx(1, abs=0.01), "confirmed by a second look"
    assert set(stage.asterisk.world.bridges) == {session.bridge_id, "somebody-elses"}
    left = {landed.channel: landed for landed in stage.asterisk.landed}
    assert (left["sip-x"].status, left["sip-x"].reason) == ("FAILED", "session_lost")
    assert "voice-agent-media-y" not in stage.asterisk.world.channels
    assert session.state is State.TALKING
    del stage.asterisk.world.bridges["somebody-elses"]


async def test_what_is_gone_at_the_second_look_is_left_alone(stage: Stage) -> None:
    leave_behind(stage)
    sweeping = asyncio.create_task(stage.calls.reconcile())
    await asyncio.sleep(0.5)
    stage.asterisk.world.channels.clear()
    stage.asterisk.world.bridges.clear()
    with capture_logs() as logs:
        await sweeping
    assert logs == []
    assert stage.asterisk.requests(HANGUP) == []


async def test_a_call_that_begins_between_two_looks_is_no_stray(stage: Stage) -> None:
    leave_behind(stage)
    sweeping = asyncio.create_task(stage.calls.reconcile())
    await asyncio.sleep(0.5)
    session = await stage.talk()
    await sweeping
    assert session.state is State.TALKING
    assert set(stage.asterisk.world.channels) == {session.call_id, session.media_id}


async def test_a_caller_who_is_being_taken_in_is_no_stray(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.plan_moment = gate.wait
    caller = stage.caller()
    stage.asterisk.enter(caller)
    await asyncio.sleep(0.1)
    began = now()
    await stage.calls.reconcile()
    assert now() == began
    gate.set()
    await until(lambda: bool(stage.calls.sessions))
    await stage.until(stage.session_of(caller), State.TALKING)


async def test_a_call_that_another_process_serves_is_left_alone(stage: Stage) -> None:
    stage.asterisk.add("sip-x", bridge="voice-agent-bridge-x")
    stage.asterisk.add("voice-agent-media-x", bridge="voice-agent-bridge-x")
    await stage.calls.reconcile()
    assert set(stage.asterisk.world.channels) == {"sip-x", "voice-agent-media-x"}
    stage.asterisk.world.channels.clear()
    stage.asterisk.world.bridges.clear()


async def test_who_was_replaced_cleans_up_nothing_but_its_own_calls(stage: Stage) -> None:
    session = await stage.talk()
    leave_behind(stage)
    stage.calls.replaced = True
    await lost_sight(stage)
    stage.asterisk.hang_up(session.call_id)
    await stage.calls.reconcile()
    await session.ended.wait()
    assert session.outcome == Outcome(Status.COMPLETED, "caller_hung_up")
    assert set(stage.asterisk.world.channels) == {"sip-x", "voice-agent-media-y"}
    stage.asterisk.world.channels.clear()
    stage.asterisk.world.bridges.clear()


@pytest.mark.parametrize("look", [1, 2])
@pytest.mark.parametrize("operation", [LIST_CHANNELS, LIST_BRIDGES, GET_APPLICATION], ids=str)
async def test_a_sweep_that_fails_is_made_good_by_the_next(
    stage: Stage, operation: Operation[Any], look: int
) -> None:
    leave_behind(stage)
    sweeping = asyncio.create_task(stage.calls.reconcile())
    if look == 2:
        await asyncio.sleep(0.5)
    stage.asterisk.before[operation] = status(503)
    with capture_logs() as logs:
        await sweeping
    assert [entry["event"] for entry in logs] == ["reconcile_failed"]
    assert "sip-x" in stage.asterisk.world.channels
    stage.asterisk.before.clear()
    await stage.calls.reconcile()
    assert stage.left_behind() == []


async def test_sweeps_come_now_and_then_and_oftener_without_events(stage: Stage) -> None:
    sweep = asyncio.create_task(stage.calls.sweep_forever())
    await asyncio.sleep(46)
    assert [seen.at % 1000 for seen in stage.asterisk.requests(LIST_CHANNELS)] == pytest.approx(
        [15, 30, 45], abs=0.5
    )
    stage.calls.replaced = True
    await asyncio.sleep(15)
    before = len(stage.asterisk.requests(LIST_CHANNELS))
    await asyncio.sleep(20)
    assert len(stage.asterisk.requests(LIST_CHANNELS)) - before == 10
    sweep.cancel()
    await asyncio.gather(sweep, return_exceptions=True)


async def test_one_that_asterisk_cannot_describe_stops_no_sweep(stage: Stage) -> None:
    good, other = await stage.talk(), await stage.talk()
    await lost_sight(stage)
    leave_behind(stage)
    stage.asterisk.add("sip-odd")
    stage.asterisk.world.create_bridge("somebody-elses", "", NOW)
    stage.asterisk.obscure |= {"sip-odd", "somebody-elses"}
    stage.asterisk.hang_up(other.call_id)
    await stage.calls.reconcile()
    await other.ended.wait()
    assert good.state is State.TALKING
    assert {landed.channel for landed in stage.asterisk.landed} == {"sip-x", "sip-odd"}
    assert set(stage.asterisk.world.channels) == {good.call_id, good.media_id}
    del stage.asterisk.world.bridges["somebody-elses"]
    stage.asterisk.on_event = stage.calls.handle


async def test_one_that_asterisk_cannot_describe_hides_nothing_that_was_missed(
    stage: Stage,
) -> None:
    stage.asterisk.withheld.add("ChannelEnteredBridge of caller")
    session = await stage.enter()
    await stage.settle()
    assert session.state is State.JOINING
    await lost_sight(stage)
    stage.asterisk.add("sip-odd")
    stage.asterisk.obscure.add("sip-odd")
    await stage.calls.catch_up()
    await stage.until(session, State.TALKING)
    assert [landed.channel for landed in stage.asterisk.landed] == ["sip-odd"]
    stage.asterisk.on_event = stage.calls.handle


async def test_a_caller_whose_entrance_nobody_reported_is_found_soon(stage: Stage) -> None:
    await stage.talk()
    stage.asterisk.obscure.add("sip-odd")
    sweep = asyncio.create_task(stage.calls.sweep_forever())
    await asyncio.sleep(1)
    stage.asterisk.enter("sip-odd")
    await asyncio.sleep(5)
    assert [(each.channel, each.reason) for each in stage.asterisk.landed] == [
        ("sip-odd", "session_lost")
    ]
    swept = len(stage.asterisk.requests(LIST_CHANNELS))
    await asyncio.sleep(8)
    assert len(stage.asterisk.requests(LIST_CHANNELS)) == swept, "of whom all is known"
    sweep.cancel()
    await asyncio.gather(sweep, return_exceptions=True)


async def test_a_call_that_another_process_lost_is_found_soon(stage: Stage) -> None:
    world = stage.asterisk.world
    stage.asterisk.add("sip-x", bridge="voice-agent-bridge-x")
    stage.asterisk.add("voice-agent-media-x", bridge="voice-agent-bridge-x")
    sweep = asyncio.create_task(stage.calls.sweep_forever())
    await asyncio.sleep(16)
    assert "sip-x" in world.channels, "another process serves it"
    gone = world.channels.pop("voice-agent-media-x")
    world.bridges["voice-agent-bridge-x"].channels.remove("voice-agent-media-x")
    event = orjson.dumps({"type": "StasisEnd", "channel": gone.to_json()})
    stage.calls.handle(parse_event(event))
    await asyncio.sleep(2)
    assert [landed.channel for landed in stage.asterisk.landed] == ["sip-x"]
    sweep.cancel()
    await asyncio.gather(sweep, return_exceptions=True)


async def test_a_sweep_outlives_what_goes_wrong_in_one_of_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await stage.talk()

    def fail(event: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Session, "post", fail)
    await lost_sight(stage)
    stage.asterisk.hang_up(session.call_id)
    sweep = asyncio.create_task(stage.calls.sweep_forever())
    await asyncio.sleep(16)
    monkeypatch.undo()
    await asyncio.sleep(15)
    assert session.ended.is_set()
    sweep.cancel()
    await asyncio.gather(sweep, return_exceptions=True)


async def test_a_bridge_that_comes_when_all_is_over_is_found_by_a_sweep(stage: Stage) -> None:
    async def late() -> None:
        await asyncio.sleep(7)

    stage.asterisk.before[CREATE_BRIDGE] = late
    session = await stage.enter()
    await session.ended.wait()
    await asyncio.sleep(3)
    assert stage.left_behind() == [f"bridge {session.bridge_id}"]
    await stage.calls.reconcile()
    assert stage.left_behind() == []


async def test_what_could_not_be_given_back_is_found_by_a_sweep(stage: Stage) -> None:
    session = await stage.talk()
    for operation in (CONTINUE, HANGUP, DESTROY_BRIDGE):
        stage.asterisk.before[operation] = status(500)
    stage.agent().closes()
    await session.ended.wait()
    assert stage.asterisk.landed == []
    stage.asterisk.before.clear()
    await stage.calls.reconcile()
    assert stage.landed(session).reason == "session_lost"
    assert stage.left_behind() == []


async def test_draining_keeps_no_wish_waiting(stage: Stage) -> None:
    running = [await stage.talk() for _ in range(stage.max_calls)]
    admission = stage.manager.admission
    wish = asyncio.create_task(admission.enter(paced=True, wait_seconds=300))
    await stage.settle()
    draining = asyncio.create_task(stage.manager.drain(60))
    began = now()
    with pytest.raises(NoRoom, match="draining"):
        await wish
    assert now() == began
    await draining
    assert all(session.ended.is_set() for session in running)
