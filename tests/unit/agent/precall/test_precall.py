from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from ari_app.agent.elevenlabs.client_messages import Initiation
from ari_app.agent.precall import PreCall, PreCallAnswer, PreCallError, PreCallRequest, parse_answer
from tests.unit.tools.conftest import FakeService, service

__all__ = ["service"]

REQUEST = PreCallRequest("+493023125001", "agent_1", "100", "1700000000.1")
ANSWER: dict[str, Any] = {
    "type": "conversation_initiation_client_data",
    "dynamic_variables": {"customer_name": "Jane", "tier": 2, "vip": True, "debt": 0.5},
    "conversation_config_override": {
        "agent": {"first_message": "Hello Jane.", "language": "en", "prompt": {"prompt": "Be."}},
        "tts": {"voice_id": "v1"},
    },
    "user_id": "crm-42",
}


def ask_of(service: FakeService, **options: Any) -> PreCall:
    return PreCall(f"{service.url}/hook", on_failure=options.pop("on_failure", "fail"), **options)


async def test_the_request_and_the_answer_are_those_of_elevenlabs(service: FakeService) -> None:
    service.answers(orjson.dumps({**ANSWER, "agent_id": "agent_7"}).decode())
    async with ask_of(service, secret=SecretStr("s3cret"), header="X-Secret") as precall:
        answer = await precall.ask(REQUEST)
    assert answer == PreCallAnswer("agent_7", Initiation.model_validate(ANSWER))
    (seen,) = service.seen
    assert (seen.method, seen.path_qs) == ("POST", "/hook")
    assert seen.headers["X-Secret"] == "s3cret"
    assert orjson.loads(seen.body) == {
        "caller_id": "+493023125001",
        "agent_id": "agent_1",
        "called_number": "100",
        "call_sid": "1700000000.1",
    }


async def test_without_a_secret_there_is_no_such_header(service: FakeService) -> None:
    service.answers(orjson.dumps(ANSWER).decode())
    async with ask_of(service) as precall:
        await precall.ask(REQUEST)
    assert "Authorization" not in service.seen[0].headers


def test_what_the_answer_means_for_the_agent() -> None:
    answer = parse_answer(orjson.dumps(ANSWER))
    assert answer.variables == ANSWER["dynamic_variables"]
    assert answer.options == {
        "conversation_config_override": ANSWER["conversation_config_override"],
        "user_id": "crm-42",
    }
    assert (PreCallAnswer().variables, PreCallAnswer().options) == ({}, {})


def test_little_is_enough() -> None:
    assert parse_answer(b'{"type":"conversation_initiation_client_data"}') == PreCallAnswer()


def test_fields_that_nobody_knows_are_passed_over() -> None:
    with capture_logs() as logs:
        answer = parse_answer(orjson.dumps({**ANSWER, "new_thing": "secret"}))
    assert answer.initiation.user_id == "crm-42"
    assert logs[0]["fields"] == ["new_thing"]
    assert "secret" not in str(logs)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "it is empty"),
        (b"<html>", "it is not JSON: line 1, column 1"),
        (b'{"user_id": "J\xf6rg"}', "it is not UTF-8: byte 15 is 0xF6"),
        (b"[]", "it is not a JSON object"),
        (orjson.dumps([ANSWER, ANSWER]), "it is not a JSON object"),
        (b"{}", "it has none of the fields of an answer"),
        (b'{"error":"secret"}', "it has none of the fields of an answer"),
        (b'{"type":"other", "user_id":"secret"}', "its type is not conversation_init"),
    ],
)
def test_answers_that_cannot_be_used_are_named(answer: bytes, sentence: str) -> None:
    with pytest.raises(PreCallError, match=sentence) as refused:
        parse_answer(answer)
    assert refused.value.code == "precall_malformed"
    assert not refused.value.retryable
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        orjson.dumps({name: ANSWER[name] for name in ANSWER if name != "type"}),
        orjson.dumps([ANSWER]),
        b"\xef\xbb\xbf" + orjson.dumps(ANSWER),
        orjson.dumps(
            {
                **ANSWER,
                "type": None,
                "agent_id": None,
                "dynamic_variables": {**ANSWER["dynamic_variables"], "company": None},
            }
        ),
    ],
    ids=["without a type", "list of one", "byte order mark", "nulls"],
)
def test_what_other_programs_write_is_taken(body: bytes) -> None:
    with capture_logs() as logs:
        assert parse_answer(body) == PreCallAnswer(initiation=Initiation.model_validate(ANSWER))
    assert logs == []


