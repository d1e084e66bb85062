"""A dialer's own service: where the sound of its calls is, and the WebSockets themselves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Self
from urllib.parse import quote

from aiohttp import web

from lab.web import serving
from tests.waiting import until

FOUND = {"format": "pcm_16000"}
Answer = Callable[[], web.StreamResponse]


class FakeDialer:
    """A dialer over real HTTP.

    Args:
        tls: With what it shows who it is; None: without TLS.

    Attributes:
        asked: The calls whose sound was asked for, and with which key.
        hung_up: What it was told at the end of each call.
        sockets: The WebSockets that came, by the name of the call, and with which key.
        answers: What it says instead of where the sound is, one after the other.
        takes_end: What it says to the end of a call, one after the other.
        opens: What it does instead of opening a WebSocket.
        probe_status: What it says to a call that it does not have.
        connecting: How many have asked for a WebSocket.
        holds_open: A WebSocket is not opened before this is set.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.asked: list[tuple[str, str | None]] = []
        self.hung_up: list[tuple[str, dict[str, str]]] = []
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.keys: dict[str, str | None] = {}
        self.found: dict[str, Any] = dict(FOUND)
        self.answers: list[Answer] = []
        self.takes_end: list[Answer] = []
        self.opens: Answer | None = None
        self.probe_status, self.connecting = 404, 0
        self.holds_open: asyncio.Event | None = None
        self._over = asyncio.Event()
        self._served = AsyncExitStack()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/calls/{call_id}/audio", self._audio)
        app.router.add_post("/calls/{call_id}/hangup", self._hangup)
        app.router.add_get("/media/{call_id}", self._media)
        self.url = await self._served.enter_async_context(serving(app, self._tls))
        self.media = f"ws{self.url.removeprefix('http')}/media"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._over.set()
        await self._served.aclose()

    async def socket(self, call_id: str) -> web.WebSocketResponse:
        """Wait until the service has come for a call's sound."""
        await until(lambda: call_id in self.sockets)
        return self.sockets[call_id]

    async def _audio(self, request: web.Request) -> web.StreamResponse:
        call_id = request.match_info["call_id"]
        if call_id == "ari-app-check":
            return web.Response(status=self.probe_status)
        self.asked.append((call_id, request.headers.get("Authorization")))
        if self.answers:
            return self.answers.pop(0)()
        return web.json_response({"url": f"{self.media}/{quote(call_id, safe='')}", **self.found})

    async def _hangup(self, request: web.Request) -> web.StreamResponse:
        self.hung_up.append((request.match_info["call_id"], await request.json()))
        return self.takes_end.pop(0)() if self.takes_end else web.Response()

    async def _media(self, request: web.Request) -> web.StreamResponse:
        self.connecting += 1
        if self.holds_open is not None:
            await self.holds_open.wait()
        if self.opens is not None:
            return self.opens()
        call_id = request.match_info["call_id"]
        self.keys[call_id] = request.headers.get("Authorization")
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        self.sockets[call_id] = socket
        # Whoever tests reads from it.
        closing = asyncio.create_task(self._over.wait())
        while not socket.closed and not closing.done():
            await asyncio.wait({closing}, timeout=0.02)
        closing.cancel()
        return socket
