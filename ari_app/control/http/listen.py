"""A supervisor's ear: both sides of a call that runs, over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Protocol

import structlog
from aiohttp import WSCloseCode, web

from ari_app.call.listening import Ear
from ari_app.control.control import CallControl
from ari_app.control.http.middleware import KEY_NAME
from ari_app.control.http.problems import Problem
from ari_app.control.http.streams import one_way_socket, send_while_there

log = structlog.get_logger(__name__)

_BLOCK_MS: Final = 60
_MOST_LISTENERS: Final = 32
_WRITE_SECONDS: Final = 5.0


class _Service(Protocol):
    @property
    def control(self) -> CallControl: ...


class Listening:
    """Lets people listen to calls.

    Args:
        service: Knows the calls.
    """

    def __init__(self, service: _Service) -> None:
        self._service = service
        self._listeners = 0

    async def serve(self, request: web.Request, session_id: str) -> web.StreamResponse:
        """Send both sides until the call is over, or the listener goes."""
        socket = one_way_socket(request)
        if self._listeners >= _MOST_LISTENERS:
            raise Problem(
                "too_many_streams", f"{_MOST_LISTENERS} listen already, which is the limit."
            )
        with self._service.control.listen(session_id, request.get(KEY_NAME, "")) as ear:
            self._listeners += 1
            try:
                await socket.prepare(request)
                await send_while_there(socket, self._send(socket, ear), "listen")
            finally:
                self._listeners -= 1
        return socket

    async def _send(self, socket: web.WebSocketResponse, ear: Ear) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError, TimeoutError):
            head = {"format": "pcm_s16le", "rate_hz": ear.rate_hz, "channels": ["caller", "agent"]}
            await socket.send_json(head)
            due = loop.time()
            while not ear.over:
                due = max(due + _BLOCK_MS / 1000, loop.time())
                await asyncio.sleep(due - loop.time())
                async with asyncio.timeout(_WRITE_SECONDS):
                    await socket.send_bytes(ear.take(_BLOCK_MS))
            await socket.close()
            return
        await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, drain=False)
