"""How Asterisk is asked to call somebody."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ari_app.call.states import State
from ari_app.line.asterisk.ari.resources import ORIGINATE_WITH_ID
from ari_app.line.asterisk.channels import told_to_callee
from ari_app.line.interface import Ended, LineEvent, Placing, Result
from tests.unit.call.fake_ari import status
from tests.unit.call.stage import Stage

ENDPOINTS = {
    "outbound_endpoint": "PJSIP/{number}@trunk",
    "transfer_endpoint": "Local/{number}@internal",
}


def use(stage: Stage, **endpoints: str) -> None:
    stage.options = replace(stage.options, **endpoints)
    stage.calls = stage.another()


async def test_a_number_becomes_a_dial_string() -> None:
    async with Stage() as stage:
        use(stage, **ENDPOINTS)
        line = stage.gateway.place("s", "+493023125001", Placing("+15550100199", ring_seconds=20))
        line.name("lead-4711")
        line.listen(lambda event: None)
        line.dial()
        await asyncio.sleep(0.1)
        (request,) = stage.asterisk.requests(ORIGINATE_WITH_ID)
        assert request.parameters["endpoint"] == "PJSIP/+493023125001@trunk"
        assert request.parameters["callerId"] == "+15550100199"
        assert request.parameters["timeout"] == 25, "we watch the ringing ourselves"
        assert request.parameters["variables"] == told_to_callee("lead-4711")
        assert request.ids == (line.id,)
        stage.asterisk.hang_up(line.id)


async def test_the_target_of_a_transfer_has_one_of_its_own() -> None:
    async with Stage() as stage:
        use(stage, **ENDPOINTS)
        session = await stage.talk()
        stage.agent().handler.tool_call(
            "transfer_call", "t1", {"to": "+493023125002", "mode": "attended"}, True
        )
        await stage.until(session, State.CONSULTING)
        await asyncio.sleep(0.1)
        (request,) = stage.asterisk.requests(ORIGINATE_WITH_ID)
        assert request.parameters["endpoint"] == "Local/+493023125002@internal"
        assert request.parameters["variables"] == told_to_callee(session.session_id)
        assert request.ids == (session.target_id,)


async def test_of_one_who_cannot_be_called_the_setting_is_told() -> None:
    endpoint = "PJSIP/{number}@nowhere"
    async with Stage() as stage:
        use(stage, outbound_endpoint=endpoint)
        stage.asterisk.before[ORIGINATE_WITH_ID] = status(500)
        line = stage.gateway.place("s", "+493023125001", Placing())
        told: list[LineEvent] = []
        line.listen(told.append)
        line.dial()
        await asyncio.sleep(0.1)
        assert told == [Ended("unreachable", Result.UNREACHABLE)]
        assert line.cause.detail is not None
        assert line.cause.detail.startswith(f"OUTBOUND_ENDPOINT is {endpoint}: Asterisk does not")
