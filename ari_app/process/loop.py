"""Helpers for the event loop: coalesced calls, yielding to calls, cancelled tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")
_AT_ONCE: Final = 16


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


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they have ended; what they raise is dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
