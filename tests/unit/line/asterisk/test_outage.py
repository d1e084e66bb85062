"""Asterisk cannot be reached for a moment while a call goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.call.signals import HoldRequested
from ari_app.call.states import State
from ari_app.control.control import CallControl
from ari_app.control.refusals import NotPossible
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.line.asterisk.ari.resources import REMOVE_CHANNEL, START_MOH, STOP_MOH
from tests.session_view import Session
from tests.unit.call.fake_ari import ADD_CHANNEL, ANSWER, CREATE_BRIDGE, EXTERNAL_MEDIA, status
from tests.unit.call.stage import Stage, heard_ms, now


async def away(stage: Stage, seconds: float) -> None:
    """Connections are refused for so long."""
    stage.asterisk.away = True
    stage.ari.link.set(False)
    await asyncio.sleep(seconds)
    stage.asterisk.away = False
    stage.ari.link.set(True)


def in_bridge(stage: Stage, session: Session) -> bool:
    return session.call_id in stage.asterisk.world.bridges[session.bridge_id].channels


async def lose_agent(stage: Stage) -> Session:
    """The agent is lost, and the new one takes its time."""
    session = await stage.talk()
    stage.agents.ready.clear()
    stage.agent().closes(CloseKind.LOST, 1006)
    return session


async def agent_is_back(stage: Stage) -> None:
    stage.agents.ready.set()
    await stage.settle()
    stage.agent().says(500, event_id=1, final=True)


async def test_the_music_over_a_lost_agent_waits_for_asterisk(stage: Stage) -> None:
    session = await lose_agent(stage)
    await asyncio.sleep(0.7)
    await away(stage, 0.6)
    await asyncio.sleep(0.1)
    assert len(stage.asterisk.requests(START_MOH)) == 1
    assert not in_bridge(stage, session)
    await agent_is_back(stage)
    await asyncio.sleep(1)
    assert session.state is State.TALKING
    assert in_bridge(stage, session)
    assert heard_ms(stage.media(session)) == pytest.approx(500, abs=1)


async def test_while_music_cannot_begin_the_caller_hears_that_somebody_is_there(
    stage: Stage,
) -> None:
    session = await lose_agent(stage)
    outage = asyncio.create_task(away(stage, 8))
    heard = [0.0]
    for _ in range(2):
        await asyncio.sleep(3.5)
        heard.append(heard_ms(stage.media(session)))
        assert heard[-1] - heard[-2] > 300
    await outage
    await asyncio.sleep(1)
    assert len(stage.asterisk.requests(START_MOH)) == 1
    heard.append(heard_ms(stage.media(session)))
    await asyncio.sleep(1)
    assert heard_ms(stage.media(session)) == heard[-1]


async def test_an_agent_that_is_back_before_asterisk_is_heard_at_once(stage: Stage) -> None:
    session = await lose_agent(stage)
    outage = asyncio.create_task(away(stage, 60))
    await asyncio.sleep(2.5)
    await agent_is_back(stage)
    await asyncio.sleep(1)
    assert heard_ms(stage.media(session)) == pytest.approx(500, abs=1)
    await outage
    await asyncio.sleep(1)
    assert session.state is State.TALKING
    assert in_bridge(stage, session)
    assert stage.asterisk.requests(START_MOH) == [], "nobody wants it any more"


@pytest.mark.parametrize("seconds", [1, 30])
@pytest.mark.parametrize("operation", [CREATE_BRIDGE, EXTERNAL_MEDIA, ADD_CHANNEL, ANSWER], ids=str)
async def test_a_call_is_set_up_once_asterisk_is_back(
    stage: Stage, operation: Operation[Any], seconds: int
) -> None:
    outage: list[asyncio.Task[None]] = []

    def begins() -> None:
        if not outage:
            outage.append(asyncio.create_task(away(stage, seconds)))

    stage.asterisk.before[operation] = begins
    session = await stage.enter()
    await asyncio.sleep(seconds)
    assert stage.notes.states[-1] in (State.CONNECTING, State.JOINING)
    await asyncio.sleep(1)
    assert session.state is State.TALKING
    assert in_bridge(stage, session)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", [REMOVE_CHANNEL, START_MOH, STOP_MOH, ADD_CHANNEL], ids=str)
async def test_an_answer_that_is_lost_ends_no_hold(
    stage: Stage, operation: Operation[Any], when: str
) -> None:
    session = await stage.talk()
    getattr(stage.asterisk, when)[operation] = status(503, times=1)
    for on in (True, False):
        session.post(HoldRequested(on=on))
        await asyncio.sleep(1)
        assert in_bridge(stage, session) is not on
    assert session.state is State.TALKING
    stage.agent().says(200, final=True)
    await asyncio.sleep(1)
    assert heard_ms(stage.media(session)) == pytest.approx(200, abs=1)


async def test_who_is_taken_off_hold_before_the_music_began_hears_the_agent(stage: Stage) -> None:
    session = await stage.talk()
    outage = asyncio.create_task(away(stage, 5))
    await stage.settle()
    for on in (True, False, True, False):
        session.post(HoldRequested(on=on))
    await stage.settle()
    assert session.state is State.TALKING
    await outage
    await asyncio.sleep(1)
    assert stage.asterisk.requests(REMOVE_CHANNEL) == []
    assert in_bridge(stage, session)


async def test_a_call_that_is_over_waits_for_no_music(stage: Stage) -> None:
    session = await stage.talk()
    stage.asterisk.before[START_MOH] = status(503)
    session.post(HoldRequested(on=True))
    await asyncio.sleep(1)
    stage.agent().closes(CloseKind.AGENT_ENDED)
    await session.ended.wait()
    assert stage.landed(session).reason == "agent_ended"


ASKED: dict[str, Callable[[CallControl, str], Awaitable[object]]] = {
    "hold": lambda asked, name: asked.hold(name, on=True),
    "unhold": lambda asked, name: asked.hold(name, on=False),
    "blind": lambda asked, name: asked.transfer(name, "200"),
    "attended": lambda asked, name: asked.transfer(name, "+493023125001", "attended"),
    "keys": lambda asked, name: asked.send_dtmf(name, "1"),
}


@pytest.mark.parametrize("what", ASKED)
async def test_what_is_asked_from_outside_is_refused_and_the_call_goes_on(
    stage: Stage, what: str
) -> None:
    session = await stage.talk()
    asked = CallControl(stage.calls, [stage.gateway], None, stage.services.policy, now)  # type: ignore[arg-type]
    outage = asyncio.create_task(away(stage, 5))
    await stage.settle()
    with pytest.raises(NotPossible) as refusal:
        await ASKED[what](asked, session.session_id)
    assert refusal.value.code == "asterisk"
    await outage
    await asyncio.sleep(5)
    assert session.state is State.TALKING


@pytest.mark.parametrize(
    ("tool", "parameters"),
    [
        ("hold", {}),
        ("transfer_call", {"to": "200"}),
        ("transfer_call", {"to": "+493023125001", "mode": "attended"}),
        ("send_dtmf", {"digits": "1"}),
    ],
)
async def test_an_agent_is_told_what_cannot_be_done_without_asterisk(
    stage: Stage, tool: str, parameters: dict[str, object]
) -> None:
    session = await stage.talk()
    outage = asyncio.create_task(away(stage, 5))
    await stage.settle()
    stage.agent().handler.tool_call(tool, "t1", parameters, True)
    await asyncio.sleep(1)
    ((_, text, is_error),) = stage.agent().results
    assert is_error, text
    await outage
    await asyncio.sleep(5)
    assert session.state is State.TALKING
