"""The way through Asterisk: its events, and what is left behind there."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from ari_app.call.signals import ConsultRequested
from ari_app.call.states import State
from ari_app.line.asterisk.ari.events import parse_event
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.line.asterisk.ari.version import assess
from ari_app.line.asterisk.line import AsteriskLine
from ari_app.line.interface import Outcome, Status
from linekit.clock import FrameClock
from tests.session_view import Session
from tests.unit.call.fake_ari import (
    CONTINUE,
    CREATE_BRIDGE,
    DESTROY_BRIDGE,
    GET_APPLICATION,
    HANGUP,
    LIST_BRIDGES,
    LIST_CHANNELS,
    NOW,
    FakeAsterisk,
    status,
)
from tests.unit.call.full_asterisk import FullAsterisk
from tests.unit.call.stage import Stage
from tests.waiting import until


def now() -> float:
    return asyncio.get_running_loop().time()


# --- events


@pytest.mark.parametrize(
    ("given", "called"),
    [("called_number=+493023125001", "+493023125001"), ("called_number=", "100"), ("x=1", "100")],
)
async def test_who_was_called_is_what_the_dialplan_says(
    stage: Stage, given: str, called: str
) -> None:
    session = await stage.enter(given)
    assert session.record.called_number == called


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
        stage.gateway.handle(parse_event(orjson.dumps(event)))
    await stage.settle()
    assert session.state is State.TALKING
    assert not session.line.hung_up
    del world.channels["sip-stranger"], world.bridges["a-bridge-of-somebody"]


class Keypad:
    """The keys of a caller, as Asterisk tells them: an event, two for one that it puts off, and a
    word on the media channel where it tells them there."""

    def __init__(self, stage: Stage, session: Session) -> None:
        self._stage, self._session = stage, session

    def press(self, digits: str) -> None:
        """Press keys so quickly that all but the first are put off."""
        for number, digit in enumerate(digits):
            self.tell(digit)
            if number:
                self.tell(digit)
            self._stage.media(self._session).send_digit(digit)

    def tell(self, digit: str) -> None:
        channel = self._stage.asterisk.world.channels[self._session.call_id].to_json()
        event = {"type": "ChannelDtmfReceived", "channel": channel, "digit": digit}
        self._stage.gateway.handle(parse_event(orjson.dumps(event)))


async def test_keys_that_are_pressed_quickly_are_heard_once(stage: Stage) -> None:
    stage.gateway.asterisk.version = assess("22.10.1")
    session = await stage.talk()
    Keypad(stage, session).press("4471#")
    await asyncio.sleep(0.1)
    assert stage.agent().told == [("dtmf", "4471")]


async def test_keys_of_an_asterisk_that_tells_them_by_events_alone(stage: Stage) -> None:
    stage.gateway.asterisk.version = assess("18.26.4")
    session = await stage.talk()
    for digit in "4471#":
        Keypad(stage, session).tell(digit)
    await asyncio.sleep(0.1)
    assert stage.agent().told == [("dtmf", "4471")]


async def test_keys_of_a_caller_on_hold_are_heard() -> None:
    def asterisk(clock: FrameClock) -> FakeAsterisk:
        return FullAsterisk(clock, lambda point: None)

    async with Stage(asterisk=asterisk) as stage:
        stage.gateway.asterisk.version = assess("22.10.1")
        session = await stage.talk()
        session.line.music()
        await asyncio.sleep(0.1)
        for digit in "42#":
            Keypad(stage, session).tell(digit)
        assert stage.agent().told == [("dtmf", "42")]


async def test_a_target_declines_with_a_key() -> None:
    async with Stage(asterisk=lambda clock: FullAsterisk(clock, lambda point: None)) as stage:
        stage.with_policy(decline_key="9")
        session = await stage.talk()
        session.post(ConsultRequested("+493023125001"))
        await until(lambda: session.state is State.CONSULTING and session.line.target_id)
        target = session.line.target_id
        await stage.until(session, State.BRIEFING)
        for key, state in (("8", State.BRIEFING), ("9", State.TALKING)):
            channel = stage.asterisk.world.channels[target].to_json()
            event = {"type": "ChannelDtmfReceived", "channel": channel, "digit": key}
            stage.gateway.handle(parse_event(orjson.dumps(event)))
            assert session.state is state
        await stage.settle()
        assert target not in stage.asterisk.world.channels
        assert session.record.legs[-1].result == "declined"
        (_, rules), (_, why) = stage.agent().told
        assert "the key 9" in rules and "does not want the call" in why


async def test_keys_of_a_target_are_not_the_callers(stage: Stage) -> None:
    stage.gateway.asterisk.version = assess("22.10.1")
    session = await stage.talk()
    session.line.consult("1001", 20.0)
    stage.media(session).send_digit("9")
    await asyncio.sleep(0.1)
    for digit in "42#":
        Keypad(stage, session).tell(digit)
    assert stage.agent().told == [("dtmf", "42")]


async def test_a_media_channel_without_a_call_is_removed(stage: Stage) -> None:
    world = stage.asterisk.world
    world.open_media("voice-agent-media-of-old", "127.0.0.1:1", "uuid", NOW)
    with capture_logs() as logs:
        for event in world.media_starts("voice-agent-media-of-old", NOW):
            stage.gateway.handle(parse_event(orjson.dumps(event)))
        await stage.settle()
    assert world.channels == {}
    assert "stray_channel_removed" in [entry["event"] for entry in logs]


async def test_a_fault_of_ours_in_the_background_is_logged(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stage.gateway._sweeper, "catch_up", fail)
    with capture_logs() as logs:
        stage.gateway._state_changed("connected")
        await stage.settle()
    assert "gateway_task_failed" in [entry["event"] for entry in logs]


# --- what is left behind


async def lost_sight(stage: Stage) -> None:
    """Asterisk's events come no more."""
    stage.asterisk.on_event = lambda event: None


