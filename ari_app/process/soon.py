"""Does once what many things that happen together ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Soon:
    """Calls something once all of what happens now has happened, however often it is asked for:
    hundreds of calls may end in one turn of the loop.

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
