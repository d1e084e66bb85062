"""How Asterisk is asked to call somebody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ari_app.call.signals import ConsultRequested
from ari_app.call.states import State
from ari_app.errors import LineError
from ari_app.line.asterisk.ari.resources import GET_DEVICE_STATE, ORIGINATE_WITH_ID
from ari_app.line.asterisk.channels import told_to_callee
from ari_app.line.interface import Ended, LineEvent, Placing, Result
from ari_app.line.numbers import number_pattern
from tests.unit.call.fake_ari import status
from tests.unit.call.stage import Stage

ENDPOINTS = {
    "outbound_endpoint": "PJSIP/{number}@trunk",
    "transfer_endpoint": "Local/{number}@internal",
}


def use(stage: Stage, **options: Any) -> None:
    stage.options = replace(stage.options, **options)
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


async def test_the_route_and_the_trunk_are_told_what_the_request_says() -> None:
    async with Stage() as stage:
        use(stage, **ENDPOINTS)
        placing = Placing(channel_variables={"TRUNK": "b"}, sip_headers={"X-Campaign": "spring, 2"})
        trunk = frozenset({"TRUNK"})
        for named, refused in (
            (frozenset[str](), "TRUNK is not named in OUTBOUND_VARIABLES."),
            (trunk, "X-Campaign is not named in OUTBOUND_HEADERS."),
        ):
            use(stage, channel_variables=named)
            with pytest.raises(LineError, match=refused) as caught:
                stage.gateway.place("s", "+493023125001", placing)
            assert caught.value.code == "bad_variable"
        use(stage, sip_headers=frozenset({"X-Campaign"}))
        line = stage.gateway.place("s", "+493023125001", placing)
        line.name("lead-4711")
        line.listen(lambda event: None)
        line.dial()
        await asyncio.sleep(0.1)
        (request,) = stage.asterisk.requests(ORIGINATE_WITH_ID)
        assert request.parameters["variables"] == {
            "__AGENT_SESSION_ID": "lead-4711",
            "__TRUNK": "b",
            "PJSIP_HEADER(add,X-Campaign)": "spring, 2",
            "FORWARD_CONTEXT": "no-forwarding",
        }
        stage.asterisk.hang_up(line.id)


@pytest.mark.parametrize("value", ["${EXTEN}", 'a" b', "x;y", "a\r\nX-B: 1", "x" * 1001])
@pytest.mark.parametrize("field", ["channel_variables", "sip_headers"])
async def test_what_could_be_taken_for_more_than_text_is_refused(field: str, value: str) -> None:
    async with Stage() as stage:
        use(stage, **{field: frozenset({"X-A"})})
        how = Placing(**{field: {"X-A": value}})  # type: ignore[arg-type]
        with pytest.raises(LineError, match="X-A: the value must be") as caught:
            stage.gateway.place("s", "+493023125001", how)
        assert value not in str(caught.value)


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


@pytest.mark.parametrize(
    ("state", "why"),
    [
        *((state, "busy") for state in ("INUSE", "BUSY", "RINGING", "RINGINUSE", "ONHOLD")),
        ("UNAVAILABLE", "unreachable"),
        *((state, None) for state in ("NOT_INUSE", "UNKNOWN", "INVALID", "")),
    ],
)
async def test_a_target_that_is_not_free_is_not_called(state: str, why: str | None) -> None:
    async with Stage() as stage:
        use(stage, transfer_state="PJSIP/{number}")
        if state:  # otherwise Asterisk does not have the module for it
            stage.asterisk.devices["PJSIP/2001"] = state
        stage.with_policy(target_pattern=number_pattern("[0-9]{4}"))
        session = await stage.talk()
        to = {"to": "2001", "mode": "attended"}
        stage.agent().handler.tool_call("transfer_call", "1", to, True)
        await asyncio.sleep(1)
        assert len(stage.asterisk.requests(ORIGINATE_WITH_ID)) == (why is None)
        assert session.state is (State.CONSULTING if why is None else State.TALKING)
        assert session.record.legs[-1].result == why
        if why is not None:
            ((_, text, is_error),) = stage.agent().results
            assert is_error and f"({why})" in text


async def test_a_caller_who_leaves_while_a_target_s_state_is_asked_for_lets_nothing_ring() -> None:
    async with Stage() as stage:
        use(stage, transfer_state="PJSIP/{number}")
        session = await stage.talk()
        known = asyncio.Event()
        stage.asterisk.before[GET_DEVICE_STATE] = known.wait
        session.post(ConsultRequested("+493023125002"))
        await stage.settle()
        stage.asterisk.hang_up(session.call_id)
        await stage.settle()
        known.set()
        await session.ended.wait()
        assert not stage.asterisk.requests(ORIGINATE_WITH_ID)


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