async def test_all_is_well(stage: Stage) -> None:
    session = await stage.talk()
    asked = len(stage.asterisk.seen)
    began = now()
    await stage.sweep()
    assert [seen.operation for seen in stage.asterisk.seen[asked:]] == [
        GET_APPLICATION,
        LIST_BRIDGES,
        LIST_CHANNELS,
    ]
    assert now() == began, "one look is enough"
    assert session.state is State.TALKING


async def test_a_media_channel_that_ended_while_nobody_listened(stage: Stage) -> None:
    session = await stage.talk()
    await lost_sight(stage)
    # Its connection stays open: Asterisk's end is stuck, say.
    stage.asterisk.world.channel_ends(session.media_id, NOW)
    await stage.sweep()
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
    await stage.sweep()
    assert now() - began == pytest.approx(1, abs=0.01), "confirmed by a second look"
    assert set(stage.asterisk.world.bridges) == {session.bridge_id, "somebody-elses"}
    left = {landed.channel: landed for landed in stage.asterisk.landed}
    assert (left["sip-x"].status, left["sip-x"].reason) == ("FAILED", "session_lost")
    assert "voice-agent-media-y" not in stage.asterisk.world.channels
    assert session.state is State.TALKING
    del stage.asterisk.world.bridges["somebody-elses"]


async def test_what_is_gone_at_the_second_look_is_left_alone(stage: Stage) -> None:
    leave_behind(stage)
    sweeping = asyncio.create_task(stage.sweep())
    await asyncio.sleep(0.5)
    stage.asterisk.world.channels.clear()
    stage.asterisk.world.bridges.clear()
    with capture_logs() as logs:
        await sweeping
    assert logs == []
    assert stage.asterisk.requests(HANGUP) == []


