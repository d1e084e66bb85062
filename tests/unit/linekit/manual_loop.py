"""A loop whose time stands still: the `TimerLoop` of a clock under test."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count


@dataclass(order=True)
class ManualTimer:
    when: float
    number: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class ManualLoop:
    """Time passes when `advance` or `stall` says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[ManualTimer] = []
        self._numbers = count()

    @property
    def waiting(self) -> list[float]:
        return sorted(timer.when for timer in self._timers if not timer.cancelled)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> ManualTimer:
        timer = ManualTimer(when, next(self._numbers), callback)
        heapq.heappush(self._timers, timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let every timer on the way run at its own time."""
        end = self.now + seconds
        while self._timers and self._timers[0].when <= end + 1e-9:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self.now = max(self.now, timer.when)
                timer.callback()
        self.now = end

    def stall(self, seconds: float) -> None:
        """Let time pass with the loop blocked; what is due then runs late, once."""
        self.now += seconds
        for timer in [timer for timer in self._timers if timer.when <= self.now]:
            self._timers.remove(timer)
            heapq.heapify(self._timers)
            if not timer.cancelled:
                timer.callback()

    def fire_early(self) -> None:
        """Run the next timer now, before its time."""
        heapq.heappop(self._timers).callback()
