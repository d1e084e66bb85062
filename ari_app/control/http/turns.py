"""Goes through many calls without holding up their sound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")
_AT_ONCE: Final = 16


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield what is there now; after every few, calls, which have a frame each 20 ms, go on."""
    for number, item in enumerate(tuple(items)):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        yield item
