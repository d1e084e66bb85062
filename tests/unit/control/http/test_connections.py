"""The server around the application, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession
from aiohttp.http_exceptions import BadHttpMessage
from structlog.testing import capture_logs

from ari_app.control.http import server as connections
from ari_app.control.http.handlers import build_web_app
from ari_app.control.http.keys import Keys
from ari_app.control.http.rates import RequestRates
from ari_app.control.http.server import Connection, HttpServer
from linekit.listener import ConnectionLimits
from tests.unit.control.http.conftest import KEY
from tests.unit.control.http.fake_service import FakeService, Http
from tests.waiting import PATIENCE_SECONDS, PROMPT_SECONDS, until

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
MANY = ConnectionLimits()


class Bench:
    def __init__(self, server: HttpServer, address: tuple[str, int], refused: list[str]) -> None:
        self.server = server
        self.address = address
        self.refused = refused

    async def dial(self) -> Raw:
        return Raw(*await asyncio.open_connection(*self.address))

    async def dial_saying(self, data: bytes) -> Raw:
        """Connect, and have said this before the server looks: it waits for nothing of it."""
        sock = socket.create_connection(self.address)
        sock.sendall(data)
        return Raw(*await asyncio.open_connection(sock=sock))


class Raw:
    """A client that writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = dict(line.split(": ", 1) for line in head[1:-1])
            body = await self.reader.readexactly(int(headers["Content-Length"]))
        return int(head[0].split()[1]), headers, orjson.loads(body)

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], Any]:
        self.writer.write(data)
        return await self.answer()

    async def closed(self) -> bool:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read(1) == b""

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@asynccontextmanager
async def serving(
    service: FakeService,
    *,
    limits: ConnectionLimits = MANY,
    per_second: float = 0.0,
    api_key: str | None = KEY,
) -> AsyncIterator[Bench]:
    refused: list[str] = []
    rates, loop = RequestRates(per_second), asyncio.get_running_loop()
    server = HttpServer(
        build_web_app(service, keys=Keys.of(api_key), rates=rates),
        limits=limits,
        take=lambda address: rates.take(address, loop.time(), changes=False),
        on_refused=refused.append,
    )
    bench = Bench(server, await server.start("127.0.0.1", 0), refused)
    try:
        yield bench
    finally:
        await server.close()
        await server.close()
    assert server.connections == 0


