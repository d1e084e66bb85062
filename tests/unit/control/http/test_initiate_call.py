from __future__ import annotations

import asyncio
import gc
import re
from pathlib import Path
from typing import Any

import pytest

from ari_app.call.amd import OnMachine
from ari_app.control.http.models import InitiateCallResponse
from ari_app.control.http.problems import CODES
from ari_app.control.http.requests import InitiateCallRequest
from ari_app.control.planner import Wish
from ari_app.control.refusals import ControlRefused
from ari_app.line.interface import CallLimits
from tests.unit.control.http.fake_service import FakeService, Http

PATH = "/webhook/initiate-call"
WAITING = {"call_id": "1700000000.42"}


async def test_a_number_is_called(http: Http, service: FakeService) -> None:
    response = await http.post(
        PATH,
        json={
            "agent_id": "agent_7",
            "session_id": "lead-1",
            "call_id": "crm-9",
            "caller_number": "+493023125002",
            "called_number": "+493023125001",
            "dynamic_variables": {"name": "Jane", "age": 41, "score": 0.5, "vip": True},
            "conversation_config_override": {"agent": {"language": "de"}},
            "user_id": "crm-42",
            "ring_timeout_seconds": 12,
            "channel_variables": {"TRUNK": "b"},
            "sip_headers": {"X-Campaign": "spring"},
            "call_timeout_seconds": 90,
            "no_speech_timeout_seconds": 0,
            "amd": True,
            "amd_on_machine": "leave_message",
            "wait_seconds": 2.5,
            "metadata": {"campaign": "spring"},
        },
    )
    assert response.status == 200
    answer = await response.json()
    assert answer.pop("timestamp").endswith("Z")
    assert answer == {
        "success": True,
        "session_id": "lead-1",
        "websocket_url": f"ws://{http.host}:{http.port}/sessions/lead-1/events",
        "message": "Call initiated successfully: the other side is called.",
        "call_id": "crm-9",
        "audio_url": None,
    }
    assert service.control.wishes == [
        Wish(
            agent_id="agent_7",
            session_id="lead-1",
            reference="crm-9",
            caller_number="+493023125002",
            called_number="+493023125001",
            variables={"name": "Jane", "age": 41, "score": 0.5, "vip": True},
            overrides={"agent": {"language": "de"}},
            user_id="crm-42",
            ring_timeout_seconds=12,
            channel_variables={"TRUNK": "b"},
            sip_headers={"X-Campaign": "spring"},
            limits=CallLimits(90, 0),
            amd=True,
            on_machine=OnMachine.LEAVE_MESSAGE,
            wait_seconds=2.5,
            metadata={"campaign": "spring"},
        )
    ]


async def test_the_names_of_the_guide_work_within_metadata(
    http: Http, service: FakeService
) -> None:
    response = await http.post(
        PATH,
        json={
            "agent_id": "agent_7",
            "metadata": {
                "call_id": "1700000000.42",
                "caller_number": "+493023125002",
                "dynamic_variables": {"name": "Jane"},
                "campaign": "spring",
            },
        },
    )
    answer = await response.json()
    assert (response.status, answer["call_id"]) == (200, "1700000000.42")
    assert "gets the agent" in answer["message"]
    assert service.control.wishes == [
        Wish(
            agent_id="agent_7",
            reference="1700000000.42",
            caller_number="+493023125002",
            variables={"name": "Jane"},
            metadata={"campaign": "spring"},
        )
    ]


async def test_the_top_level_wins_over_metadata(http: Http, service: FakeService) -> None:
    await http.post(
        PATH,
        json={
            "call_id": "new",
            "caller_number": "1",
            "dynamic_variables": {"name": "Jane"},
            "metadata": {
                "call_id": "old",
                "caller_number": "2",
                "dynamic_variables": {"name": "Joan", "city": "Ulm"},
            },
        },
    )
    (wish,) = service.control.wishes
    assert (wish.reference, wish.caller_number) == ("new", "1")
    assert wish.variables == {"name": "Jane", "city": "Ulm"}


async def test_null_is_as_good_as_nothing(http: Http, service: FakeService) -> None:
    left_out = dict.fromkeys(InitiateCallRequest.model_fields)
    variables = {"company": None, "name": "Jane"}
    metadata = {"dynamic_variables": {"city": None, "tier": 2}, "note": None}
    response = await http.post(
        PATH,
        json={**left_out, **WAITING, "dynamic_variables": variables, "metadata": metadata},
    )
    assert response.status == 200
    assert service.control.wishes == [
        Wish(
            reference="1700000000.42",
            variables={"name": "Jane", "tier": 2},
            metadata={"note": None},
        )
    ]


@pytest.mark.parametrize("body", [{}, {"agent_id": "a"}, {"call_id": None, "metadata": {"x": 1}}])
async def test_somebody_must_be_named(http: Http, service: FakeService, body: Any) -> None:
    response = await http.post(PATH, json=body)
    problem = await response.json()
    assert (response.status, problem["code"]) == (422, "invalid_request")
    assert "called_number is needed, a number to call, or call_id" in problem["detail"]
    assert service.control.wishes == []


