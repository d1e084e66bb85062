"""Goes through much without holding up the sound of calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")
_AT_ONCE: Final = 16


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items; before every few, calls, which have a frame each 20 ms, go on.

    Whatever may change meanwhile has to be copied before.
    """
    for number, item in enumerate(items):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        yield item
