"""One clock for every line: a single timer, absolute deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

import structlog

from audiosocket.kernel_timer import KernelTimer, is_coarse
from audiosocket.schedule import Schedule

log = structlog.get_logger(__name__)

OnTick = Callable[[float, int], None]
"""Called each tick with (seconds late, frames skipped)."""


class Timer(Protocol):
    """What `call_at` returns."""

    def cancel(self) -> None: ...


class TimerLoop(Protocol):
    """The part of an event loop that a clock needs; tests bring one whose time they set."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer: ...


class _Registration:
    __slots__ = ("active", "callback")

    def __init__(self, callback: Callable[[int], None]) -> None:
        self.callback = callback
        self.active = True


class FrameClock:
    """Calls every callback once per period with the number of frames due.

    That number is 1, or up to `max_catch_up` after a stall (see `Schedule`). All callbacks run
    in the same wake-up: a hundred calls cost one timer. Without callbacks there is no timer.
    """

    def __init__(
        self,
        period: float = 0.02,
        max_catch_up: int = 3,
        *,
        on_tick: OnTick | None = None,
        loop: TimerLoop | None = None,
    ) -> None:
        """`loop`: where the timer runs; the running event loop at `start()` when None.

        On uvloop a timer of the kernel's takes the place of its own (see `kernel_timer.py`).
        """
        self.period = period
        self.max_catch_up = max_catch_up
        self.on_tick = on_tick
        self._loop = loop
        self._running_on: TimerLoop | None = None
        self._schedule = Schedule(0.0, period, max_catch_up)
        self._registrations: dict[_Registration, None] = {}
        self._snapshot: tuple[_Registration, ...] = ()
        self._timer: Timer | None = None
        self._kernel_timer: KernelTimer | None = None

    @property
    def ticking(self) -> bool:
        """Whether a timer is set: started, and somebody listens."""
        return self._timer is not None

    def start(self) -> None:
        """Begin to tick, from now on. No effect when already started.

        Raises RuntimeError when no loop was given and none is running.
        """
        if self._running_on is None:
            self._running_on = self._loop or self._best_timer()
            self._wind()

    def stop(self) -> None:
        """Tick no more. Callbacks stay and go on with the next `start()`."""
        self._running_on = None
        self._unwind()
        if self._kernel_timer is not None:
            self._kernel_timer.close()
            self._kernel_timer = None

    def add(self, callback: Callable[[int], None]) -> Callable[[], None]:
        """Call `callback(frames_due)` each tick until the returned function is called.

        The returned function may be called twice, and from within a tick.
        """
        registration = _Registration(callback)
        self._registrations[registration] = None
        self._snapshot = tuple(self._registrations)
        self._wind()

        def remove() -> None:
            if registration.active:
                registration.active = False
                del self._registrations[registration]
                self._snapshot = tuple(self._registrations)
                if not self._registrations:
                    self._unwind()

        return remove

    def _best_timer(self) -> TimerLoop:
        loop = asyncio.get_running_loop()
        if is_coarse(loop):
            try:
                self._kernel_timer = KernelTimer(loop)
            except (OSError, AttributeError) as error:
                log.warning("clock without kernel timer", error=str(error))
            else:
                return self._kernel_timer
        return loop

    def _wind(self) -> None:
        loop = self._running_on
        if loop is not None and self._registrations and self._timer is None:
            self._schedule = Schedule(loop.time(), self.period, self.max_catch_up)
            self._arm(loop)

    def _unwind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: TimerLoop) -> None:
        self._timer = loop.call_at(self._schedule.deadline, partial(self._tick, loop))

    def _tick(self, loop: TimerLoop) -> None:
        due = self._schedule.advance(loop.time())
        # Armed before anybody is called: whatever a callback does, the next tick comes.
        self._arm(loop)
        if not due.frames:
            return
        if self.on_tick is not None:
            try:
                self.on_tick(due.late_seconds, due.skipped)
            except Exception:
                log.exception("clock hook failed")
        frames = due.frames
        for registration in self._snapshot:
            if registration.active:
                try:
                    registration.callback(frames)
                except Exception:
                    log.exception("clock callback failed")
