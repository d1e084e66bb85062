"""An Asterisk that speaks ARI and nothing else: answers what it is told to, and remembers all."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import orjson
from aiohttp import web

USERNAME = "voice"
PASSWORD = "s3cret: ü"
APP = "voice-agent"


@dataclass(frozen=True)
class Seen:
    """One request as it came over the wire."""

    method: str
    raw_path: str
    query: dict[str, str]
    body: Any
    content_type: str


@dataclass
class Answer:
    """What a path is to answer."""

    status: int = 204
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    never: bool = False


def json_answer(value: object, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value))


class FakeAri:
    """`async with FakeAri() as ari:` listens at `ari.url`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.url = ""
        self._tls = tls
        self.seen: list[Seen] = []
        self.answers: dict[tuple[str, str], Answer] = {}
        self.hanging = asyncio.Event()
        """Set once a request waits for an answer that never comes."""
        self.connections_dropped = 0
        self.drop_next = 0
        """So many of the next requests lose their connection instead of getting an answer."""
        self.handshakes: list[dict[str, str]] = []
        self.refuse_handshakes: list[int] = []
        """Statuses for the next handshakes; 0 stands for never answering."""
        self.answer_pings = True
        self.sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/ari/events", self._events)
        app.router.add_route("*", "/{any:.*}", self._rest)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"https://localhost:{port}" if self._tls else f"http://{host}:{port}"
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def answer(self, method: str, path: str, answer: Answer) -> None:
        """Fix the answer to a path below `/ari`; all others get 204."""
        self.answers[method, f"/ari{path}"] = answer

    async def _rest(self, request: web.Request) -> web.Response:
        if refused := _refusal(request):
            return refused
        body = await request.read()
        self.seen.append(
            Seen(
                request.method,
                request.raw_path.partition("?")[0],
                dict(request.query),
                orjson.loads(body) if body else None,
                request.headers.get("Content-Type", ""),
            )
        )
        if self.drop_next:
            self.drop_next -= 1
            self.connections_dropped += 1
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        path = request.raw_path.partition("?")[0]
        answer = self.answers.get((request.method, path), Answer())
        if answer.never:
            self.hanging.set()
            await asyncio.Event().wait()
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self.handshakes.append(dict(request.query))
        if self.refuse_handshakes:
            status = self.refuse_handshakes.pop(0)
            if status == 0:
                await asyncio.Event().wait()
            return web.Response(status=status)
        if refused := _refusal(request):
            return refused
        socket = web.WebSocketResponse(autoping=self.answer_pings)
        await socket.prepare(request)
        await self.sockets.put(socket)
        async for _ in socket:
            pass
        return socket


def _refusal(request: web.Request) -> web.Response | None:
    expected = aiohttp.encode_basic_auth(USERNAME, PASSWORD, encoding="utf-8")
    if request.headers.get("Authorization") == expected:
        return None
    return web.Response(status=401, body=b'{"error":"Authentication required"}')
