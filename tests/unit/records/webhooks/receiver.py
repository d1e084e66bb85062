"""A receiver of webhooks that behaves as badly as a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from ari_app.records.webhooks.signing import SignatureCheck
from lab.web import serving

SECRET = "a-secret-of-the-tests"


@dataclass(frozen=True, slots=True)
class Got:
    """What has arrived."""

    path: str
    kind: str
    event_id: str
    attempt: int
    body: dict[str, Any]

    @property
    def call(self) -> str:
        return str(self.body["call"]["session_id"])


Behave = Callable[[web.Request, Got], "web.StreamResponse | None"]


@dataclass(slots=True)
class BadReceiver:
    """Checks each signature; answers 200 where nothing else is wanted of it."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    behave: Behave = lambda request, got: None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    connections: set[object] = field(default_factory=set)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        check = SignatureCheck(
            request.headers["X-AriApp-Signature"], [SECRET.encode()], time.time()
        )
        check.update(raw)
        check.finish()
        got = Got(
            request.path,
            request.headers["X-AriApp-Event"],
            request.headers["X-AriApp-Event-Id"],
            int(request.headers["X-AriApp-Attempt"]),
            orjson.loads(raw),
        )
        assert got.body["id"] == got.event_id
        assert got.body["type"] == got.kind
        self.connections.add(request.transport)
        self.got.append(got)
        answer = self.behave(request, got)
        if request.path == "/slow":
            await self.gate.wait()
        return answer or web.Response()

    def kinds(self, session_id: str) -> list[str]:
        return [each.kind for each in self.got if each.call == session_id]


@contextlib.asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[BadReceiver]:
    receiver = BadReceiver()
    app = web.Application()
    app.router.add_post("/{where}", receiver.serve)
    async with serving(app, tls) as url:
        receiver.url = url
        try:
            yield receiver
        finally:
            receiver.gate.set()
