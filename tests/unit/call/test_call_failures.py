from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.call.states import State
from ari_app.errors import AgentError
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.line.asterisk.ari.resources import ORIGINATE_WITH_ID
from ari_app.line.interface import Outcome, Status
from tests.unit.call.fake_ari import (
    ANSWER,
    CONTINUE,
    DESTROY_BRIDGE,
    EXTERNAL_MEDIA,
    HANGUP,
    RING,
    SET_VARIABLE,
    Moment,
    never,
    status,
)
from tests.unit.call.set_up import SET_UP
from tests.unit.call.stage import Stage, now, nth

# --- Asterisk fails

FAILURES: list[tuple[str, Callable[[], Moment], str, str]] = [
    ("400", lambda: status(400), "before", "ari_bad_request"),
    ("404", lambda: status(404), "before", "ari_not_found"),
    ("409", lambda: status(409), "before", "ari_conflict"),
    ("500", lambda: status(500), "before", "ari_server_error"),
    ("500 though it was done", lambda: status(500), "after", "ari_server_error"),
]
LOST: list[tuple[str, Callable[[], Moment], str]] = [
    ("503", lambda: status(503), "before"),
    ("the answer is lost", lambda: status(503), "after"),
    ("no answer", lambda: never, "before"),
    ("no answer though it was done", lambda: never, "after"),
]


@pytest.mark.parametrize(
    ("failure", "when", "code"), [each[1:] for each in FAILURES], ids=[each[0] for each in FAILURES]
)
@pytest.mark.parametrize(
    ("step", "operation", "number"), SET_UP[1:], ids=lambda value: str(value)[:24]
)
async def test_a_request_fails_without_which_there_is_no_call(
    stage: Stage,
    step: str,
    operation: Operation[Any],
    number: int,
    failure: Callable[[], Moment],
    when: str,
    code: str,
) -> None:
    # What was done is reported as an event, which is as good as an answer.
    stage.asterisk.withheld.add(
        {
            "answer": "ChannelStateChange of caller",
            "join the media channel": "ChannelEnteredBridge of media",
            "join the caller": "ChannelEnteredBridge of caller",
        }.get(step, "")
    )
    getattr(stage.asterisk, when)[operation] = nth(number, failure())
    session = await stage.enter()
    await session.ended.wait()
    assert session.outcome is not None
    assert session.outcome == Outcome(Status.FAILED, code)
    landed = stage.landed(session)
    assert (landed.status, landed.reason) == ("FAILED", session.outcome.reason)
    assert landed.variables["AGENT_SESSION_ID"] == session.session_id
    await stage.settle()
    assert stage.left_behind() == []


@pytest.mark.parametrize(
    ("failure", "when"), [each[1:] for each in LOST], ids=[each[0] for each in LOST]
)
@pytest.mark.parametrize(
    ("step", "operation", "number"), SET_UP[1:], ids=lambda value: str(value)[:24]
)
async def test_a_moment_without_asterisk_ends_no_call_that_is_set_up(
    stage: Stage,
    step: str,
    operation: Operation[Any],
    number: int,
    failure: Callable[[], Moment],
    when: str,
) -> None:
    # A request has as long as joining has.
    hopeless = failure() is never and when == "before" and step in ("answer", "join the caller")
    getattr(stage.asterisk, when)[operation] = nth(number, failure())
    session = await stage.enter()
    if hopeless:
        await session.ended.wait()
        assert stage.landed(session).reason == "join_timeout"
        return
    await stage.until(session, State.TALKING)
    await asyncio.sleep(20)
    assert session.state is State.TALKING
    assert len(stage.asterisk.world.bridges) == 1
    assert len(stage.asterisk.world.channels) == 2


@pytest.mark.parametrize(
    "failure",
    [*(each[1] for each in FAILURES), *(each[1] for each in LOST)],
    ids=[*(each[0] for each in FAILURES), *(each[0] for each in LOST)],
)
async def test_a_call_goes_on_without_ringing(stage: Stage, failure: Callable[[], Moment]) -> None:
    stage.asterisk.before[RING] = failure()
    session = await stage.talk()
    await asyncio.sleep(6)
    assert session.state is State.TALKING