@pytest.fixture
async def bench(service: FakeService) -> AsyncIterator[Bench]:
    async with serving(service) as made:
        yield made


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
async def test_what_cannot_be_unpacked_is_no_failure_of_ours(
    bench: Bench, coding: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever is refused before it is read as well: aiohttp reads what is left of it."""
    client = await bench.dial()
    head = f"Host: x\r\nContent-Encoding: {coding}\r\nContent-Length: 8\r\n"
    head += "Content-Type: application/json\r\n"
    path = "/webhook/initiate-call"
    stranger = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode()
    known = f"POST {path} HTTP/1.1\r\n{head}X-API-Key: {KEY}\r\n\r\n".encode()
    assert (await client.ask(stranger + b"no such "))[0] == 401
    status, _, problem = await client.ask(known + b"no such ")
    assert (status, problem["detail"]) == (415, "Send the body uncompressed.")
    assert (await client.ask(LIVE))[0] == 200
    assert not [record for record in caplog.records if record.exc_info]
    await client.close()


async def test_requests_are_answered_one_after_the_other(bench: Bench) -> None:
    client = await bench.dial()
    for _ in range(3):
        assert (await client.ask(LIVE))[0] == 200
    await client.close()
    await until(lambda: bench.server.connections == 0)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03secret\r\n\r\n",
        b"secret\r\n\r\n",
        b"GET secret HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-API-Key secret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: secret\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"secret" * 2000 + b"\r\n\r\n",
        b"GET /" + b"secret" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: secret\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nsecret",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\nsecret",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_answered_and_not_repeated(bench: Bench, garbage: bytes) -> None:
    with capture_logs() as logs:
        client = await bench.dial()
        status, headers, problem = await client.ask(garbage)
        assert await client.closed()
        await client.close()
    assert (status, problem["code"]) == (400, "bad_request")
    assert headers["Content-Type"] == "application/problem+json"
    assert "secret" not in str((headers, problem, logs))
    assert bench.refused == ["bad_request"]


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: ", LIVE + b"GET"])
async def test_a_head_that_does_not_arrive(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    if not begun.startswith(LIVE):
        monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.1)
    async with serving(service) as bench:
        client = await bench.dial()
        client.writer.write(begun)
        if begun.startswith(LIVE):
            assert (await client.answer())[0] == 200
            monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.1)
            # Its first bytes came with the request before: what counts is that more is begun.
            client.writer.write(b" ")
        status, headers, problem = await client.answer()
        assert (status, problem["code"]) == (408, "head_too_late")
        assert headers["Connection"] == "close"
        assert await client.closed()
        await client.close()
        assert bench.refused == ["head_too_late"]


async def test_a_head_a_byte_at_a_time_does_not_hold_a_connection(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.1)
    async with serving(service) as bench:
        client = await bench.dial()
        endless = b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100
        for byte in endless:
            client.writer.write(bytes((byte,)))
            await asyncio.sleep(0.01)
            if bench.refused:
                break
        assert (await client.answer())[0] == 408
        await client.close()


async def test_an_idle_connection_may_come_back(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.2)
    async with serving(service) as bench:
        client = await bench.dial_saying(LIVE)
        assert (await client.answer())[0] == 200
        await asyncio.sleep(0.3)
        assert (await client.ask(LIVE))[0] == 200
        await client.close()
        assert bench.refused == []


async def test_a_request_may_take_longer_than_its_head(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.2)
    service.control.gate.clear()
    body = b'{"called_number": "+493023125001"}'
    head = f"Host: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    async with serving(service) as bench:
        client = await bench.dial_saying(
            f"POST /webhook/initiate-call HTTP/1.1\r\n{head}".encode()
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body[:5]
        )
        await asyncio.sleep(0.3)
        client.writer.write(body[5:])
        await service.control.asked.wait()
        await asyncio.sleep(0.3)
        service.control.gate.set()
        assert (await client.answer())[0] == 200
        await client.close()


async def test_a_client_that_does_not_read_its_answers_is_given_up(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_UNREAD_SECONDS", 0.05)
    for number in range(2000):
        service.add(f"s{number}")
    async with serving(service) as bench:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(bench.address)
        sock.sendall(f"GET /sessions HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n".encode() * 30)
        await until(lambda: bench.server.connections == 1)
        await until(lambda: bench.server.connections == 0)
        sock.close()


@pytest.mark.parametrize(
    "limits", [ConnectionLimits(connections=2), ConnectionLimits(connections_per_address=2)]
)
async def test_one_connection_too_many(service: FakeService, limits: ConnectionLimits) -> None:
    async with serving(service, limits=limits) as bench:
        first, second = await bench.dial(), await bench.dial()
        assert (await second.ask(LIVE))[0] == 200
        third = await bench.dial()
        status, headers, problem = await third.answer()
        assert (status, problem["code"]) == (503, "too_many_connections")
        assert headers["Retry-After"] == "5"
        assert await third.closed()
        await first.close()
        await until(lambda: bench.server.connections == 1)
        fourth = await bench.dial()
        assert (await fourth.ask(LIVE))[0] == 200
        for client in (second, third, fourth):
            await client.close()
        assert bench.refused == ["too_many_connections"]


async def test_who_asks_too_often_is_turned_away_at_the_door(service: FakeService) -> None:
    async with serving(service, per_second=0.375) as bench:
        client = await bench.dial()
        assert (await client.ask(LIVE))[0] == 200
        assert (await client.ask(LIVE))[0] == 200
        with capture_logs() as logs:
            status, headers, problem = await client.ask(LIVE)
        assert (status, problem["code"], headers["Retry-After"]) == (429, "rate_limited", "1")
        assert [entry["log_level"] for entry in logs] == ["debug"]
        assert await client.closed()
        again = await bench.dial()
        status, headers, problem = await again.answer()
        assert (status, problem["code"], headers["Retry-After"]) == (429, "rate_limited", "1")
        assert bench.refused == ["rate_limited"]
        for each in (client, again):
            await each.close()


def bad_messages() -> list[BadHttpMessage]:
    return [each for each in gc.get_objects() if isinstance(each, BadHttpMessage)]


async def test_garbage_leaves_nothing_in_memory(bench: Bench) -> None:
    gc.collect()
    gc.disable()
    try:
        # Whoever had a test before this one may keep some.
        before = bad_messages()
        for _ in range(5):
            client = await bench.dial()
            await client.ask(b"\xff" * 1000)
            await client.close()
        await until(lambda: bench.server.connections == 0)
        left = [each for each in bad_messages() if not any(each is other for other in before)]
    finally:
        gc.enable()
    assert left == []


def connections_in_memory() -> int:
    return sum(type(each) is Connection for each in gc.get_objects())


WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    ("request_line", "more"),
    [
        (b"GET /sessions", b"X-API-Key: wrong\r\n"),
        (b"GET /nowhere", b""),
        (b"PATCH /sessions", b""),
        (b"GET /sessions/none", b""),
        (b"POST /webhook/initiate-call", b"Content-Length: 2\r\n\r\n{}"),
        (
            b"POST /webhook/initiate-call",
            b"Content-Type: application/json\r\nContent-Length: 9\r\n",
        ),
        (b"GET /sessions/s1/events", WEBSOCKET),
    ],
    ids=["no key", "no path", "no method", "no call", "no json", "half a body", "websocket"],
)
async def test_a_connection_goes_without_a_collector(
    bench: Bench, service: FakeService, request_line: bytes, more: bytes
) -> None:
    service.add("s1")
    key = b"" if b"X-API-Key" in more else f"X-API-Key: {KEY}\r\n".encode()
    gc.collect()
    gc.disable()
    try:
        # Whoever had a test before this one may keep some.
        before = connections_in_memory()
        client = await bench.dial()
        client.writer.write(request_line + b" HTTP/1.1\r\nHost: x\r\n" + key + more + b"\r\n")
        if b"Length: 9" in more:
            await asyncio.sleep(0.05)
        else:
            await client.reader.readuntil(b"\r\n\r\n")
        client.writer.transport.abort()
        await until(lambda: bench.server.connections == 0)
        await until(lambda: connections_in_memory() == before, PROMPT_SECONDS)
    finally:
        gc.enable()


async def test_a_port_that_is_taken(bench: Bench, service: FakeService) -> None:
    other = HttpServer(
        build_web_app(service, keys=Keys.of(KEY)),
        limits=MANY,
        take=lambda address: 0.0,
        on_refused=lambda reason: None,
    )
    with pytest.raises(OSError, match=r".+"):
        await other.start(*bench.address)
    await other.close()


async def test_closing_lets_a_request_end(service: FakeService) -> None:
    service.control.gate.clear()
    async with ClientSession() as http, serving(service) as bench:
        url = "http://{}:{}/webhook/initiate-call".format(*bench.address)
        request = asyncio.create_task(
            http.post(url, json={"called_number": "+493023125001"}, headers={"X-API-Key": KEY})
        )
        await service.control.asked.wait()
        closing = asyncio.create_task(bench.server.close())
        await asyncio.sleep(0)
        service.control.gate.set()
        assert (await request).status == 200
        await closing


WISH = b"""POST /webhook/initiate-call HTTP/1.1\r
Host: 127.0.0.1\r
X-API-Key: key-of-the-tests\r
Content-Type: application/json\r
Content-Length: 33\r
"""
BODY = b'\r\n{"called_number":"+493023125001"}'


@pytest.mark.parametrize("key", [b"", b"Idempotency-Key: k1\r\n"], ids=["without", "with a key"])
async def test_a_wish_whose_client_has_gone(bench: Bench, service: FakeService, key: bytes) -> None:
    service.control.gate.clear()
    client = await bench.dial()
    client.writer.write(WISH + key + BODY)
    await service.control.asked.wait()
    await client.close()
    await until(lambda: bench.server.connections == 0)
    service.control.gate.set()
    await asyncio.sleep(0.01)
    assert bool(service.records) is bool(key), "with a key it comes back for the answer"


@pytest.mark.parametrize("api_key", [KEY, None])
@pytest.mark.parametrize(
    "says",
    [
        b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
        b"Sec-Fetch-Site: same-site\r\nOrigin: http://127.0.0.1:3000\r\n",
    ],
)
async def test_a_foreign_page_uses_up_nothing(
    service: FakeService, api_key: str | None, says: bytes
) -> None:
    async with serving(service, per_second=1.0, api_key=api_key) as bench:
        for _ in range(30):
            page = await bench.dial()
            status, _, _ = await page.ask(
                b"POST /webhook/end-call HTTP/1.1\r\nHost: 127.0.0.1\r\n" + says + b"\r\n"
            )
            assert status in (401, 403, 429)
            await page.close()
        dialer = await bench.dial()
        status, _, _ = await dialer.ask(WISH + BODY)
        assert status == 200
        await dialer.close()


async def test_a_foreign_page_keeps_no_connection(service: FakeService) -> None:
    async with serving(service, api_key=None) as bench:
        page = await bench.dial()
        request = LIVE.replace(b"Host: x", b"Host: 127.0.0.1\r\nOrigin: https://evil.example")
        assert (await page.ask(request))[0] == 403
        assert await page.closed()
        await page.close()


async def test_a_link_may_be_followed(keyless: Http) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    visit = headers | {"Sec-Fetch-Mode": "navigate"}
    assert (await keyless.get("/docs", headers=visit)).status == 200
    assert (await keyless.get("/docs", headers=headers)).status == 403
    assert (await keyless.post("/webhook/end-call", headers=visit)).status == 403
