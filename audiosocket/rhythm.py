"""When, between two of our ticks, a peer's frames come. Pure.

A telephone sends a frame every 20 ms by a clock of its own. Once the time of its frames is known,
the line can tick shortly after it and read then, without waiting for the kernel to announce each
frame.
"""

from __future__ import annotations

from typing import Final

_SAMPLES: Final = 8
"""How many frames tell the rhythm; the last ones count."""
_AFTER_SECONDS: Final = 0.0005
"""How long a frame should at least be there before the tick that reads it."""
_FINE_SECONDS: Final = 0.0015
"""How much longer than a slot a frame may wait before the tick is moved: clocks drift slowly."""


class Rhythm:
    """Learns how long a peer's frames wait for a tick.

    Args:
        period: Seconds between ticks, and between frames.
        slot: By how much a tick can be moved, in seconds.
    """

    def __init__(self, period: float, slot: float) -> None:
        self._period = period
        self._slot = slot
        self._waits: list[float] = []

    @property
    def known(self) -> bool:
        """Whether enough frames have come to tell."""
        return len(self._waits) >= _SAMPLES

    def came(self, since_tick: float) -> None:
        """Note that a frame has come, `since_tick` seconds after a tick."""
        self._waits.append(-since_tick % self._period)
        del self._waits[:-_SAMPLES]

    def take_shift(self) -> int:
        """Return by how many slots to move the tick: later, or earlier if negative.

        The caller has to move it: the frames after that are measured anew.
        """
        if not self.known:
            return 0
        half = self._period / 2
        first = self._waits[0]
        # Around the first one, so that those on either side of the tick are near each other.
        around = sorted((wait - first + half) % self._period - half for wait in self._waits)
        wait = (first + around[len(around) // 2]) % self._period
        spare = wait - _AFTER_SECONDS
        if 0 <= spare < self._slot + _FINE_SECONDS:
            return 0
        slots = -int(spare // self._slot)
        if slots < -round(half / self._slot):
            slots += round(self._period / self._slot)
        if slots:
            self._waits.clear()
        return slots
