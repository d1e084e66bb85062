"""Room for calls: how many at once, how many a second, and who waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator


class TokenBucket:
    """Lets through so many a second on average, and a burst after a pause.

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
        """Seconds until one may pass; 0 when one may pass now."""
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

    def _fill(self, now: float) -> None:
        if self._at is not None:
            gained = max(0.0, now - self._at) * self._per_second
            self._tokens = min(self._burst, self._tokens + gained)
        self._at = now if self._at is None else max(self._at, now)


# When the limit is reached nobody knows when a call ends.
_RETRY_SECONDS = 5.0
# Room also comes without being announced, as when an agent hands a call over.
_LOOK_AGAIN_SECONDS = 0.5


class NoRoom(Exception):
    """There is no room.

    Attributes:
        code: ``capacity``, ``rate_limited`` or ``queue_timeout``.
        retry_after: Seconds after which there may be.
    """

    def __init__(self, code: str, retry_after: float) -> None:
        super().__init__(f"there is no room: {code}")
        self.code = code
        self.retry_after = retry_after


class Admission:
    """Gives out the places of the calls, to those who ask to wait in the order of asking.

    Args:
        max_calls: How many at once.
        running: Says how many there are.
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
        self._waiting = 0
        self._reserved = 0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return self._waiting

    @property
    def full(self) -> bool:
        """Whether there is no place."""
        return self._running() + self._reserved >= self._max_calls

    def changed(self) -> None:
        """Look again: a call has ended."""
        self._changed.set()

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep the place that :meth:`enter` has given until the call itself counts."""
        try:
            yield
        finally:
            self._reserved -= 1
            self.changed()

    async def enter(self, *, paced: bool, wait_seconds: float) -> None:
        """Take a place; use it in ``with reserved()``.

        Args:
            paced: The call is placed by us, so the limit in calls a second holds.
            wait_seconds: How long to wait for it; 0 does not wait.

        Raises:
            NoRoom: There is none.
        """
        if not self._turn.locked() and self._try(paced) is None:
            return
        if wait_seconds <= 0 or self._waiting >= self._max_waiting:
            raise self._refusal(paced)
        self._waiting += 1
        try:
            async with asyncio.timeout(wait_seconds):
                await self._wait(paced)
        except TimeoutError:
            raise NoRoom("queue_timeout", self._refusal(paced).retry_after) from None
        finally:
            self._waiting -= 1

    async def _wait(self, paced: bool) -> None:
        # The lock is given on in the order of asking.
        async with self._turn:
            while self._try(paced) is not None:
                self._changed.clear()
                pause = self._bucket.wait(self._loop.time()) if paced and not self.full else 0.0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause or _LOOK_AGAIN_SECONDS):
                        await self._changed.wait()

    def _try(self, paced: bool) -> NoRoom | None:
        if self.full or (paced and not self._bucket.take(self._loop.time())):
            return self._refusal(paced)
        self._reserved += 1
        return None

    def _refusal(self, paced: bool) -> NoRoom:
        if self.full or not paced:
            return NoRoom("capacity", _RETRY_SECONDS)
        return NoRoom("rate_limited", max(0.1, self._bucket.wait(self._loop.time())))
