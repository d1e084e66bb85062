from __future__ import annotations

import asyncio
import gzip
import re
from contextlib import suppress
from http import HTTPStatus
from unittest.mock import Mock

import pytest
from aiohttp import ClientError, web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler
from structlog.testing import capture_logs

from ari_app.control.http import requests as body
from ari_app.control.http.handlers import build_web_app
from ari_app.control.http.keys import Keys
from ari_app.control.http.middleware import ADDRESS
from ari_app.control.http.operations import OPERATIONS
from ari_app.control.http.problems import Problem
from ari_app.control.http.rates import RequestRates
from ari_app.control.http.server import ClientGone
from tests.unit.control.http.conftest import KEY
from tests.unit.control.http.fake_service import FakeService, Http

SECURED = [o for o in OPERATIONS if not o.is_open]
OPEN = [o for o in OPERATIONS if o.is_open]


def path_of(path: str) -> str:
    return path.replace("{session_id}", "s1")


@pytest.mark.parametrize("operation", SECURED, ids=lambda o: o.name)
async def test_a_key_is_asked_for(stranger: Http, operation: object, service: FakeService) -> None:
    assert isinstance(operation, type(OPERATIONS[0]))
    service.add("s1")
    for headers in ({}, {"X-API-Key": KEY + "x"}, {"Authorization": f"Basic {KEY}"}):
        response = await stranger.request(
            operation.method, path_of(operation.path), headers=headers
        )
        assert (response.status, (await response.json())["code"]) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("operation", OPEN, ids=lambda o: o.name)
async def test_no_key_is_asked_for(stranger: Http, operation: object) -> None:
    assert isinstance(operation, type(OPERATIONS[0]))
    for method in ("GET", "HEAD"):
        assert (await stranger.request(method, operation.path)).status == 200


