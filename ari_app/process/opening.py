"""What is opened piece by piece, and closed as a whole."""

from __future__ import annotations

import abc
import asyncio
import contextlib
from typing import Any, Self


class Opened(abc.ABC):
    """Opens its pieces when it is entered; they close when it is left, or when one does not open.

    Attributes:
        _exit: What closes them, the last one first.
    """

    def __init__(self) -> None:
        self._exit = contextlib.AsyncExitStack()

    @abc.abstractmethod
    async def _start(self) -> None:
        """Open all pieces, each of which leaves to `_exit` how it is closed."""

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._exit.aclose()


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they have ended; what they fail with is left out."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
