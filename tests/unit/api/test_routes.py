from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from ari_app.api.metrics import CONTENT_TYPE, Metrics
from ari_app.api.models import Readiness
from ari_app.api.routes import build_web_app
from ari_app.call.manager import SessionManager
from ari_app.call.states import State
from tests.unit.call.stage import Stage

KEY = "the-key-äöü"

Http = TestClient[web.Request, web.Application]


class FakeService:
    """What the routes show."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.metrics = Metrics()
        self.problems: list[str] = []

    @property
    def manager(self) -> SessionManager:
        return self.stage.manager

    def readiness(self) -> Readiness:
        return Readiness(
            status="not_ready" if self.problems else "ready",
            problems=self.problems,
            active_sessions=self.manager.get_active_sessions_count(),
            asterisk_version="22.10.1",
        )


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage(max_calls=3) as stage:
        yield stage


@pytest.fixture
def service(stage: Stage) -> FakeService:
    return FakeService(stage)


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[Http]:
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.fixture
async def http(service: FakeService) -> AsyncIterator[Http]:
    """The interface without a key."""
    async with serving(build_web_app(service, api_key=None)) as client:
        yield client


@pytest.fixture
async def locked(service: FakeService) -> AsyncIterator[Http]:
    """The interface with a key."""
    async with serving(build_web_app(service, api_key=KEY)) as client:
        yield client


async def problem_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    assert response.content_type == "application/problem+json"
    body = await response.json(content_type=None)
    assert set(body) == {"type", "title", "status", "detail", "code"}
    assert body["status"] == response.status
    assert body["detail"].endswith(".")
    assert isinstance(body, dict)
    return body


# --- health and metrics


async def test_live(http: Http, service: FakeService) -> None:
    service.problems = ["nothing works"]
    response = await http.get("/health/live")
    assert (response.status, await response.json()) == (200, {"status": "live"})


async def test_ready(http: Http) -> None:
    response = await http.get("/health/ready")
    assert response.status == 200
    assert await response.json() == {
        "status": "ready",
        "problems": [],
        "active_sessions": 0,
        "asterisk_version": "22.10.1",
    }


async def test_not_ready_says_why(http: Http, service: FakeService) -> None:
    service.problems = ["Asterisk's event socket is disconnected", "draining"]
    response = await http.get("/health/ready")
    assert response.status == 503
    body = await response.json()
    assert (body["status"], body["problems"]) == ("not_ready", service.problems)


async def test_metrics(http: Http, service: FakeService) -> None:
    service.metrics.connection_refused("malformed")
    response = await http.get("/metrics")
    assert response.headers["Content-Type"] == CONTENT_TYPE
    assert 'ari_app_audiosocket_refused_total{reason="malformed"} 1.0' in await response.text()


# --- sessions


async def test_no_sessions(http: Http) -> None:
    response = await http.get("/sessions")
    assert await response.json() == {
        "active_sessions": 0,
        "max_concurrent_calls": 3,
        "sessions": [],
    }


async def test_sessions_that_run_and_that_have_ended(http: Http, stage: Stage) -> None:
    running, ended = await stage.talk("agent_id=agent_7"), await stage.talk()
    await stage.manager.end_session(ended.session_id)
    body = await (await http.get("/sessions")).json()
    assert body["active_sessions"] == 1
    first, second = body["sessions"]
    assert first | {"duration": 0, "started_at": ""} == {
        "session_id": running.session_id,
        "call_id": running.call_id,
        "agent_id": "agent_7",
        "status": "active",
        "state": "talking",
        "duration": 0,
        "started_at": "",
        "ended_at": None,
        "conversation_id": "conv_of_agent_7",
        "agent_status": None,
        "end_reason": None,
    }
    assert first["started_at"].endswith("Z")
    assert (second["status"], second["agent_status"], second["end_reason"]) == (
        "ended",
        "COMPLETED",
        "end_requested",
    )
    assert second["ended_at"] is not None


async def test_one_session(http: Http, stage: Stage) -> None:
    session = await stage.talk()
    agent = stage.agent()
    agent.says(40, final=True)
    agent.handler.agent_response("Hello.", 1)
    agent.handler.interruption(1)
    response = await http.get(f"/sessions/{session.session_id}")
    assert response.status == 200
    body = await response.json()
    assert (body["agent_input_format"], body["agent_output_format"]) == ("pcm_8000", "pcm_8000")
    assert (body["line_format"], body["response_times"]) == ("slin", [])
    assert [line["who"] for line in body["transcript"]] == ["agent", "interruption"]
    assert body["transcript"][0]["text"] == "Hello."
    sound = body["sound"]
    assert sound["interruptions"] == 1
    assert sound["said_to_caller_ms"] + sound["dropped_ms"] + sound["queued_ms"] == 40
    assert set(sound) == {
        "heard_by_agent_ms",
        "silence_filled_ms",
        "said_to_caller_ms",
        "dropped_ms",
        "queued_ms",
        "underruns",
        "interruptions",
        "frames_not_read",
    }


async def test_a_session_that_has_just_begun(http: Http, stage: Stage) -> None:
    stage.agents.ready.clear()
    session = await stage.enter()
    body = await (await http.get(f"/sessions/{session.session_id}")).json()
    assert (body["status"], body["state"]) == ("initializing", "connecting")
    assert body["agent_input_format"] is body["agent_output_format"] is None
    assert body["conversation_id"] == ""
    assert session.state is State.CONNECTING


async def test_no_such_session(http: Http) -> None:
    body = await problem_of(await http.get("/sessions/nobody"))
    assert (body["status"], body["code"]) == (404, "session_not_found")


# --- what goes wrong


async def test_no_such_path(http: Http) -> None:
    body = await problem_of(await http.get("/elsewhere"))
    assert (body["status"], body["title"], body["code"]) == (404, "Not Found", "not_found")


async def test_no_such_method(http: Http) -> None:
    response = await http.delete("/sessions")
    body = await problem_of(response)
    assert (body["status"], body["code"]) == (405, "method_not_allowed")
    assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD"}


async def test_a_body_that_is_too_long(service: FakeService) -> None:
    async def read(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    app = build_web_app(service, api_key=None)
    app.router.add_post("/read", read)
    async with serving(app) as client:
        response = await client.post("/read", data=b"x" * 65_536)
        assert await response.text() == "65536"
        body = await problem_of(await client.post("/read", data=b"x" * 65_537))
        # The names of this status differ between versions of Python; the code does not.
        assert (body["status"], body["code"]) == (413, "body_too_large")


async def test_a_status_without_a_name_of_ours(service: FakeService) -> None:
    async def refuse(request: web.Request) -> web.Response:
        raise web.HTTPGone

    app = build_web_app(service, api_key=None)
    app.router.add_get("/refuse", refuse)
    async with serving(app) as client:
        body = await problem_of(await client.get("/refuse"))
        assert (body["status"], body["code"]) == (410, "http_410")


async def test_a_redirection_is_no_problem(service: FakeService) -> None:
    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPFound("/health/live")

    app = build_web_app(service, api_key=None)
    app.router.add_get("/elsewhere", elsewhere)
    async with serving(app) as client:
        response = await client.get("/elsewhere", allow_redirects=False)
        assert (response.status, response.headers["Location"]) == (302, "/health/live")


async def test_a_fault_of_ours_is_told_without_its_details(service: FakeService) -> None:
    async def fail(request: web.Request) -> web.Response:
        raise RuntimeError("the inner secret")

    app = build_web_app(service, api_key=None)
    app.router.add_get("/fail", fail)
    async with serving(app) as client:
        with capture_logs() as logs:
            response = await client.get("/fail")
        body = await problem_of(response)
    assert (body["status"], body["code"]) == (500, "internal")
    assert "secret" not in await response.text()
    assert [entry["event"] for entry in logs] == ["http_request_failed"]


# --- the key


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"x-api-key": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY} "},
        {"X-API-Key": KEY, "Authorization": "Basic YTpi"},
    ],
    ids=str,
)
async def test_the_right_key(locked: Http, headers: Mapping[str, str]) -> None:
    assert (await locked.get("/sessions", headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "wrong"},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": "the-key-äö"},
        {"X-API-Key": "ключ"},
        {"X-API-Key": "wrong", "Authorization": f"Bearer {KEY}"},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/sessions", "/sessions/nobody", "/elsewhere"])
async def test_the_wrong_key(locked: Http, headers: Mapping[str, str], path: str) -> None:
    response = await locked.get(path, headers=headers)
    assert response.headers["WWW-Authenticate"] == "Bearer"
    body = await problem_of(response)
    assert (body["status"], body["code"]) == (401, "unauthorized")
    assert KEY not in await response.text()


async def test_a_key_that_is_no_text(locked: Http) -> None:
    """Bytes that are not UTF-8, as no well-behaved client sends them."""
    host, port = locked.host, locked.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        b"GET /sessions HTTP/1.1\r\nHost: x\r\nX-API-Key: \xff\xfe\r\nConnection: close\r\n\r\n"
    )
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
async def test_what_needs_no_key(locked: Http, path: str) -> None:
    assert (await locked.get(path)).status == 200


async def test_without_a_key_none_is_asked_for(http: Http) -> None:
    assert (await http.get("/sessions", headers={"X-API-Key": "any"})).status == 200
