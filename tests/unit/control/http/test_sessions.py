from __future__ import annotations

from typing import Any

import pytest

from ari_app.control.refusals import NotPossible
from tests.unit.control.http.fake_service import FakeService, Http, end

SUMMARY = {
    "session_id": "s1",
    "call_id": "1700000000.1",
    "channel_id": "1700000000.1",
    "agent_id": "agent_7",
    "caller_number": "+493023125002",
    "called_number": "+493023125001",
    "status": "active",
    "state": "talking",
    "duration": 12.346,
    "recording": "off",
    "muted": False,
    "take_over": None,
    "listeners": [],
    "started_at": "2025-01-01T00:00:00Z",
    "ended_at": None,
    "conversation_id": "conv_1",
    "agent_status": None,
    "end_reason": None,
    "result": None,
    "hangup_cause": None,
    "sip_code": None,
    "detail": None,
}


async def test_the_list(http: Http, service: FakeService) -> None:
    service.add("s1")
    assert await (await http.get("/sessions")).json() == {
        "active_sessions": 1,
        "max_concurrent_calls": 10,
        "sessions": [SUMMARY],
    }


async def test_a_call_that_is_forgotten_while_the_list_is_made(
    http: Http, service: FakeService
) -> None:
    for name in ("s1", "s2", "s3"):
        service.add(name)
    service.look = lambda name: None if name == "s2" else service.records[name]
    sessions = (await (await http.get("/sessions")).json())["sessions"]
    assert [each["session_id"] for each in sessions] == ["s1", "s3"]


async def test_one_session(http: Http, service: FakeService) -> None:
    record = service.add("s1", metadata={"campaign": "spring", "amd": "human"})
    record.result, record.hangup_cause, record.sip_code = "answered", 16, 200
    end(record)
    assert await (await http.get("/sessions/s1")).json() == {
        **SUMMARY,
        "status": "ended",
        "state": "ended",
        "ended_at": "2025-01-01T00:00:13Z",
        "agent_status": "COMPLETED",
        "end_reason": "agent_ended",
        "result": "answered",
        "hangup_cause": 16,
        "sip_code": 200,
        "detail": None,
        "trace_id": None,
        "metadata": {"campaign": "spring", "amd": "human"},
        "agent_input_format": None,
        "agent_output_format": None,
        "line_format": "slin",
        "sound": {
            "heard_by_agent_ms": 2000.0,
            "silence_filled_ms": 100.0,
            "surplus_ms": 40.0,
            "said_to_caller_ms": 1000.0,
            "dropped_ms": 10.0,
            "queued_ms": 20.0,
            "underruns": 1,
            "interruptions": 2,
            "frames_not_read": 3,
            "gaps": 0,
            "short_gaps_ms": 0.0,
            "longest_gap_ms": 0.0,
            "late_ticks": 0,
            "latest_ms": 0.0,
            "not_sent_ms": 0.0,
            "barge_in_ms": [],
            "rtp": None,
        },
        "response_times": [0.812],
        "transcript": [{"at_seconds": 1.5, "who": "agent", "text": "Hello."}],
        "transcript_left_out": 0,
    }


async def test_a_call_is_ended_once(http: Http, service: FakeService) -> None:
    service.add("s1", reference="crm-9")
    body = {"session_id": "s1", "reason": "the customer has paid"}
    response = await http.post("/webhook/end-call", json=body)
    answer = await response.json()
    assert answer.pop("timestamp")
    assert answer == {
        "success": True,
        "session_id": "s1",
        "call_id": "crm-9",
        "duration": 12.346,
        "message": "Call ended.",
    }
    assert service.control.done == [("end", "s1", "the customer has paid")]
    again = await http.post("/webhook/end-call", json={"session_id": "s1"})
    assert (await again.json())["message"] == "The call had ended already."


