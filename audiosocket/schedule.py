"""When the next frame is due. Pure: the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

EARLY_SECONDS = 0.002
"""A timer may fire this much too soon (uvloop's have a resolution of 1 ms); it counts as due."""


@dataclass(frozen=True, slots=True)
class Due:
    """What a wake-up has to do."""

    frames: int
    """Frames to write now; 0 when the wake-up came too early."""
    skipped: int
    """Frames given up, because the wake-up came so late that they would be a burst."""
    late_seconds: float
    """How long after its deadline the wake-up came; never negative."""


class Schedule:
    """Absolute deadlines `start + n * period`: a late tick does not move the ones after it.

    A stall of up to `max_catch_up` periods is made good at once, since Asterisk has no jitter
    buffer and the phone's own can take that much. After a longer one a single frame goes out
    and the rest is skipped: a burst would be lost on its way, or heard late for ever.
    """

    def __init__(self, start: float, period: float = 0.02, max_catch_up: int = 3) -> None:
        """The first deadline is one `period` (seconds) after `start`.

        Raises ValueError unless `period` is above 0 and `max_catch_up` at least 1.
        """
        if period <= 0:
            raise ValueError(f"a period of {period} s")
        if max_catch_up < 1:
            raise ValueError(f"max_catch_up is at least 1, not {max_catch_up}")
        self.period = period
        self.max_catch_up = max_catch_up
        self._start = start
        self._ticks = 1

    @property
    def deadline(self) -> float:
        """When the next frame is due, on the clock that `start` was read from."""
        return self._start + self._ticks * self.period

    def advance(self, now: float) -> Due:
        """Settle every deadline up to `now`."""
        late = now - self.deadline
        if late < -EARLY_SECONDS:
            return Due(frames=0, skipped=0, late_seconds=0.0)
        late = max(late, 0.0)
        passed = int(late / self.period) + 1
        self._ticks += passed
        if passed > self.max_catch_up:
            return Due(frames=1, skipped=passed - 1, late_seconds=late)
        return Due(frames=passed, skipped=0, late_seconds=late)
