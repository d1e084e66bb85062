"""When the machine let this process wait: then nobody in it could be in time."""

from __future__ import annotations

import asyncio
import time
from typing import Final

_LOOK_SECONDS: Final = 0.005


class HoldUps:
    """Notes for how long the running loop stood ready and did not run.

    What the loop works itself is no hold-up: a fault of ours that keeps it busy is seen as before.
    """

    def __init__(self) -> None:
        self._noted: list[tuple[float, float]] = []

    async def watch(self) -> None:
        """Watch until cancelled."""
        began, worked = time.monotonic(), time.thread_time()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now, work = time.monotonic(), time.thread_time()
            self.note(now, now - began - _LOOK_SECONDS - (work - worked))
            began, worked = now, work

    def note(self, until: float, seconds: float) -> None:
        """Note a hold-up that has just ended, if it is one."""
        if seconds > 0:
            self._noted.append((until, seconds))

    def between(self, start: float, end: float) -> float:
        """Return the seconds of all hold-ups that reach into a time."""
        return sum(
            seconds for until, seconds in self._noted if until >= start and until - seconds <= end
        )
