from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.listening import listening
from benchmarks.processes import BenchmarkError


@asynccontextmanager
async def _service() -> AsyncIterator[str]:
    """Three calls, of which two talk; who listens to either hears a piece, and then no more."""

    async def sessions(_: web.Request) -> web.Response:
        states = {"a": "talking", "b": "ended", "c": "talking"}
        calls = [{"session_id": name, "state": state} for name, state in states.items()]
        return web.json_response({"sessions": calls})

    async def listen(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"rate_hz": 8000})
        await socket.send_bytes(bytes(640))
        await socket.receive()
        return socket

    application = web.Application()
    application.router.add_get("/sessions", sessions)
    application.router.add_get("/sessions/{name}/listen", listen)
    async with TestServer(application) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_calls_that_talk_are_listened_to() -> None:
    cores = os.sched_getaffinity(0)
    one = {min(cores)}

    async with _service() as url:
        async with listening(url, 2, one):
            assert os.sched_getaffinity(0) == one
        assert os.sched_getaffinity(0) == cores
        with pytest.raises(BenchmarkError, match="2 calls can be listened to, not 3"):
            async with listening(url, 3, one):
                pass


async def test_nobody_listens_unless_asked_for() -> None:
    async with listening("http://127.0.0.1:1", 0, set()):
        pass