async def test_overrides_go_on_as_they_are(http: Http, service: FakeService) -> None:
    overrides = {"agent": {"first_message": None, "mood": [1]}, "tts": {"speed": "fast"}}
    await http.post(PATH, json={**WAITING, "conversation_config_override": overrides})
    assert service.control.wishes[0].overrides == overrides


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"agent": "x"}, "agent"),
        ({"agent_id": 7}, "agent_id"),
        ({"agent_id": "a b"}, "agent_id"),
        ({"session_id": "../x"}, "session_id"),
        ({"session_id": "x\n"}, "session_id"),
        ({"call_id": ""}, "call_id"),
        ({"caller_number": "1" * 81}, "caller_number"),
        ({"called_number": "1" * 81}, "called_number"),
        ({"user_id": "a\nb"}, "user_id"),
        ({"amd": "true"}, "amd"),
        ({"amd": True, "amd_on_machine": "scream"}, "amd_on_machine"),
        ({"amd_on_machine": "hang_up"}, ""),
        ({"ring_timeout_seconds": "30"}, "ring_timeout_seconds"),
        ({"ring_timeout_seconds": 0.5}, "ring_timeout_seconds"),
        ({"wait_seconds": -1}, "wait_seconds"),
        ({"call_timeout_seconds": 0}, "call_timeout_seconds"),
        ({"channel_variables": {"SHELL(id)": "x"}}, "channel_variables.SHELL(id)"),
        ({"channel_variables": {"__TRUNK": "x"}}, "channel_variables.__TRUNK"),
        ({"channel_variables": {"TRUNK": 7}}, "channel_variables.TRUNK"),
        ({"sip_headers": {"From": "x"}}, "sip_headers.From"),
        ({"sip_headers": {"X-A)": "x"}}, "sip_headers.X-A)"),
        ({"no_speech_timeout_seconds": -1}, "no_speech_timeout_seconds"),
        ({"metadata": []}, "metadata"),
        ({"dynamic_variables": {"a b": 1}}, "dynamic_variables.a b"),
        ({"dynamic_variables": {"system__time": 1}}, "dynamic_variables.system__time"),
        ({"dynamic_variables": {"x": {}}}, "dynamic_variables.x"),
        ({"dynamic_variables": {"str": {}}}, "dynamic_variables.str"),
        ({"dynamic_variables": {f"v{n}": n for n in range(101)}}, "dynamic_variables"),
        ({"metadata": {"dynamic_variables": {"x": []}}}, "metadata.dynamic_variables.x"),
        ({"metadata": {"call_id": 5}}, "metadata.call_id"),
        ([], ""),
        ("text", ""),
    ],
)
async def test_what_cannot_be_used_is_named(
    http: Http, service: FakeService, body: Any, field: str
) -> None:
    response = await http.post(PATH, json=body)
    problem = await response.json()
    assert (response.status, problem["code"]) == (422, "invalid_request")
    assert response.content_type == "application/problem+json"
    assert field in [error["field"] for error in problem["errors"]]
    assert field in problem["detail"]
    assert service.control.wishes == []


async def test_unknown_fields_are_named_first_and_values_are_not_repeated(http: Http) -> None:
    response = await http.post(PATH, json={"agent_id": "my secret", "phone": "+49301", "speed": 1})
    detail = (await response.json())["detail"]
    assert detail.startswith("There is no field phone, speed. agent_id: ")
    assert "secret" not in await response.text()
    assert "+49301" not in await response.text()


async def test_a_heap_of_mistakes_is_not_listed_whole(http: Http) -> None:
    response = await http.post(PATH, json={f"x{n}": n for n in range(1000)})
    assert len((await response.json())["errors"]) == 20
    assert len(await response.text()) < 4000


@pytest.mark.parametrize(
    ("data", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"", "application/json", 400, "invalid_json"),
        (b'{"wait_seconds": NaN}', "application/json", 400, "invalid_json"),
        (b'{"session_id": "\\ud800"}', "application/json", 400, "invalid_json"),
        (b"\xff\xfe", "application/json", 400, "invalid_json"),
        (b'{"x":' * 101 + b"1" + b"}" * 101, "application/json", 422, "invalid_request"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b'{"agent_id":"' + b"x" * 70_000 + b'"}', "application/json", 413, "body_too_large"),
    ],
)
async def test_a_body_that_cannot_be_read(
    http: Http, data: bytes, content_type: str, status: int, code: str
) -> None:
    response = await http.post(PATH, data=data, headers={"Content-Type": content_type})
    assert (response.status, (await response.json())["code"]) == (status, code)


async def test_latin_1_is_told_so_and_a_byte_order_mark_is_passed_over(http: Http) -> None:
    body = '{"call_id": "1", "dynamic_variables": {"name": "Jörg"}}'
    as_json = {"Content-Type": "application/json"}
    refused = await http.post(PATH, data=body.encode("latin-1"), headers=as_json)
    assert refused.status == 400
    assert "not UTF-8: byte 50 is 0xF6" in (await refused.json())["detail"]
    assert (await http.post(PATH, data=body.encode("utf-8-sig"), headers=as_json)).status == 200


