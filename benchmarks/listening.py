"""Listeners beside the calls of a benchmark: `GET /sessions/{id}/listen`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp

from benchmarks.processes import BenchmarkError

_FIRST_SECONDS = 10.0
"""The first sound comes within 60 ms."""


@asynccontextmanager
async def listening(url: str, count: int, cores: set[int]) -> AsyncIterator[None]:
    """Listen to so many calls that talk, each over a WebSocket of its own, from these cores.

    Args:
        url: Where the service's HTTP is.

    Raises:
        BenchmarkError: There are fewer calls, or a listener did not hear until the end.
    """
    if not count:
        yield
        return
    ours = os.sched_getaffinity(0)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        async with http.get(f"{url}/sessions") as answer:
            calls = (await answer.json())["sessions"]
        talking = [call["session_id"] for call in calls if call["state"] == "talking"]
        if len(talking) < count:
            raise BenchmarkError(f"{len(talking)} calls can be listened to, not {count}")
        listeners = [
            await stack.enter_async_context(http.ws_connect(f"{url}/sessions/{name}/listen"))
            for name in talking[:count]
        ]
        for listener in listeners:
            await listener.receive_json(timeout=_FIRST_SECONDS)
            await listener.receive_bytes(timeout=_FIRST_SECONDS)
        # Reading takes no time from what is measured.
        os.sched_setaffinity(0, cores)
        stack.callback(os.sched_setaffinity, 0, ours)
        tasks = [asyncio.create_task(_hear(listener)) for listener in listeners]
        try:
            yield
            if any(task.done() for task in tasks):
                raise BenchmarkError("a listener was left before the end")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _hear(listener: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in listener:
        pass
