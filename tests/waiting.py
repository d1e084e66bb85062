"""What a loop of any time still has to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

PATIENCE_SECONDS: Final = 60.0
"""After which what is waited for has failed, however busy the machine is."""
PROMPT_SECONDS: Final = 12.0
"""What ends of itself has ended by then; what is left over is swept up only later."""


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


def wait_until(condition: Callable[[], object]) -> None:
    """The same where no loop runs.

    Raises:
        AssertionError: It did not come true in time.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.01)


def call_tasks() -> list[str]:
    """What still runs for a call."""
    return [
        f"{task.get_name()}: {getattr(task.get_coro(), '__qualname__', '')}"
        for task in asyncio.all_tasks()
        if not task.done() and task.get_name().startswith("call ")
    ]


class Turns:
    """Counts the turns of the running loop, from now on.

    Attributes:
        noted: In which of them there was something to `note`.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self.noted: list[int] = []
        self._next = self._loop.call_soon(self._begins)

    def note(self) -> None:
        self.noted.append(self._number)

    def stop(self) -> None:
        self._next.cancel()

    def _begins(self) -> None:
        self._number += 1
        self._next = self._loop.call_soon(self._begins)
