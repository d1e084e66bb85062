"""What a loop of any time still has to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

PATIENCE_SECONDS: Final = 60.0
"""After which what is waited for has failed, however busy the machine is."""
PROMPT_SECONDS: Final = 12.0
"""What ends of itself has ended by then; what is left over is swept up only later."""

_STEP_SECONDS: Final = 0.005


async def until(condition: Callable[[], object], timeout: float = PATIENCE_SECONDS) -> None:
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


@dataclass(slots=True)
class HoldUp:
    """The longest one of this process: how much later than it should something may have come."""

    seconds: float = 0.0


@asynccontextmanager
async def hold_up() -> AsyncIterator[HoldUp]:
    """Watch how long the loop is kept from running while others have the machine."""
    longest = HoldUp()

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_STEP_SECONDS)
            late = time.monotonic() - before - _STEP_SECONDS
            longest.seconds = max(longest.seconds, late)

    watching = asyncio.create_task(watch())
    try:
        yield longest
    finally:
        watching.cancel()


def call_tasks() -> list[str]:
    """What still runs for a call."""
    return [
        f"{task.get_name()}: {getattr(task.get_coro(), '__qualname__', '')}"
        for task in asyncio.all_tasks()
        if not task.done() and task.get_name().startswith("call ")
    ]
