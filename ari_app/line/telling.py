"""What the lines that come over a WebSocket have in common: whom they tell, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ari_app.line.interface import Ended, LineEvent, Tell


class Alarm:
    """One timer: whatever is to be called next, in place of what was to be called before."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def call_in(self, seconds: float, then: Callable[[], None]) -> None:
        """Call `then` after so long."""
        self.stop()
        self._timer = self._loop.call_later(seconds, then)

    def stop(self) -> None:
        """Call nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class TellingLine:
    """Tells what happens until it is over, and its end once; nothing once it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tell: Tell | None = None
        self._ended: Ended | None = None
        self._over = self._closed = False
        self._alarm = Alarm()

    def listen(self, tell: Tell) -> None:
        """Tell `tell` what happens from now on; an end that has come already at once."""
        self._tell = tell
        if self._ended is not None:
            tell(self._ended)

    def _soon(self, event: LineEvent) -> None:
        self._loop.call_soon(self._tell_call, event)

    def _tell_call(self, event: LineEvent) -> None:
        if self._tell is not None and not self._closed and (not self._over or event is self._ended):
            self._tell(event)

    def _end(self, ended: Ended) -> None:
        if not self._over:
            self._over, self._ended = True, ended
            self._tell_call(ended)