async def test_a_media_channel_that_comes_when_all_is_over_is_removed(stage: Stage) -> None:
    async def late() -> None:
        await asyncio.sleep(7)

    stage.asterisk.before[EXTERNAL_MEDIA] = nth(1, late)
    session = await stage.enter()
    await asyncio.sleep(3)
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()
    await asyncio.sleep(5)
    assert stage.left_behind() == []
    assert stage.lines.refusals == {"unknown_uuid": 1}


async def test_what_was_asked_for_the_set_up_is_of_no_account_later(stage: Stage) -> None:
    async def late() -> None:
        await asyncio.sleep(7)

    stage.asterisk.before[EXTERNAL_MEDIA] = late  # each attempt is given up, and one succeeds
    session = await stage.enter()
    await asyncio.sleep(30)
    assert session.state is State.TALKING


async def test_asterisk_cannot_reach_us(stage: Stage) -> None:
    await stage.lines.close()
    session = await stage.enter()
    await session.ended.wait()
    assert stage.landed(session).reason == "ari_server_error"
    assert stage.left_behind() == []


async def test_the_caller_goes_on_though_a_variable_cannot_be_set(stage: Stage) -> None:
    session = await stage.talk()
    stage.asterisk.before[SET_VARIABLE] = nth(2, status(500))
    stage.agent().closes()
    await session.ended.wait()
    assert set(stage.landed(session).variables) == {
        "AGENT_STATUS",
        "AGENT_SESSION_ID",
        "AGENT_CONVERSATION_ID",
    }


@pytest.mark.parametrize("operation", [CONTINUE, HANGUP, DESTROY_BRIDGE], ids=str)
async def test_what_is_given_back_is_given_back_twice_if_need_be(
    stage: Stage, operation: Operation[Any]
) -> None:
    session = await stage.talk()
    stage.asterisk.before[operation] = status(500, times=1)
    stage.agent().closes()
    await session.ended.wait()
    await stage.settle()
    assert stage.landed(session).status == "COMPLETED"
    assert stage.left_behind() == []


async def test_a_call_ends_though_asterisk_answers_nothing_any_more(stage: Stage) -> None:
    session = await stage.talk()
    for operation in (SET_VARIABLE, CONTINUE, HANGUP, DESTROY_BRIDGE):
        stage.asterisk.before[operation] = never
    began = now()
    stage.agent().closes()
    await session.ended.wait()
    # Ten seconds of patience; the last request has five of its own.
    assert 10 <= now() - began < 16
    assert stage.agent().end is not None


@pytest.mark.parametrize(
    ("code", "result", "why"),
    [
        (500, "unreachable", "does not know this endpoint, or nobody is registered there"),
        (400, "failed", "did not take it"),
    ],
)
async def test_an_endpoint_that_cannot_be_dialled_is_named(
    stage: Stage, code: int, result: str, why: str
) -> None:
    stage.asterisk.before[ORIGINATE_WITH_ID] = status(code)
    with capture_logs() as logs:
        session = stage.place("+15550100199")
        await session.ended.wait()
    assert session.record.result == result
    assert session.record.detail is not None
    assert session.record.detail.startswith("OUTBOUND_ENDPOINT is PJSIP/{number}@trunk: Asterisk ")
    assert why in session.record.detail
    (told,) = (entry for entry in logs if entry["event"] == "callee_not_dialled")
    assert (told["log_level"], told["endpoint"]) == ("warning", "PJSIP/{number}@trunk")
    assert "5550100199" not in str(told) + session.record.detail


# --- the agent fails


async def test_the_agent_cannot_be_reached(stage: Stage) -> None:
    def refuse() -> None:
        raise AgentError("it says no", code="agent_quota")

    stage.agents.before = refuse
    session = await stage.enter()
    await session.ended.wait()
    await stage.settle()
    assert stage.landed(session).variables == {
        "AGENT_STATUS": "FAILED",
        "AGENT_REASON": "agent_quota",
        "AGENT_SESSION_ID": session.session_id,
        "AGENT_CONVERSATION_ID": "",
    }
    assert stage.left_behind() == []
    assert stage.asterisk.requests(ANSWER) == [], "who is not answered is not billed"


