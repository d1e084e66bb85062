"""What a call heard, and waiting for something to be heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from lab.softphone.ear import Arrival, Ear, HeardStats
from lab.softphone.ending import Ending
from lab.softphone.errors import CallOver
from lab.softphone.sounds import level_dbfs

_T = TypeVar("_T")
_POLL_S = 0.01


class Listener:
    """The hearing half of a call. Sound is 16-bit PCM, mono, 8 kHz.

    Attributes:
        ear: What was heard; whoever gives it a packet calls `packet_heard` then.
    """

    def __init__(self, ear: Ear) -> None:
        self.ear = ear
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._watchers: list[Callable[[Arrival | None], None]] = []

    @property
    def digits(self) -> str:
        """The digits that the far end pressed."""
        return "".join(heard.digit for heard in self.ear.digits)

    def heard_pcm(self) -> bytes:
        """All that was heard, gaps filled with silence."""
        return self.ear.pcm()

    def level(self, last_ms: float) -> float:
        """The level heard within the last milliseconds, in dBFS; -100 when nothing came."""
        return self.ear.level(last_ms, time.monotonic())

    def stats(self) -> HeardStats:
        """Loss, order and gaps of what was heard."""
        return self.ear.stats()

    async def wait_for_sound(
        self,
        threshold_dbfs: float = -40.0,
        timeout: float = 10.0,
        *,
        since: float | None = None,
    ) -> float:
        """Wait until a packet of at least this level is heard; give back when it arrived.

        `since` (monotonic seconds) lets a packet count that came already; by default only those
        from now on do.

        Raises:
            TimeoutError: nothing was heard in time.
            CallOver: the call ended first.
        """
        start = time.monotonic() if since is None else since

        def check(arrival: Arrival | None) -> float | None:
            if arrival is None:
                return self.ear.sound_at(threshold_dbfs, start)
            loud = arrival.at >= start and level_dbfs(arrival.pcm) >= threshold_dbfs
            return arrival.at if loud else None

        return await self._watch(check, timeout)

    async def wait_for_silence(
        self, quiet_ms: float = 200.0, threshold_dbfs: float = -40.0, timeout: float = 10.0
    ) -> float:
        """Wait until nothing of this level has come for a while; give back when the quiet began.

        Raises:
            TimeoutError: it did not become quiet in time.
        """
        start = time.monotonic()
        async with asyncio.timeout(timeout):
            while True:
                last = self.ear.last_sound_at(threshold_dbfs, start)
                quiet_since = start if last is None else last
                if (time.monotonic() - quiet_since) * 1000 >= quiet_ms:
                    return quiet_since
                await asyncio.sleep(_POLL_S)

    async def wait_for_digits(self, count: int, timeout: float = 10.0) -> str:
        """Wait until that many digits have come since the call began; give all of them back.

        Raises:
            TimeoutError: fewer came in time.
            CallOver: the call ended first.
        """
        return await self._watch(
            lambda _: self.digits if len(self.ear.digits) >= count else None, timeout
        )

    def packet_heard(self, arrival: Arrival | None) -> None:
        """Tell those who wait of a packet; of None when it held no voice."""
        for watcher in list(self._watchers):
            watcher(arrival)

    async def _watch(self, check: Callable[[Arrival | None], _T | None], timeout: float) -> _T:
        """Wait until `check`, asked now and after each packet, gives something back."""
        found: asyncio.Future[_T] = asyncio.get_running_loop().create_future()

        def watcher(arrival: Arrival | None) -> None:
            if not found.done() and (result := check(arrival)) is not None:
                found.set_result(result)

        watcher(None)
        self._watchers.append(watcher)
        try:
            async with asyncio.timeout(timeout):
                return await self._unless_over(found)
        finally:
            self._watchers.remove(watcher)

    async def _unless_over(self, wanted: asyncio.Future[_T]) -> _T:
        """Wait for a future. Raise CallOver when the call ends before it is done."""
        both: set[asyncio.Future[Any]] = {wanted, self._ended}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            raise CallOver("the call ended first")
        return wanted.result()
