"""Who looks on beside the calls of a benchmark: listeners, and pages that show all calls."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp

from benchmarks.processes import BenchmarkError

_FIRST_SECONDS = 10.0
"""The first sound comes within 60 ms."""


@asynccontextmanager
async def looking_on(
    url: str, listeners: int, watchers: int, cores: set[int]
) -> AsyncIterator[None]:
    """Listen to so many calls that talk, and watch all calls with so many pages, from these cores.

    Args:
        url: Where the service's HTTP is.
        listeners: Each has a call, and a WebSocket (`GET /sessions/{id}/listen`).
        watchers: Each has a stream (`GET /page/watch`).

    Raises:
        BenchmarkError: There are fewer calls, or somebody did not hear or see until the end.
    """
    if not listeners and not watchers:
        yield
        return
    ours = os.sched_getaffinity(0)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        async with http.get(f"{url}/sessions") as answer:
            calls = (await answer.json())["sessions"]
        talking = [call["session_id"] for call in calls if call["state"] == "talking"]
        if len(talking) < listeners:
            raise BenchmarkError(f"{len(talking)} calls can be listened to, not {listeners}")
        ears = [
            await stack.enter_async_context(http.ws_connect(f"{url}/sessions/{name}/listen"))
            for name in talking[:listeners]
        ]
        for ear in ears:
            await ear.receive_json(timeout=_FIRST_SECONDS)
            await ear.receive_bytes(timeout=_FIRST_SECONDS)
        pages = [
            await stack.enter_async_context(http.get(f"{url}/page/watch")) for _ in range(watchers)
        ]
        # Reading takes no time from what is measured.
        os.sched_setaffinity(0, cores)
        stack.callback(os.sched_setaffinity, 0, ours)
        streams: list[AsyncIterable[object]] = [*ears, *(page.content for page in pages)]
        tasks = [asyncio.create_task(_take(stream)) for stream in streams]
        try:
            yield
            if any(task.done() for task in tasks):
                raise BenchmarkError("a listener or a page was left before the end")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _take(stream: AsyncIterable[object]) -> None:
    async for _ in stream:
        pass