async def test_a_conversation_that_never_began_is_named(stage: Stage) -> None:
    def refuse() -> None:
        raise AgentError("no", code="agent_timeout")

    stage.agents.names, stage.agents.before = "conv_tried", refuse
    session = await stage.enter()
    await session.ended.wait()
    assert session.conversation_id == "conv_tried_1"
    assert stage.landed(session).variables["AGENT_CONVERSATION_ID"] == "conv_tried_1"


async def test_one_that_has_begun_takes_the_name_of_the_tried_one(stage: Stage) -> None:
    stage.agents.names = "conv_tried"
    session = await stage.talk()
    assert session.conversation_id == "conv_of_agent_default"
    assert session.metadata == {}
    session.record.tries("conv_later")
    assert session.conversation_id == "conv_of_agent_default"


async def test_an_unforeseen_failure_is_a_failed_call_and_no_more(stage: Stage) -> None:
    stage.agents.output_format = "opus_8000"
    with capture_logs() as logs:
        session = await stage.enter()
        await session.ended.wait()
    await stage.settle()
    assert stage.landed(session).reason == "internal_error"
    assert stage.left_behind() == []
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
        "call_task_failed"
    ]


async def test_the_agent_is_not_ready_in_time(stage: Stage) -> None:
    stage.agents.ready.clear()
    began = now()
    session = await stage.enter()
    await session.ended.wait()
    assert now() - began == pytest.approx(8.2, abs=0.01)
    assert stage.landed(session).reason == "agent_timeout"
    assert stage.agents.given_up == 1
    assert stage.left_behind() == []


async def test_the_agent_closes_before_the_line_is_ready(stage: Stage) -> None:
    stage.asterisk.withheld.add("ChannelEnteredBridge of media")
    session = await stage.enter()
    await stage.settle()
    stage.agent().closes()
    await session.ended.wait()
    assert (stage.landed(session).status, stage.landed(session).reason) == (
        "FAILED",
        "agent_ended",
    )
    assert stage.left_behind() == []


async def test_the_caller_cannot_be_joined_in_time(stage: Stage) -> None:
    stage.asterisk.before[ANSWER] = never
    stage.ari.channels._timeout = 60
    began = now()
    session = await stage.enter()
    await session.ended.wait()
    assert now() - began == pytest.approx(5, abs=0.01)
    assert stage.landed(session).reason == "join_timeout"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (CloseKind.AGENT_ENDED, "COMPLETED"),
        (CloseKind.MAX_DURATION, "TIMEOUT"),
        (CloseKind.LOST, "FAILED"),
        (CloseKind.CRASHED, "FAILED"),
        (CloseKind.QUOTA, "FAILED"),
    ],
)
async def test_what_the_end_of_the_agent_is_for_the_dialplan(
    stage: Stage, kind: CloseKind, expected: str
) -> None:
    stage.with_policy(replace_lost_agent=False)
    session = await stage.talk()
    stage.agent().closes(kind)
    await session.ended.wait()
    assert (stage.landed(session).status, stage.landed(session).reason) == (expected, kind.value)
    assert [close.reason for close in stage.notes.closes] == [kind]


async def test_an_agent_that_cannot_be_closed_holds_up_nothing_else(stage: Stage) -> None:
    session = await stage.talk()
    agent = stage.agent()

    async def fail() -> None:
        raise RuntimeError("unforeseen")

    agent.before_close = fail
    with capture_logs() as logs:
        stage.asterisk.hang_up(session.call_id)
        async with asyncio.timeout(30):
            await session.ended.wait()
    assert stage.asterisk.world.channels == {}
    assert stage.asterisk.world.bridges == {}
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
        "release_part_failed"
    ]
    agent.before_close = None
    await agent.close()
