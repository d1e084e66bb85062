"""A telephone transfers a call that it has with us: another channel takes the place of its own."""

from __future__ import annotations

import asyncio

import numpy as np
import orjson
import pytest

from ari_app.audio.sound_file import SoundFile
from ari_app.call.plan import Announcement
from ari_app.call.signals import ConsultRequested, HoldRequested
from ari_app.call.states import State
from ari_app.line.asterisk.ari.events import parse_event
from ari_app.line.asterisk.ari.resources import SET_VARIABLE, START_MOH
from ari_app.line.interface import Outcome, Status
from tests.unit.call.fake_ari import Landed
from tests.unit.call.full_asterisk import FullAsterisk
from tests.unit.call.stage import Stage, heard_ms, sound
from tests.waiting import until

AFTER = "of-a-transfer"


async def test_whom_the_caller_passes_the_call_on_to_speaks_with_the_same_agent(
    stage: Stage,
) -> None:
    """A receptionist asks the agent first, and puts a customer through."""
    session = await stage.talk("agent_id=first")
    # While they speak with the customer.
    session.line.held_by_phone(True)
    stage.asterisk.pass_on(session.call_id, AFTER)
    await stage.settle()
    assert not session.call.sound.muted
    assert (session.state, len(stage.agents.conversations)) == (State.TALKING, 1)
    assert len(stage.calls.records) == 1
    named = stage.asterisk.requests(SET_VARIABLE)[-1]
    assert (named.ids, named.parameters["value"]) == ((AFTER,), session.session_id)
    way, text = stage.agent().told[-1]
    assert (way, "another person" in text) == ("text", True)
    stage.asterisk.hang_up(AFTER)
    await session.ended.wait()
    assert session.outcome == Outcome(Status.COMPLETED, "caller_hung_up")
    assert stage.left_behind() == []


async def test_who_is_passed_on_to_is_told_once_they_answer() -> None:
    announced = SoundFile(np.full(4000, 777, "<i2").tobytes(), 8000)
    async with Stage(announcements={Announcement.LISTENING: announced}) as stage:
        session = await stage.talk()
        await asyncio.sleep(1)
        stage.asterisk.pass_on(session.call_id, AFTER, up=False)
        await stage.settle()
        while_it_rings = session.call.sound.muted
        await asyncio.sleep(1)
        assert np.count_nonzero(sound(stage.media(session)) == 777) == 4000
        assert all(way == "context" for way, _ in stage.agent().told if way != "activity")
        up = {**stage.asterisk.world.channels[AFTER].to_json(), "state": "Up"}
        answer = parse_event(orjson.dumps({"type": "ChannelStateChange", "channel": up}))
        for _ in range(2):
            stage.gateway.handle(answer)
        await asyncio.sleep(1)
        assert (while_it_rings, session.call.sound.muted) == (True, False)
        assert np.count_nonzero(sound(stage.media(session)) == 777) == 8000
        asked = [text for way, text in stage.agent().told if way == "text"]
        assert len(asked) == 1 and "another person" in asked[0]
        stage.asterisk.hang_up(AFTER)
        await session.ended.wait()


async def test_they_are_told_what_the_caller_was_told() -> None:
    announced = SoundFile(np.full(4000, 777, "<i2").tobytes(), 8000)
    async with Stage(announcements={Announcement.LISTENING: announced}) as stage:
        session = await stage.talk()
        await asyncio.sleep(1)
        assert np.count_nonzero(sound(stage.media(session)) == 777) == 4000
        stage.asterisk.pass_on(session.call_id, AFTER)
        await stage.settle()
        await asyncio.sleep(1)
        assert np.count_nonzero(sound(stage.media(session)) == 777) == 8000
        stage.asterisk.hang_up(AFTER)
        await session.ended.wait()


async def test_they_go_on_in_the_dialplan_when_the_agent_has_ended(stage: Stage) -> None:
    session = await stage.talk()
    stage.asterisk.pass_on(session.call_id, AFTER)
    stage.agent().closes()
    await session.ended.wait()
    (landed,) = stage.asterisk.landed
    assert (landed.channel, landed.reason) == (AFTER, "agent_ended")


async def test_on_hold_they_hear_music_and_then_the_agent(stage: Stage) -> None:
    session = await stage.talk()
    session.call.context.post(HoldRequested(on=True))
    await stage.settle()
    stage.asterisk.pass_on(session.call_id, AFTER)
    await stage.settle()
    assert [seen.ids for seen in stage.asterisk.requests(START_MOH)][-1] == (AFTER,)
    assert stage.agent().told[-1][0] == "context"
    session.call.context.post(HoldRequested(on=False))
    await stage.settle()
    bridge = stage.asterisk.world.bridges[session.line.bridge_id]
    assert AFTER in bridge.channels
    stage.agent().says(200, final=True)
    await until(lambda: heard_ms(stage.media(session)) >= 190)


@pytest.mark.parametrize("up", [True, False], ids=["asked first", "still rings"])
async def test_whom_the_caller_was_transferred_to_passes_them_on(up: bool) -> None:
    stage = Stage(asterisk=lambda clock: FullAsterisk(clock, lambda point: None))
    async with stage:
        session = await stage.talk()
        session.post(ConsultRequested("+493023125001"))
        await stage.until(session, State.HANDED_OVER)
        stage.asterisk.pass_on(session.line.target_id, AFTER, up=up)
        await stage.sweep()
        assert session.state is State.HANDED_OVER
        assert len(stage.agents.conversations) == 1
        bridge = stage.asterisk.world.bridges[session.line.bridge_id]
        assert set(bridge.channels) == {session.call_id, AFTER}
        stage.asterisk.hang_up(AFTER)
        await session.ended.wait()
        assert stage.landed(session).reason == "transferred"
        assert stage.left_behind() == []


async def test_a_supervisor_who_passes_the_caller_on_gives_nothing_back() -> None:
    stage = Stage(asterisk=lambda clock: FullAsterisk(clock, lambda point: None))
    async with stage:
        session = await stage.talk()
        session.call.take_over("2001", "somebody")
        await stage.until(session, State.TAKEN_OVER)
        stage.asterisk.pass_on(session.line.target_id, AFTER)
        await stage.sweep()
        assert session.state is State.TAKEN_OVER
        stage.asterisk.hang_up(AFTER)
        await stage.until(session, State.TALKING)


async def test_a_dialplan_may_pass_whom_we_have_called_from_one_agent_to_the_next() -> None:
    """Each enters by the name that we gave the channel when we called."""
    stage = Stage(asterisk=lambda clock: FullAsterisk(clock, lambda point: None))
    async with stage:
        agents = ["third", "second"]

        def next_agent(landed: Landed) -> None:
            if agents:
                stage.asterisk.enter(landed.channel, f"agent_id={agents.pop()}", answered=True)
                stage.asterisk.world.channels[landed.channel].variables |= landed.variables

        stage.asterisk.on_landed = next_agent
        session = stage.place()
        await stage.until(session, State.TALKING)
        stage.agent().handler.tool_call("transfer_call", "1", {"to": "second"}, True)
        await until(lambda: stage.agent().agent_id == "second")
        second = stage.session_of(session.call_id)
        await stage.until(second, State.TALKING)
        stage.agent().closes()
        await until(lambda: stage.agent().agent_id == "third")
        third = stage.session_of(session.call_id)
        await stage.until(third, State.TALKING)
        stage.asterisk.hang_up(third.call_id)
        await third.ended.wait()
        assert [each.status for each in stage.asterisk.landed] == ["TRANSFER", "COMPLETED"]
        assert stage.left_behind() == []
