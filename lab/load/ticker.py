"""One timer for many lines, each in a phase of its own, as phones are."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from typing import Final

from audiosocket.frames import FRAME_MS
from linekit.clock import Timer, TimerLoop

Tick = Callable[[], None]

_STEP_SECONDS: Final = 0.001
_EARLY_SECONDS: Final = 0.0005
"""A timer of uvloop may fire this much too soon: it counts whole milliseconds."""


class Ticker:
    """Calls each member every 20 ms; members are spread over twenty phases, 1 ms apart.

    Deadlines are absolute. What was missed is made good at once, as a phone's packets arrive in a
    bunch after a hold-up.
    """

    def __init__(self, loop: TimerLoop | None = None) -> None:
        """`loop`: where the timer runs; the running event loop when None."""
        self.late_us = array("L")
        """How late each phase was, in microseconds: whether the generator itself keeps up."""
        self._phases: list[dict[object, Tick]] = [{} for _ in range(FRAME_MS)]
        self._loop: TimerLoop = loop or asyncio.get_running_loop()
        self._start = self._loop.time()
        self._step = 0
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to tick."""
        self._start, self._step = self._loop.time(), 0
        self._arm()

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()

    def add(self, key: object, tick: Tick) -> None:
        """Let a member take part, in the phase that has the fewest."""
        min(self._phases, key=len)[key] = tick

    def remove(self, key: object) -> None:
        """Leave a member out from now on; one that is no member is ignored."""
        for members in self._phases:
            members.pop(key, None)

    def _arm(self) -> None:
        """Sleep until the next phase that has members; a whole period when none has."""
        ahead = range(1, FRAME_MS)
        steps = (self._step + step for step in ahead if self._members(self._step + step))
        self._timer = self._loop.call_at(self._at(next(steps, self._step + FRAME_MS)), self._due)

    def _due(self) -> None:
        while self._at(self._step + 1) <= (now := self._loop.time()) + _EARLY_SECONDS:
            self._step += 1
            if members := self._members(self._step):
                late = max(0.0, now - self._at(self._step))
                self.late_us.append(int(late * 1_000_000))
                for tick in tuple(members.values()):
                    tick()
        self._arm()

    def _members(self, step: int) -> dict[object, Tick]:
        return self._phases[step % FRAME_MS]

    def _at(self, step: int) -> float:
        return self._start + step * _STEP_SECONDS