@pytest.mark.parametrize(
    "headers",
    [{"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}, {"Authorization": f"bearer  {KEY}"}],
)
async def test_the_key_comes_in_either_header(stranger: Http, headers: dict[str, str]) -> None:
    assert (await stranger.get("/sessions", headers=headers)).status == 200


async def test_a_key_that_is_not_ascii(stranger: Http) -> None:
    response = await stranger.get("/sessions", headers={"X-API-Key": "schl\u00fcssel"})
    assert response.status == 401


async def test_without_a_key_pages_of_other_sites_are_refused(keyless: Http) -> None:
    here = f"{keyless.host}:{keyless.port}"
    for headers, status in (
        ({}, 200),
        ({"Origin": f"http://{here}"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
    ):
        response = await keyless.get("/sessions", headers=headers)
        assert response.status == status, headers
    assert (await response.json())["code"] == "forbidden_origin"


async def test_without_a_key_nothing_is_taken_that_a_proxy_has_passed_on(
    keyless: Http, service: FakeService
) -> None:
    """A tunnel may change `Host` to this machine's."""
    for name in ("X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via"):
        headers = {name: "203.0.113.9"}
        wish = {"called_number": "+493023125001"}
        response = await keyless.post("/webhook/initiate-call", json=wish, headers=headers)
        problem = await response.json()
        assert (response.status, "Set API_KEY" in problem["detail"]) == (403, True), name
    assert service.control.wishes == []


@pytest.mark.parametrize("path", ["/sessions", "/health/live", "/metrics", "/docs"])
@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example:8080"}, {"Host": "[::1"}, {"Origin": "http://[::1"}]
)
async def test_a_name_that_leads_here_is_not_enough(
    keyless: Http, path: str, headers: dict[str, str]
) -> None:
    response = await keyless.get(path, headers=headers)
    assert (response.status, (await response.json())["code"]) == (403, "forbidden_origin")


async def test_a_page_of_another_site_cannot_act(keyless: Http, service: FakeService) -> None:
    for headers in (
        {"Origin": "https://evil.example", "Content-Type": "application/json"},
        {"Origin": f"http://{keyless.host}:1", "Content-Type": "text/plain"},
    ):
        body = '{"called_number": "+493023125001"}'
        response = await keyless.post("/webhook/initiate-call", data=body, headers=headers)
        assert response.status == 403
    assert service.control.wishes == []


async def test_too_many_wishes_are_refused_and_reading_goes_on(service: FakeService) -> None:
    app = build_web_app(service, keys=Keys.of(KEY), rates=RequestRates(0.5))
    async with TestClient(TestServer(app), headers={"X-API-Key": KEY}) as client:
        statuses = [(await client.post("/webhook/end-call", json={})).status for _ in range(2)]
        assert statuses == [422, 429]
        response = await client.post("/webhook/end-call", json={})
        assert (await response.json())["code"] == "rate_limited"
        assert response.headers["Retry-After"] == "2"
        assert response.headers["Connection"] == "close"
        assert (await client.get("/sessions")).status == 200
        assert b'ari_app_http_refused_total{reason="rate_limited"} 2.0' in service.metrics.render()


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["2001:db8::1", "2001:db8::2"], [422, 429]),
        (["2001:db8::1", "2001:db8:0:1::1"], [422, 422]),
    ],
)
async def test_whoever_has_a_whole_ipv6_network_is_limited_as_one(
    service: FakeService, addresses: list[str], expected: list[int]
) -> None:
    @web.middleware
    async def believe(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[ADDRESS] = request.headers["X-From"]
        return await handler(request)

    app = build_web_app(service, keys=Keys.of(KEY), rates=RequestRates(0.5))
    app.middlewares.insert(0, believe)
    async with TestClient(TestServer(app), headers={"X-API-Key": KEY}) as client:
        for address, status in zip(addresses, expected, strict=True):
            asked = client.post("/webhook/end-call", json={}, headers={"X-From": address})
            assert (await asked).status == status


async def test_who_is_refused_by_a_way_in_keeps_nobody_else_out(service: FakeService) -> None:
    async def serve(request: web.Request) -> web.Response:
        if request.query.get("signature") != "right":
            raise web.HTTPForbidden
        return web.Response()

    routes = [web.post("/line/calls", serve)]
    app = build_web_app(service, keys=Keys.of(KEY), rates=RequestRates(0.5), routes=routes)
    async with TestClient(TestServer(app)) as client:
        wrong = [await client.post("/line/calls") for _ in range(3)]
        assert [response.status for response in wrong] == [403, 429, 429]
        assert wrong[-1].headers["Connection"] == "close"
        right = [await client.post("/line/calls?signature=right") for _ in range(3)]
        assert [response.status for response in right] == [200, 200, 200]


async def test_however_a_way_in_refuses_it_counts_once(service: FakeService) -> None:
    async def serve(request: web.Request) -> web.Response:
        status = int(request.query["status"])
        match request.query["how"]:
            case "answered":
                return web.Response(status=status)
            case "problem":
                raise Problem("of its own", status=HTTPStatus(status))
        raise {403: web.HTTPForbidden, 503: web.HTTPServiceUnavailable}[status]

    routes = [web.get("/line/calls", serve)]
    for how in ("answered", "problem", "raised"):
        rates = Mock(wraps=RequestRates())
        app = build_web_app(service, keys=Keys.of(KEY), rates=rates, routes=routes)
        async with TestClient(TestServer(app)) as client:
            for status in (503, 403, 403, 503):
                answer = await client.get("/line/calls", params={"how": how, "status": status})
                assert answer.status == status
        # A service that is away has refused nobody.
        assert [call.args[0] for call in rates.take.mock_calls] == 2 * ["127.0.0.1 refused"], how


async def test_having_no_room_is_no_refusal(service: FakeService) -> None:
    async def serve(request: web.Request) -> web.Response:
        raise Problem("rate_limited", "It is full.", closes=True)

    routes = [web.post("/line/calls", serve)]
    app = build_web_app(service, keys=Keys.of(KEY), rates=RequestRates(0.01), routes=routes)
    async with TestClient(TestServer(app)) as client:
        for _ in range(3):
            answer = await client.post("/line/calls")
            assert (answer.status, (await answer.json())["detail"]) == (429, "It is full.")


async def test_whoever_guesses_keys_has_to_wait(stranger: Http) -> None:
    for _ in range(10):
        assert (await stranger.get("/sessions", headers={"X-API-Key": "guess"})).status == 401
    for key in ("guess", KEY):
        response = await stranger.get("/sessions", headers={"X-API-Key": key})
        assert (response.status, (await response.json())["code"]) == (429, "rate_limited")
    assert (await stranger.get("/sessions")).status == 401
    assert (await stranger.get("/health/live")).status == 200


async def test_a_neighbour_who_guesses_locks_nobody_out(http: Http) -> None:
    assert (await http.get("/sessions")).status == 200
    for _ in range(20):
        await http.get("/sessions", headers={"X-API-Key": "guess"})
    assert (await http.get("/sessions")).status == 200


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"[" * 60_000, 400),
        (b'{"session_id":' * 4000, 400),
        (b'{"session_id": ' + b"9" * 5000 + b"}", 400),
        (b'{"session_id": 1e999}', 400),
        (b'{"session_id": NaN}', 400),
        (b'{"session_id": "a\0b"}', 400),
        (b'{"session_id": "a\\u0000b"}', 422),
        (b'{"session_id": "\xff\xfe"}', 400),
        (b'{"session_id": "\\ud800"}', 400),
        (b"\xef\xbb\xbf{}", 422),
        (b"", 400),
        (b"null", 422),
        (b"[]", 422),
        (b'{"session_id": "a", "session_id": ["secret"]}', 422),
    ],
)
async def test_a_body_that_makes_no_sense(http: Http, text: bytes, status: int) -> None:
    response = await http.post(
        "/webhook/end-call", data=text, headers={"Content-Type": "application/json"}
    )
    problem = await response.json()
    assert response.content_type == "application/problem+json"
    assert (response.status, problem["status"]) == (status, status)
    assert "secret" not in str(problem)