@pytest.mark.parametrize(
    "body", [{}, {"session_id": "s1", "reason": "a\nb"}, {"session_id": "s1", "why": 1}]
)
async def test_a_bad_wish_to_end(http: Http, service: FakeService, body: Any) -> None:
    service.add("s1")
    response = await http.post("/webhook/end-call", json=body)
    assert (response.status, (await response.json())["code"]) == (422, "invalid_request")
    assert service.control.done == []


ACTIONS = [
    ("transfer", {"to": "2000"}, ("2000", "blind")),
    ("transfer", {"to": "+493012", "mode": "attended"}, ("+493012", "attended")),
    ("take-over", {"endpoint": "2001"}, ("2001", "API_KEY")),
    ("give-back", None, ()),
    ("dtmf", {"digits": "12a#"}, ("12A#",)),
    ("hold", None, ()),
    ("unhold", None, ()),
    ("say-to-agent", {"text": "He has paid."}, ("context", "He has paid.")),
    ("say-to-agent", {"kind": "user", "text": "Hi"}, ("user", "Hi")),
    ("mute", {}, (True,)),
    ("mute", {"muted": False}, (False,)),
    ("recording", {"on": True}, (True,)),
    ("recording", {"on": False}, (False,)),
]


@pytest.mark.parametrize(("name", "body", "details"), ACTIONS)
async def test_an_action(
    http: Http, service: FakeService, name: str, body: Any, details: tuple[object, ...]
) -> None:
    service.add("s1")
    response = await (
        http.post(f"/sessions/s1/{name}") if body is None
        else http.post(f"/sessions/s1/{name}", json=body)
    )  # fmt: skip
    answer = await response.json()
    assert (response.status, answer["success"], answer["session_id"]) == (200, True, "s1")
    assert service.control.done == [(name.replace("-", "_"), "s1", *details)]


@pytest.mark.parametrize(("name", "body", "details"), ACTIONS)
async def test_an_action_that_is_not_possible(
    http: Http, service: FakeService, name: str, body: Any, details: object
) -> None:
    service.add("s1")
    service.control.not_possible = NotPossible("not_talking", "The call rings.")
    response = await http.post(f"/sessions/s1/{name}", json={} if body is None else body)
    problem = await response.json()
    assert (response.status, problem["code"]) == (409, "not_talking")
    assert problem["detail"] == "The call rings."


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/sessions/nobody", None),
        ("GET", "/sessions/nobody/events", None),
        ("POST", "/webhook/end-call", {"session_id": "nobody"}),
        *(("POST", f"/sessions/nobody/{name}", body) for name, body, _ in ACTIONS),
    ],
)
async def test_a_session_that_is_not_there(http: Http, method: str, path: str, body: Any) -> None:
    response = await (
        http.request(method, path) if body is None else http.request(method, path, json=body)
    )
    assert (response.status, (await response.json())["code"]) == (404, "session_not_found")


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("transfer", {}, "to"),
        ("transfer", {"to": ""}, "to"),
        ("transfer", {"to": "2000", "mode": "warm"}, "mode"),
        ("take-over", {}, "endpoint"),
        ("take-over", {"endpoint": ""}, "endpoint"),
        ("dtmf", {"digits": "12x"}, "digits"),
        ("dtmf", {"digits": ""}, "digits"),
        ("say-to-agent", {"text": ""}, "text"),
        ("say-to-agent", {"text": "x", "kind": "shout"}, "kind"),
        ("mute", {"muted": 1}, "muted"),
        ("mute", {"on": True}, "on"),
        ("recording", {}, "on"),
        ("recording", {"on": "yes"}, "on"),
    ],
)
async def test_an_action_with_a_bad_body(
    http: Http, service: FakeService, name: str, body: Any, field: str
) -> None:
    service.add("s1")
    response = await http.post(f"/sessions/s1/{name}", json=body)
    problem = await response.json()
    assert (response.status, problem["errors"][0]["field"]) == (422, field)
    assert service.control.done == []


async def test_hold_takes_no_body(http: Http, service: FakeService) -> None:
    service.add("s1")
    response = await http.post("/sessions/s1/hold", json={"music": "jazz"})
    assert (response.status, (await response.json())["code"]) == (422, "invalid_request")