@pytest.mark.parametrize(
    ("more", "event", "field"),
    [
        ({"agent_id": "a b"}, "dropped", "agent_id"),
        ({"user_id": 42}, "dropped", "user_id"),
        ({"procedure_ids": ["p", 1]}, "dropped", "procedure_ids.1"),
        ({"dynamic_variables": {"a": [1]}}, "dropped", "dynamic_variables.a"),
        ({"dynamic_variables": {"str": [1]}}, "dropped", "dynamic_variables.str"),
        ({"dynamic_variables": {"system__x": "1"}}, "dropped", "dynamic_variables.system__x"),
        (
            {"conversation_config_override": {"tts": {"speed": "fast"}}},
            "dropped",
            "conversation_config_override.tts.speed",
        ),
        (
            {"conversation_config_override": {"agent": {"mood": "good"}}},
            "unknown",
            "conversation_config_override.agent.mood",
        ),
        (
            {"conversation_config_override": {"voice": {}}},
            "unknown",
            "conversation_config_override.voice",
        ),
    ],
)
def test_what_is_dropped_is_dropped_alone(more: dict[str, Any], event: str, field: str) -> None:
    answer: dict[str, Any] = {"branch_id": "b1", "dynamic_variables": {"name": "Jane"}}
    with_more = {**answer, **more}
    if isinstance(more.get("dynamic_variables"), dict):
        with_more["dynamic_variables"] = {"name": "Jane", **more["dynamic_variables"]}
    with capture_logs() as logs:
        initiation = parse_answer(orjson.dumps(with_more)).initiation
    assert initiation.branch_id == "b1"
    assert initiation.dynamic_variables == {"name": "Jane"}
    (told,) = logs
    assert (told["event"], told["fields"]) == (f"precall_fields_{event}", [field])


async def fails(precall: PreCall) -> PreCallError:
    async with precall:
        with pytest.raises(PreCallError) as failed:
            await precall.ask(REQUEST)
    return failed.value


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_every_status_of_success_is_one(service: FakeService, status: int) -> None:
    service.answers(orjson.dumps(ANSWER).decode(), status)
    async with ask_of(service) as precall:
        assert (await precall.ask(REQUEST)).initiation.user_id == "crm-42"


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_any_other_status_is_a_failure(service: FakeService, status: int) -> None:
    service.answers("", status)
    error = await fails(ask_of(service))
    assert error.code == "precall_status"
    assert str(status) in str(error)
    assert len(service.seen) == 1


async def test_the_deadline(service: FakeService) -> None:
    service.never_answers()
    error = await fails(ask_of(service, timeout_seconds=0.05))
    assert (error.code, error.retryable) == ("precall_timeout", True)


async def test_a_service_that_cannot_be_reached(service: FakeService, closed_port: int) -> None:
    service.hangs_up()
    assert (await fails(ask_of(service))).code == "precall_unreachable"
    error = await fails(PreCall(f"http://127.0.0.1:{closed_port}/", on_failure="fail"))
    assert (error.code, error.retryable) == ("precall_unreachable", True)


async def test_too_long_an_answer(service: FakeService) -> None:
    service.answers("x" * 70_000)
    assert (await fails(ask_of(service))).code == "precall_too_long"


async def test_the_call_goes_on_when_it_shall(service: FakeService) -> None:
    service.answers("no", 500)
    with capture_logs() as logs:
        async with ask_of(service, on_failure="go_on", secret=SecretStr("s3cret")) as precall:
            answer = await precall.ask(REQUEST)
    assert answer == PreCallAnswer(failure="precall_status")
    assert logs[0]["event"] == "precall_failed"
    assert logs[0]["code"] == "precall_status"
    assert "s3cret" not in str(logs)
    assert "+493023125001" not in str(logs)


async def test_it_must_be_opened_and_can_be_closed_twice(service: FakeService) -> None:
    precall = ask_of(service)
    with pytest.raises(RuntimeError, match="async with"):
        await precall.ask(REQUEST)
    async with precall:
        await precall.close()
    await precall.close()