@pytest.mark.parametrize(
    ("code", "retry_after", "status", "header"),
    [
        ("capacity", 2.2, 503, "3"),
        ("capacity", None, 503, "5"),
        ("queue_timeout", 0.1, 503, "1"),
        ("draining", None, 503, None),
        ("not_connected", None, 503, None),
        ("rate_limited", 0.4, 429, "1"),
        ("invalid_number", None, 422, None),
        ("no_agent_id", None, 409, None),
        ("no_such_channel", None, 404, None),
        ("session_exists", None, 409, None),
        ("precall_timeout", 1, 503, "1"),
        ("precall_malformed", None, 502, None),
        ("something_new", None, 409, None),
    ],
)
async def test_a_refusal(
    http: Http,
    service: FakeService,
    code: str,
    retry_after: float | None,
    status: int,
    header: str | None,
) -> None:
    service.control.refusal = ControlRefused(code, "It cannot be.", retry_after)
    response = await http.post(PATH, json=WAITING)
    problem = await response.json()
    assert (response.status, problem["code"], problem["detail"]) == (status, code, "It cannot be.")
    assert response.headers.get("Retry-After") == header


async def test_the_same_key_gives_the_first_answer_again(http: Http, service: FakeService) -> None:
    headers = {"Idempotency-Key": "a-1"}
    first = await http.post(PATH, json={"call_id": "a", "metadata": {"x": 1}}, headers=headers)
    again = await http.post(
        PATH, data=b'{"metadata": {"x":1}, "call_id": "a"}',
        headers={**headers, "Content-Type": "application/json"},
    )  # fmt: skip
    assert await first.read() == await again.read()
    assert first.content_type == again.content_type == "application/json"
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(service.control.wishes) == 1

    other = await http.post(PATH, json={"call_id": "b"}, headers=headers)
    assert (other.status, (await other.json())["code"]) == (409, "idempotency_mismatch")
    assert len(service.control.wishes) == 1


async def test_what_is_kept_of_an_answer_is_its_text(http: Http) -> None:
    assert (await http.post(PATH, json=WAITING, headers={"Idempotency-Key": "a-4"})).status == 200
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, InitiateCallResponse)]


async def test_a_repetition_waits_for_the_first_request(http: Http, service: FakeService) -> None:
    service.control.gate.clear()
    headers = {"Idempotency-Key": "a-2"}
    asked = [
        asyncio.ensure_future(http.post(PATH, json=WAITING, headers=headers)) for _ in range(3)
    ]
    await service.control.asked.wait()
    service.control.gate.set()
    answers = [await (await response).json() for response in asked]
    assert answers[0] == answers[1] == answers[2]
    assert len(service.control.wishes) == 1


async def test_a_refusal_is_not_kept(http: Http, service: FakeService) -> None:
    headers = {"Idempotency-Key": "a-3"}
    service.control.refusal = ControlRefused("capacity", "Full.", 1)
    assert (await http.post(PATH, json=WAITING, headers=headers)).status == 503
    service.control.refusal = None
    assert (await http.post(PATH, json=WAITING, headers=headers)).status == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "k\u00e9y"])
async def test_a_key_that_cannot_be_used(http: Http, key: str) -> None:
    response = await http.post(PATH, json=WAITING, headers={"Idempotency-Key": key})
    assert (response.status, (await response.json())["code"]) == (400, "invalid_header")


def nested(levels: int) -> bytes:
    """A wish whose whole is so many lists and objects deep."""
    inner = b"[" * (levels - 2) + b"]" * (levels - 2)
    return b'{"session_id":"deep","called_number":"+493023125001","metadata":{"a":%s}}' % inner


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}])
@pytest.mark.parametrize(("levels", "status"), [(64, 200), (65, 422), (300, 422), (1000, 422)])
async def test_what_is_taken_can_be_shown(
    http: Http, key: dict[str, str], levels: int, status: int
) -> None:
    headers = {"Content-Type": "application/json", **key}
    response = await http.post(PATH, data=nested(levels), headers=headers)
    assert response.status == status
    if status == 200:
        assert (await http.get("/sessions/deep")).status == 200
    else:
        assert "64 levels" in (await response.json())["detail"]


def test_every_failure_of_the_service_that_is_asked_first_has_a_status_of_its_own() -> None:
    text = (Path(__file__).parents[4] / "ari_app" / "agent" / "precall.py").read_text(
        encoding="utf-8"
    )
    codes = set(re.findall(r'code="(precall_\w+)"', text))
    assert len(codes) == 5
    assert codes <= CODES.keys()


async def test_the_trace_of_whoever_asks_goes_on(http: Http, service: FakeService) -> None:
    headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "a=1"}
    response = await http.post(PATH, json=WAITING, headers=headers)
    assert response.status == 200
    (wish,) = service.control.wishes
    assert (wish.traceparent, wish.tracestate) == (headers["traceparent"], "a=1")
