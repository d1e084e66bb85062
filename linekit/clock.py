"""One clock for every line: a single timer, absolute deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, Self

import structlog

EARLY_SECONDS = 0.002
"""A timer may fire this much too soon (uvloop's have a resolution of 1 ms); it counts as due."""


@dataclass(frozen=True, slots=True)
class Due:
    """The work of a wake-up.

    Attributes:
        frames: Frames to write now; 0 when the wake-up came too early.
        skipped: Frames given up, because the wake-up came so late that they would be a burst.
        late_seconds: How long after its deadline the wake-up came; never negative.
    """

    frames: int
    skipped: int
    late_seconds: float


class Schedule:
    """Absolute deadlines `start + n * period`: a late tick does not move the ones after it.

    A stall of up to `max_catch_up` periods is made good at once, since Asterisk has no jitter
    buffer and the phone's own can take that much. After a longer one a single frame goes out
    and the rest is skipped: a burst would be lost on its way, or heard late for ever.

    Args:
        start: The first deadline is one `period` after it.
        period: Seconds between deadlines.
        max_catch_up: How many periods are made good at once.

    Raises:
        ValueError: `period` is not above 0, or `max_catch_up` below 1.
    """

    def __init__(self, start: float, period: float = 0.02, max_catch_up: int = 3) -> None:
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


_CLOCK_MONOTONIC: Final = 1
_RELATIVE: Final = 0
_NON_BLOCKING: Final = os.O_NONBLOCK
_CLOSE_ON_EXEC: Final = os.O_CLOEXEC


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def is_coarse(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop's own timers are too coarse, and this machine has better ones."""
    return sys.platform == "linux" and type(loop).__module__.partition(".")[0] == "uvloop"


class KernelTimer:
    """One timer of the kernel's, awaited by an event loop. What a clock needs of a loop.

    Raises:
        OSError: The kernel gives no timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._callback: Callable[[], None] | None = None
        self._fd = self._checked(
            self._libc.timerfd_create(_CLOCK_MONOTONIC, _NON_BLOCKING | _CLOSE_ON_EXEC)
        )
        loop.add_reader(self._fd, self._fired)

    def time(self) -> float:
        """Return the seconds on the clock that the timer goes by."""
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None], /) -> Self:
        """Call `callback` once, at `when`; takes the place of what was set before."""
        self._callback = callback
        self._set(when)
        return self

    def cancel(self) -> None:
        """Call nobody."""
        self._callback = None

    def close(self) -> None:
        """Give the timer back. May be called twice."""
        self.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _set(self, when: float) -> None:
        # No time at all would mean: never.
        nanoseconds = max(1, round((when - time.monotonic()) * 1e9))
        value = _Timespec(*divmod(nanoseconds, 1_000_000_000))
        spec = _TimerSpec(_Timespec(0, 0), value)
        self._checked(self._libc.timerfd_settime(self._fd, _RELATIVE, ctypes.byref(spec), None))

    def _fired(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


log = structlog.get_logger(__name__)

_LATE_SECONDS: Final = 0.015

OnTick = Callable[[float, int], None]
"""Called each tick with (seconds late, frames skipped)."""


class Timer(Protocol):
    """A timer, as `call_at` returns it."""

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
    in the same wake-up: a hundred calls cost one timer. Without callbacks there is no timer. On
    uvloop a timer of the kernel's takes the place of the loop's (`KernelTimer`).

    Args:
        period: Seconds between ticks.
        max_catch_up: As for `Schedule`.
        on_tick: Told of each tick.
        loop: Where the timer runs; the running event loop at `start` when None.
    """

    def __init__(
        self,
        period: float = 0.02,
        max_catch_up: int = 3,
        *,
        on_tick: OnTick | None = None,
        loop: TimerLoop | None = None,
    ) -> None:
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
        self._ticked_at = float("-inf")
        self._punctual_ticks = 0

    def is_punctual(self, now: float) -> bool:
        """Return whether nothing has held up the loop lately: the last ticks came in time, and the
        next one is not overdue."""
        return self._punctual_ticks > 1 and now - self._ticked_at < self.period + _LATE_SECONDS

    @property
    def ticking(self) -> bool:
        """Whether a timer is set: started, and somebody listens."""
        return self._timer is not None

    def start(self) -> None:
        """Begin to tick, from now on. No effect when already started.

        Raises:
            RuntimeError: No loop was given and none is running.
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
        in_time = due.late_seconds < _LATE_SECONDS
        self._punctual_ticks = self._punctual_ticks + 1 if in_time else 0
        self._ticked_at = loop.time()
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