async def test_a_call_that_begins_between_two_looks_is_no_stray(stage: Stage) -> None:
    leave_behind(stage)
    sweeping = asyncio.create_task(stage.sweep())
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
    await stage.sweep()
    assert now() == began
    gate.set()
    await until(lambda: bool(stage.calls.records))
    await stage.until(stage.session_of(caller), State.TALKING)


async def test_who_was_replaced_cleans_up_nothing_but_its_own_calls(stage: Stage) -> None:
    session = await stage.talk()
    leave_behind(stage)
    stage.gateway._sweeper.replaced = True
    await lost_sight(stage)
    stage.asterisk.hang_up(session.call_id)
    await stage.sweep()
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
    sweeping = asyncio.create_task(stage.sweep())
    if look == 2:
        await asyncio.sleep(0.5)
    stage.asterisk.before[operation] = status(503)
    with capture_logs() as logs:
        await sweeping
    assert [entry["event"] for entry in logs] == ["reconcile_failed"]
    assert "sip-x" in stage.asterisk.world.channels
    stage.asterisk.before.clear()
    await stage.sweep()
    assert stage.left_behind() == []


async def test_sweeps_come_now_and_then_and_oftener_without_events(stage: Stage) -> None:
    sweep = asyncio.create_task(stage.gateway._sweeper.sweep_forever())
    await asyncio.sleep(46)
    assert [seen.at % 1000 for seen in stage.asterisk.requests(LIST_CHANNELS)] == pytest.approx(
        [15, 30, 45], abs=0.5
    )
    stage.gateway._sweeper.replaced = True
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
    await stage.sweep()
    await other.ended.wait()
    assert good.state is State.TALKING
    assert {landed.channel for landed in stage.asterisk.landed} == {"sip-x", "sip-odd"}
    assert set(stage.asterisk.world.channels) == {good.call_id, good.media_id}
    del stage.asterisk.world.bridges["somebody-elses"]
    stage.asterisk.on_event = stage.gateway.handle


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
    await stage.gateway._sweeper.catch_up()
    await stage.until(session, State.TALKING)
    assert [landed.channel for landed in stage.asterisk.landed] == ["sip-odd"]
    stage.asterisk.on_event = stage.gateway.handle


async def test_a_caller_whose_entrance_nobody_reported_is_found_soon(stage: Stage) -> None:
    await stage.talk()
    stage.asterisk.obscure.add("sip-odd")
    sweep = asyncio.create_task(stage.gateway._sweeper.sweep_forever())
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
    sweep = asyncio.create_task(stage.gateway._sweeper.sweep_forever())
    await asyncio.sleep(16)
    assert "sip-x" in world.channels, "another process serves it"
    gone = world.channels.pop("voice-agent-media-x")
    world.bridges["voice-agent-bridge-x"].channels.remove("voice-agent-media-x")
    event = orjson.dumps({"type": "StasisEnd", "channel": gone.to_json()})
    stage.gateway.handle(parse_event(event))
    await asyncio.sleep(2)
    assert [landed.channel for landed in stage.asterisk.landed] == ["sip-x"]
    sweep.cancel()
    await asyncio.gather(sweep, return_exceptions=True)


async def test_a_sweep_outlives_what_goes_wrong_in_one_of_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await stage.talk()

    def fail(line: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(AsteriskLine, "gone", fail)
    await lost_sight(stage)
    stage.asterisk.hang_up(session.call_id)
    sweep = asyncio.create_task(stage.gateway._sweeper.sweep_forever())
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
    await stage.sweep()
    assert stage.left_behind() == []


async def test_what_could_not_be_given_back_is_found_by_a_sweep(stage: Stage) -> None:
    session = await stage.talk()
    for operation in (CONTINUE, HANGUP, DESTROY_BRIDGE):
        stage.asterisk.before[operation] = status(500)
    stage.agent().closes()
    await session.ended.wait()
    assert stage.asterisk.landed == []
    stage.asterisk.before.clear()
    await stage.sweep()
    assert stage.landed(session).reason == "session_lost"
    assert stage.left_behind() == []
