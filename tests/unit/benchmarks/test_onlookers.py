from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.onlookers import looking_on
from benchmarks.processes import BenchmarkError
from tests.waiting import until


@asynccontextmanager
async def _service(watched: list[str]) -> AsyncIterator[str]:
    """Three calls, of which two talk; who listens to either hears a piece, and then no more.

    Below `/soon` those who watch are left at once. The paths that are watched are noted.
    """

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

    async def watch(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: {}\n\n")
        watched.append(request.path)
        await asyncio.Event().wait()
        return response

    async def leave(_: web.Request) -> web.Response:
        return web.Response()

    application = web.Application()
    application.router.add_get("/sessions", sessions)
    application.router.add_get("/sessions/{name}/listen", listen)
    application.router.add_get("/page/watch", watch)
    application.router.add_get("/soon/sessions", sessions)
    application.router.add_get("/soon/page/watch", leave)
    async with TestServer(application) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_calls_that_talk_are_listened_to() -> None:
    cores = os.sched_getaffinity(0)
    one = {min(cores)}

    async with _service([]) as url:
        async with looking_on(url, 2, 0, one):
            assert os.sched_getaffinity(0) == one
        assert os.sched_getaffinity(0) == cores
        with pytest.raises(BenchmarkError, match="2 calls can be listened to, not 3"):
            async with looking_on(url, 3, 0, one):
                pass


async def test_pages_watch_until_the_end() -> None:
    watched: list[str] = []
    async with _service(watched) as url:
        async with looking_on(url, 0, 2, os.sched_getaffinity(0)):
            await until(lambda: len(watched) == 2)
        with pytest.raises(BenchmarkError, match="a page was left before the end"):
            async with looking_on(f"{url}/soon", 0, 1, os.sched_getaffinity(0)):
                await asyncio.sleep(0.1)


async def test_nobody_looks_on_unless_asked_for() -> None:
    async with looking_on("http://127.0.0.1:1", 0, 0, set()):
        pass