async def test_what_a_field_must_be_is_said_in_words(http: Http) -> None:
    wrong = {"called_number": "+493023125001", "agent_id": "a b", "dynamic_variables": {"1st": 1}}
    answer = await http.post("/webhook/initiate-call", json=wrong)
    assert (await answer.json())["detail"] == (
        "agent_id: must be 1 to 128 letters, digits and _ . : -. dynamic_variables.1st: must be a "
        "name of 1 to 64 letters, digits and _ that begins with no digit."
    )


async def test_a_clients_request_id_is_repeated(http: Http) -> None:
    with capture_logs() as logs:
        response = await http.get("/sessions/nobody", headers={"X-Request-ID": "n8n:42"})
    assert response.headers["X-Request-ID"] == "n8n:42"
    assert (await response.json())["request_id"] == "n8n:42"
    assert {"event": "http_request", "path": "/sessions/nobody", "status": 404}.items() <= logs[
        -1
    ].items()


@pytest.mark.parametrize("given", ["", "a b", "x" * 129])
async def test_a_request_id_that_cannot_be_used_is_replaced(http: Http, given: str) -> None:
    response = await http.get("/sessions", headers={"X-Request-ID": given})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


async def test_the_log_has_no_token_however_it_comes(service: FakeService) -> None:
    async def serve(request: web.Request) -> web.Response:
        raise {"gone": ClientGone, "fault": RuntimeError}.get(
            request.query_string, web.HTTPNotFound
        )

    app = build_web_app(service, keys=Keys(), routes=[web.get("/line/{token}", serve)])
    with capture_logs() as logs:
        async with TestClient(TestServer(app)) as client:
            for method, path in (
                *(("GET", "/line/5ec4e7"), ("GET", "/line/5ec4e7?fault"), ("POST", "/line/5ec4e7")),
                *(
                    ("GET", "/line/5ec4e7/"),
                    ("GET", "/a/proxy/line/5ec4e7"),
                    ("PUT", "/line/5ec4e7/media"),
                ),
            ):
                await client.request(method, path)
            with suppress(ClientError):
                await client.get("/line/5ec4e7?gone")
    told = [entry["path"] for entry in logs if "path" in entry]
    assert len(told) == 8
    assert all(path.endswith("/line/{token}") for path in told), told


async def test_headers_of_every_answer(http: Http) -> None:
    for path in ("/sessions", "/nowhere", "/docs"):
        headers = (await http.get(path)).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not any(name.lower().startswith("access-control") for name in headers)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/sessions/", 404, "not_found"),
        ("DELETE", "/sessions", 405, "method_not_allowed"),
        ("GET", "/webhook/initiate-call", 405, "method_not_allowed"),
        ("HEAD", "/sessions", 405, None),
    ],
)
async def test_what_is_not_there(
    http: Http, method: str, path: str, status: int, code: str | None
) -> None:
    response = await http.request(method, path)
    assert response.status == status
    if code is not None:
        problem = await response.json()
        assert (problem["code"], problem["status"]) == (code, status)
    assert ("Allow" in response.headers) == (status == 405)


async def test_a_compressed_body_is_refused(http: Http) -> None:
    response = await http.post(
        "/webhook/end-call",
        data=gzip.compress(b'{"session_id": "s1"}'),
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
    )
    assert (response.status, (await response.json())["code"]) == (415, "unsupported_media_type")
    assert response.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("rest", [b"", b"this is no chunk\r\n"])
async def test_a_body_that_does_not_arrive(
    http: Http, monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    monkeypatch.setattr(body, "_READ_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection(http.host, http.port)
    head = (
        f"POST /webhook/end-call HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n"
        "Expect: 100-continue\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    writer.write(head.encode())
    # The handler has begun to read when this comes.
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(rest)
    assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("error", [web.RequestPayloadError("cut"), ConnectionResetError()])
async def test_a_body_that_breaks_off(
    http: Http, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def read(self: web.Request) -> bytes:
        raise error

    monkeypatch.setattr(web.Request, "read", read)
    response = await http.post("/webhook/end-call", json={})
    assert (response.status, (await response.json())["code"]) == (400, "bad_request")


async def test_our_own_fault_is_logged_and_not_shown(http: Http, service: FakeService) -> None:
    def fail(session_id: str) -> None:
        raise RuntimeError("secret cause")

    service.look = fail
    with capture_logs() as logs:
        response = await http.get("/sessions/s1")
    assert (response.status, (await response.json())["code"]) == (500, "internal")
    assert "secret" not in await response.text()
    assert "http_request_failed" in [entry["event"] for entry in logs]


async def test_readiness(http: Http, service: FakeService) -> None:
    assert (await http.get("/health/ready")).status == 200
    service.problems = ["Asterisk: disconnected"]
    response = await http.get("/health/ready")
    assert (response.status, (await response.json())["problems"]) == (503, service.problems)


async def test_metrics(http: Http) -> None:
    response = await http.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "ari_app_calls" in await response.text()
