"""Waiting until something is so, on a loop of any time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait until something is so; as long as possible without any time.

    Raises:
        TimeoutError: It did not come true in time.
    """
    async with asyncio.timeout(timeout):
        for _ in range(20):
            if condition():
                return
            await asyncio.sleep(0)
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
