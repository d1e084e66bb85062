"""A worker's places for calls, which its front gives out for all workers together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Final

from ari_app.call.admission import DRAINING_RETRY_SECONDS, RETRY_SECONDS, NoRoom
from ari_app.control.workers.messages import Enter, FromWorker, Leave

_GRANT_SECONDS: Final = 1.0
"""A front that lives answers at once whoever will not wait."""


class SharedAdmission:
    """Places that the front gives out, for the calls of all workers together.

    Without a front there are none: who comes, comes through it.

    Args:
        tell: Tells the front; whether it was there.
        tell_room: Tells it how many places are used.
        room_changed: Does so once all of what happens now has happened.

    Attributes:
        full: Whether there is no place for somebody who has come and does not wait.
    """

    def __init__(
        self,
        tell: Callable[[FromWorker], bool],
        tell_room: Callable[[], None],
        room_changed: Callable[[], None],
    ) -> None:
        self.full = False
        self._tell = tell
        self._tell_room = tell_room
        self._room_changed = room_changed
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[Enter, asyncio.Future[None]]] = {}
        self._held: list[int] = []
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def changed(self) -> None:
        """Look again: a call has ended."""
        self._room_changed()

    def close(self) -> None:
        """Refuse all requests that wait, and all that come from now on."""
        self._closed = True
        self._tell_room()
        for wish in tuple(self._waiting):
            self.refused(wish, NoRoom("draining", DRAINING_RETRY_SECONDS))

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep the place that `enter` has given until the call itself counts."""
        try:
            yield
        finally:
            # In this order: the call is counted before its place is free.
            self._tell_room()
            if self._held:
                self._tell(Leave(self._held.pop()))

    async def enter(self, *, paced: bool, wait_seconds: float) -> None:
        """Take a place; use it in `with reserved()`.

        Raises:
            NoRoom: There is none.
        """
        if self._closed:
            raise NoRoom("draining", DRAINING_RETRY_SECONDS)
        number = next(self._numbers)
        wish = Enter(number, paced, wait_seconds)
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = wish, granted
        try:
            if not self._tell(wish) and wait_seconds <= 0:
                raise NoRoom("capacity", RETRY_SECONDS)
            async with asyncio.timeout(wait_seconds + _GRANT_SECONDS):
                await granted
        except TimeoutError:
            self._tell(Leave(number))
            code = "queue_timeout" if wait_seconds > 0 else "capacity"
            raise NoRoom(code, RETRY_SECONDS) from None
        except asyncio.CancelledError:
            self._tell(Leave(number))
            raise
        finally:
            self._waiting.pop(number, None)
        self._held.append(number)

    # --- the front

    def linked(self) -> None:
        """Ask a front that has just come for all that is waited for."""
        for wish, _ in tuple(self._waiting.values()):
            self._tell(wish)

    def unlinked(self) -> None:
        """Note that the front has gone, and with it the places that it has kept."""
        self._held.clear()
        for number, (wish, _) in tuple(self._waiting.items()):
            if wish.wait_seconds <= 0:
                self.refused(number, NoRoom("capacity", RETRY_SECONDS))

    def granted(self, number: int) -> None:
        """Note that a wish has its place."""
        waiting = self._waiting.get(number)
        if waiting is None or waiting[1].done():
            self._tell(Leave(number))
        else:
            waiting[1].set_result(None)

    def refused(self, number: int, why: NoRoom) -> None:
        """Note that a wish gets none."""
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting[1].done():
            waiting[1].set_exception(why)
