"""What lines share: telling the call what happens, and a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ari_app.line.interface import Ended, LineEvent, Tell


class Alarm:
    """A timer that can be set anew: only what it was set for last is called."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def call_in(self, seconds: float, then: Callable[[], None]) -> None:
        """Call `then` after so many seconds, in place of what was to be called before."""
        self.stop()
        self._timer = self._loop.call_later(seconds, then)

    def stop(self) -> None:
        """Stop the timer. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class BaseLine:
    """A line that tells its call what happens.

    Events are told until the line has ended, its end once, and nothing after it has been closed.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tell: Tell | None = None
        self._ended: Ended | None = None
        self._over = self._closed = False
        self._alarm = Alarm()

    def listen(self, tell: Tell) -> None:
        """Tell `tell` each event from now on; where the line has ended already, its end at once."""
        self._tell = tell
        if self._ended is not None:
            tell(self._ended)

    def _soon(self, event: LineEvent) -> None:
        """Tell an event in the next turn of the loop, for the call is still asking."""
        self._loop.call_soon(self._tell_call, event)

    def _tell_call(self, event: LineEvent) -> None:
        if self._tell is not None and not self._closed and (not self._over or event is self._ended):
            self._tell(event)

    def _end(self, ended: Ended) -> None:
        """End the line, unless it has ended."""
        if not self._over:
            self._over, self._ended = True, ended
            self._tell_call(ended)
