"""Admission of calls: how many at once, how many a second, and the queue of those that wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol


class TokenBucket:
    """Limits a rate: `per_second` on average, and `burst` at once after a pause.

    Args:
        per_second: The rate; 0 lets everything through.
        burst: How many may come at once; at least 1.

    Raises:
        ValueError: The rate is negative, or the burst below 1.
    """

    def __init__(self, per_second: float, burst: float = 1.0) -> None:
        if per_second < 0 or burst < 1:
            raise ValueError("the rate must not be negative, the burst at least 1")
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._at: float | None = None

    def wait(self, now: float) -> float:
        """Return the seconds until one may pass; 0 when one may pass now."""
        if not self._per_second:
            return 0.0
        self._fill(now)
        return max(0.0, (1.0 - self._tokens) / self._per_second)

    def take(self, now: float) -> bool:
        """Let one pass, if it may."""
        if self._per_second:
            self._fill(now)
            if self._tokens < 1.0 - 1e-9:
                return False
            self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def give_back(self) -> None:
        """Take the last one back: it does not count."""
        self._tokens = min(self._burst, self._tokens + 1.0)

    def _fill(self, now: float) -> None:
        if self._at is not None:
            gained = max(0.0, now - self._at) * self._per_second
            self._tokens = min(self._burst, self._tokens + gained)
        self._at = now if self._at is None else max(self._at, now)


# A guess: nobody knows when the next call ends.
RETRY_SECONDS = 5.0
DRAINING_RETRY_SECONDS = 30.0
# Room also comes without being announced, as when an agent hands a call over.
_LOOK_AGAIN_SECONDS = 0.5
_SOON_SECONDS = 0.001


class NoRoom(Exception):
    """There is no room.

    Attributes:
        code: `capacity`, `rate_limited`, `queue_timeout` or `draining`.
        retry_after: Seconds after which there may be.
    """

    def __init__(self, code: str, retry_after: float) -> None:
        super().__init__(f"there is no room: {code}")
        self.code = code
        self.retry_after = retry_after


class Room(Protocol):
    """Gives out the places of the calls: `Admission`, or a worker's, which asks the front."""

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        ...

    @property
    def full(self) -> bool:
        """Whether there is no place."""
        ...

    def changed(self) -> None:
        """Look again: a call has ended."""
        ...

    def close(self) -> None:
        """Refuse all requests that wait, and all that come from now on."""
        ...

    def reserved(self) -> contextlib.AbstractContextManager[None]:
        """Keep the place that `enter` has given until the call itself counts."""
        ...

    async def enter(self, *, paced: bool, wait_seconds: float) -> None:
        """Take a place; use it in `with reserved()`.

        Raises:
            NoRoom: There is none.
        """
        ...


class _Wish:
    """A request for a place.

    Attributes:
        paced: The limit in calls a second holds for it, too.
        granted: Done once it has a place; raises `NoRoom` if it gets none.
    """

    def __init__(self, paced: bool) -> None:
        self.paced = paced
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def has_place(self) -> bool:
        done = self.granted.done() and not self.granted.cancelled()
        return done and self.granted.exception() is None


class Admission:
    """Gives out the places of the calls of this process, in the order in which they are asked for.

    A request that waits only for the limit in calls a second is passed by those for which that
    limit does not hold: a caller who waits for an agent need not wait for calls that we place.

    Args:
        max_calls: How many calls at once.
        running: Returns how many calls run.
        per_second: How many of ours may be placed in a second; 0: any number.
        max_waiting: How many may wait for a place; one more is refused at once.
    """

    def __init__(
        self,
        max_calls: int,
        running: Callable[[], int],
        *,
        per_second: float = 0.0,
        max_waiting: int = 100,
    ) -> None:
        self._max_calls = max_calls
        self._running = running
        self._bucket = TokenBucket(per_second)
        self._max_waiting = max_waiting
        self._wishes: list[_Wish] = []
        self._reserved = 0
        self._closed = False
        self._next_look: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._wishes)

    @property
    def full(self) -> bool:
        """Whether there is no place."""
        return self.taken >= self._max_calls

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return self._running() + self._reserved

    def changed(self) -> None:
        """Look again: a call has ended."""
        self._serve()

    def close(self) -> None:
        """Refuse all requests that wait, and all that come from now on."""
        self._closed = True
        self._serve()

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep the place that `enter` has given until the call itself counts."""
        try:
            yield
        finally:
            self._give_back()

    async def enter(self, *, paced: bool, wait_seconds: float) -> None:
        """Take a place; use it in `with reserved()`.

        Args:
            paced: The call is placed by us, so the limit in calls a second holds.
            wait_seconds: How long to wait for it; 0 does not wait.

        Raises:
            NoRoom: There is none.
        """
        wish = _Wish(paced)
        self._wishes.append(wish)
        try:
            self._serve()
            if not wish.granted.done() and (
                wait_seconds <= 0 or len(self._wishes) > self._max_waiting
            ):
                raise self._refusal(paced)
            async with asyncio.timeout(wait_seconds or None):
                await wish.granted
        except TimeoutError:
            # The place may have come in the same moment.
            if not wish.has_place:
                raise NoRoom("queue_timeout", self._refusal(paced).retry_after) from None
        except asyncio.CancelledError:
            if wish.has_place:
                self._give_back()
            raise
        finally:
            if wish in self._wishes:
                self._wishes.remove(wish)

    def give_turn_back(self) -> None:
        """Count one less of ours as placed: it has had its turn, and nobody was called."""
        self._bucket.give_back()

    def _give_back(self) -> None:
        self._reserved -= 1
        self._serve()

    def _serve(self) -> None:
        """Give places to those that can have one; if others wait on, look again a little later."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        now, pace_allows = self._loop.time(), True
        for wish in tuple(self._wishes):
            if wish.granted.done():
                continue  # It has given up, and will be gone in a moment.
            if self._closed:
                wish.granted.set_exception(NoRoom("draining", DRAINING_RETRY_SECONDS))
            elif self.full:
                break
            elif wish.paced and not (pace_allows and self._bucket.take(now)):
                pace_allows = False
                continue
            else:
                self._reserved += 1
                wish.granted.set_result(None)
            self._wishes.remove(wish)
        if self._wishes:
            pause = _LOOK_AGAIN_SECONDS if pace_allows else self._bucket.wait(now)
            self._next_look = self._loop.call_later(
                min(max(pause, _SOON_SECONDS), _LOOK_AGAIN_SECONDS), self._serve
            )

    def _refusal(self, paced: bool) -> NoRoom:
        if self.full or not paced:
            return NoRoom("capacity", RETRY_SECONDS)
        return NoRoom("rate_limited", max(0.1, self._bucket.wait(self._loop.time())))
