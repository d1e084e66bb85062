"""The routes by which a benchmark steers whoever drives calls, whatever line they come over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import orjson
from aiohttp import web

_JSON = "application/json"


class Driver(Protocol):
    """What drives calls."""

    async def start_calls(
        self, count: int, per_second: float, args: tuple[str, ...] = ()
    ) -> None: ...

    def end_calls(self, count: int | None = None) -> None: ...

    def be_quiet(self) -> None: ...

    def begin_window(self) -> None: ...

    def report(self) -> Callable[[], dict[str, Any]]: ...


class Steering:
    """`POST /load/calls?count=N&per_second=R`, `DELETE /load/calls`, `POST /load/quiet`,
    `POST /load/window` (begin to measure) and `GET /load/report`.

    Args:
        driver: Who is steered.
    """

    def __init__(self, driver: Callable[[], Driver]) -> None:
        self._driver = driver
        self._starting: set[asyncio.Task[None]] = set()
        self.routes = [
            web.post("/load/calls", self._start_calls),
            web.delete("/load/calls", self._end_calls),
            web.post("/load/quiet", self._quiet),
            web.post("/load/window", self._window),
            web.get("/load/report", self._report),
        ]

    async def close(self) -> None:
        """Start no more calls."""
        for task in tuple(self._starting):
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)

    async def _start_calls(self, request: web.Request) -> web.Response:
        try:
            count = int(request.query.get("count", "1"))
            per_second = float(request.query.get("per_second", "10"))
        except ValueError:
            body = orjson.dumps({"message": "count and per_second are numbers"})
            return web.Response(status=400, body=body, content_type=_JSON)
        arguments = tuple(request.query.getall("arg", []))
        task = asyncio.create_task(self._driver().start_calls(count, per_second, arguments))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        return web.Response(status=204)

    async def _end_calls(self, request: web.Request) -> web.Response:
        count = request.query.get("count")
        self._driver().end_calls(None if count is None else int(count))
        return web.Response(status=204)

    async def _quiet(self, request: web.Request) -> web.Response:
        self._driver().be_quiet()
        return web.Response(status=204)

    async def _window(self, request: web.Request) -> web.Response:
        self._driver().begin_window()
        return web.Response(status=204)

    async def _report(self, request: web.Request) -> web.Response:
        # The figures cost some hundred milliseconds, in which callers would fall silent.
        report = await asyncio.to_thread(self._driver().report())
        body = orjson.dumps(report | {"cpu_seconds": time.process_time()})
        return web.Response(body=body, content_type=_JSON)
