"""Helpers for the event loop: coalesced calls, yielding to calls, computing in threads, cancelled
tasks."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_AT_ONCE: Final = 16
# Not asyncio's own: whatever waits for a disk that does not answer, as a recording's that is to be
# heard, keeps its few threads, and a tool call would wait for the disk as well.
_COMPUTING: Final = ThreadPoolExecutor(2, thread_name_prefix="compute")


class Soon:
    """Coalesces requests: calls something once in the next turn of the loop, however often it is
    asked for in this one. Hundreds of calls may end in one turn.

    Args:
        then: What is called. Whoever it belongs to is kept by this.
    """

    def __init__(self, then: Callable[[], object]) -> None:
        self._then = then
        self._handle: asyncio.Handle | None = None

    def ask(self) -> None:
        """Have it called in the next turn of the running loop."""
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._call)

    def cancel(self) -> None:
        """Have it not called, unless it is asked for again. May be called twice."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _call(self) -> None:
        self._handle = None
        self._then()


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items, and let the loop run before every 16 of them: calls have a frame each 20 ms.

    Whatever may change meanwhile has to be copied before.
    """
    for number, item in enumerate(items):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        yield item


async def compute(function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Return what a function gives that only computes, or loads code, for too long for the loop."""
    work = functools.partial(function, *args, **options)
    return await asyncio.get_running_loop().run_in_executor(_COMPUTING, work)


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they have ended; what they raise is dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
