"""A base for services that open several resources and close them together."""

from __future__ import annotations

import abc
import contextlib
from typing import Self


class Opened(abc.ABC):
    """An asynchronous context manager that opens its parts when it is entered.

    The parts close in reverse order when it is left, or when one of them does not open.

    Attributes:
        _exit: Gets a callback from each part that has been opened.
    """

    def __init__(self) -> None:
        self._exit = contextlib.AsyncExitStack()

    @abc.abstractmethod
    async def _start(self) -> None:
        """Open all parts, and push to `_exit` how each is closed."""

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._exit.aclose()
