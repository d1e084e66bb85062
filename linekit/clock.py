"""One clock for every line: a timer for each moment of a period, absolute deadlines."""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import structlog

from linekit.native import drain

EARLY_SECONDS = 0.002
"""A timer may fire this much too soon (uvloop's have a resolution of 1 ms); it counts as due."""


class Due:
    """The work of a wake-up. Made at each, so it is no dataclass: compiled, that is much slower.

    Attributes:
        frames: Frames to write now; 0 when the wake-up came too early.
        skipped: Frames given up, because the wake-up came so late that they would be a burst.
        late_seconds: How long after its deadline the wake-up came; never negative.
    """

    __slots__ = ("frames", "late_seconds", "skipped")

    def __init__(self, frames: int, skipped: int, late_seconds: float) -> None:
        self.frames = frames
        self.skipped = skipped
        self.late_seconds = late_seconds


LATE_BOUNDS_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class TickStats:
    """Counters of a clock's wake-ups.

    Attributes:
        late: How many were so late: one number for each of `LATE_BOUNDS_SECONDS`, of those above
            the bound before it, and one for those above the last.
        late_seconds: How late all of them were together.
        skipped: Frames given up.
    """

    __slots__ = ("late", "late_seconds", "skipped")

    def __init__(self) -> None:
        self.late = [0] * (len(LATE_BOUNDS_SECONDS) + 1)
        self.late_seconds = 0.0
        self.skipped = 0

    def add(self, due: Due) -> None:
        """Count a wake-up."""
        bucket = 0
        for bound in LATE_BOUNDS_SECONDS:
            if due.late_seconds <= bound:
                break
            bucket += 1
        self.late[bucket] += 1
        self.late_seconds += due.late_seconds
        self.skipped += due.skipped


MAX_CATCH_UP: Final = 3
"""How many periods are made good at once."""


class Schedule:
    """Absolute deadlines `start + n * period`: a late tick does not move the ones after it.

    A stall of up to `MAX_CATCH_UP` periods is made good at once, since Asterisk has no jitter
    buffer and the phone's own can take that much. After a longer one a single frame goes out
    and the rest is skipped: a burst would be lost on its way, or heard late for ever.

    Args:
        start: The first deadline is one `period` after it.
        period: Seconds between deadlines.

    Raises:
        ValueError: `period` is not above 0.
    """

    def __init__(self, start: float, period: float = 0.02) -> None:
        if period <= 0:
            raise ValueError(f"a period of {period} s")
        self.period = period
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
        if passed > MAX_CATCH_UP:
            return Due(frames=1, skipped=passed - 1, late_seconds=late)
        return Due(frames=passed, skipped=0, late_seconds=late)


_CLOCK_MONOTONIC: Final = 1
_ABSOLUTE: Final = 1
_NON_BLOCKING: Final = os.O_NONBLOCK
_CLOSE_ON_EXEC: Final = os.O_CLOEXEC


_TIMER_SPEC: Final = struct.Struct("@llll")
"""Interval and value, in seconds and nanoseconds (`struct itimerspec`)."""


def is_coarse(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop's own timers are too coarse, and this machine has better ones."""
    return sys.platform == "linux" and type(loop).__module__.partition(".")[0] == "uvloop"


class KernelTimer:
    """A timer of the kernel's that fires again and again, awaited by an event loop. It is set once:
    whatever sets one each time takes longer than all the rest of a wake-up.

    Args:
        loop: What awaits it.
        first: When it fires first, in seconds on the clock of `time.monotonic`.
        period: Seconds between that and the next time.
        callback: Called each time; once for several that were missed.

    Raises:
        OSError: The kernel gives no timer.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        first: float,
        period: float,
        callback: Callable[[], None],
    ) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._loop = loop
        self._callback = callback
        # No time at all would mean: never.
        spec = _TIMER_SPEC.pack(*_parts(period), *_parts(max(first, 1e-9)))
        self._fd = _checked(libc.timerfd_create(_CLOCK_MONOTONIC, _NON_BLOCKING | _CLOSE_ON_EXEC))
        try:
            _checked(libc.timerfd_settime(self._fd, _ABSOLUTE, spec, None))
            loop.add_reader(self._fd, self._fired)
        except BaseException:
            os.close(self._fd)
            raise

    def cancel(self) -> None:
        """Call nobody any more, and give the timer back. May be called twice."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _fired(self) -> None:
        if self._fd >= 0:
            drain(self._fd)
            self._callback()


def _parts(seconds: float) -> tuple[int, int]:
    return divmod(round(seconds * 1e9), 1_000_000_000)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


log = structlog.get_logger(__name__)

_LATE_SECONDS: Final = 0.015


class Timer(Protocol):
    """A timer, as `call_at` returns it."""

    def cancel(self) -> None: ...


class TimerLoop(Protocol):
    """The part of an event loop that a clock needs; tests bring one whose time they set."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer: ...


class Membership:
    """One callback of a clock's. Calling it ends it: no tick any more; may be done twice, and from
    within a tick."""

    __slots__ = ("_clock", "active", "ahead", "callback", "slot")

    def __init__(self, clock: FrameClock, callback: Callable[[int], None]) -> None:
        self._clock = clock
        self.callback = callback
        self.active = True
        self.slot = 0
        self.ahead = 0
        """Periods of its slot that it has had already, where it came from; below 0: has missed."""

    def __call__(self) -> None:
        self._clock.remove(self)

    def shift(self, slots: int) -> None:
        """Tick so many slots later from now on, or earlier."""
        self._clock.shift(self, slots)


class _Slot:
    """Those who tick at the same moment of each period."""

    __slots__ = ("members", "repeats", "schedule", "snapshot", "timer")

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.timer: Timer | None = None
        self.repeats = False
        self.members: dict[Membership, None] = {}
        self.snapshot: tuple[Membership, ...] = ()


SLOTS: Final = 10
"""The moments of a period at which a clock may tick: one every 2 ms."""


class FrameClock:
    """Calls every callback once per period with the number of frames due.

    That number is 1, or up to `MAX_CATCH_UP` after a stall (see `Schedule`). All callbacks of a
    slot run in the same wake-up: a hundred calls cost one timer. Everybody begins in the first
    slot. Without callbacks there is no timer. On uvloop timers of the kernel's take the place of
    the loop's (`KernelTimer`).

    Args:
        period: Seconds between ticks.
        stats: Counts the wake-ups.
        loop: Where the timers run; the running event loop at `start` when None.
    """

    def __init__(
        self,
        period: float = 0.02,
        *,
        stats: TickStats | None = None,
        loop: TimerLoop | None = None,
    ) -> None:
        self.period = period
        self.stats = TickStats() if stats is None else stats
        self._loop = loop
        self._running_on: TimerLoop | None = None
        self._coarse: asyncio.AbstractEventLoop | None = None
        """The loop, where the kernel's timers are better than its own."""
        self._now: Callable[[], float] = time.monotonic
        self._began = 0.0
        self._slots: dict[int, _Slot] = {}
        self._ticked_at = float("-inf")
        self._punctual_ticks = 0

    @property
    def slot_seconds(self) -> float:
        """How far two slots are apart."""
        return self.period / SLOTS

    def is_punctual(self, now: float) -> bool:
        """Return whether nothing has held up the loop lately: the last ticks came in time, and the
        next one is not overdue."""
        return self._punctual_ticks > 1 and now - self._ticked_at < self.period + _LATE_SECONDS

    @property
    def ticking(self) -> bool:
        """Whether a timer is set: started, and somebody listens."""
        return self._running_on is not None and bool(self._slots)

    def start(self) -> None:
        """Begin to tick, from now on. No effect when already started.

        Raises:
            RuntimeError: No loop was given and none is running.
        """
        if self._running_on is not None:
            return
        if self._loop is not None:
            self._running_on, self._now = self._loop, self._loop.time
        else:
            loop = asyncio.get_running_loop()
            self._running_on, self._now = loop, loop.time
            if is_coarse(loop):
                self._coarse, self._now = loop, time.monotonic
        self._began = self._now()
        for number, slot in self._slots.items():
            slot.schedule = self._schedule(number)
            for membership in slot.members:
                membership.ahead = 0
            self._arm(slot)

    def stop(self) -> None:
        """Tick no more. Callbacks stay and go on with the next `start()`."""
        self._running_on = self._coarse = None
        for slot in self._slots.values():
            _disarm(slot)

    def add(self, callback: Callable[[int], None]) -> Membership:
        """Call `callback(frames_due)` each tick until what is returned is called."""
        membership = Membership(self, callback)
        if not self._slots:
            self._began = self._now()
        self._join(membership, 0)
        return membership

    def remove(self, membership: Membership) -> None:
        """End a membership."""
        if membership.active:
            membership.active = False
            # Who was called may keep the membership: the two would keep each other.
            membership.callback = _nobody
            self._leave(membership)

    def shift(self, membership: Membership, slots: int) -> None:
        """Move a membership by so many slots; see `Membership.shift`."""
        if membership.active and slots:
            deadline = self._slots[membership.slot].schedule.deadline
            wanted = deadline + membership.ahead * self.period + slots * self.slot_seconds
            self._leave(membership)
            slot = self._join(membership, (membership.slot + slots) % SLOTS)
            # Where the new slot lies later in a period, it comes once more before; after a stall it
            # may be due for as many as have just been made good.
            membership.ahead = round((wanted - slot.schedule.deadline) / self.period)

    def _join(self, membership: Membership, number: int) -> _Slot:
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = _Slot(self._schedule(number))
            self._arm(slot)
        membership.slot = number
        slot.members[membership] = None
        slot.snapshot = tuple(slot.members)
        return slot

    def _leave(self, membership: Membership) -> None:
        slot = self._slots[membership.slot]
        del slot.members[membership]
        slot.snapshot = tuple(slot.members)
        if not slot.members:
            del self._slots[membership.slot]
            _disarm(slot)

    def _schedule(self, number: int) -> Schedule:
        """Make the schedule of a slot whose first deadline lies ahead."""
        start = self._began + number * self.slot_seconds
        if self._running_on is not None:
            start += math.floor((self._now() - start) / self.period) * self.period
        return Schedule(start, self.period)

    def _arm(self, slot: _Slot) -> None:
        loop, deadline = self._running_on, slot.schedule.deadline
        if loop is None:
            return
        tick = partial(self._tick, slot)
        if self._coarse is not None:
            try:
                slot.timer = KernelTimer(self._coarse, deadline, self.period, tick)
            except (OSError, AttributeError) as error:
                log.warning("clock without kernel timer", error=str(error))
                self._coarse = None
            else:
                slot.repeats = True
                return
        slot.repeats = False
        slot.timer = loop.call_at(deadline, tick)

    def _tick(self, slot: _Slot) -> None:
        # Armed before anybody is called: whatever a callback does, the next tick comes.
        now = self._now()
        due = slot.schedule.advance(now)
        if not slot.repeats:
            self._arm(slot)
        if due.frames:
            self._run(due, slot, now)

    def _run(self, due: Due, slot: _Slot, now: float) -> None:
        in_time = due.late_seconds < _LATE_SECONDS
        self._punctual_ticks = self._punctual_ticks + 1 if in_time else 0
        self._ticked_at = now
        self.stats.add(due)
        for membership in slot.snapshot:
            if membership.active:
                frames = due.frames
                if membership.ahead:
                    frames = self._settle(membership, due)
                    if not frames:
                        continue
                try:
                    membership.callback(frames)
                except Exception:
                    log.exception("clock callback failed")

    def _settle(self, membership: Membership, due: Due) -> int:
        """Return how many frames are due to one who is ahead of its slot, or behind it."""
        frames = due.frames + due.skipped - membership.ahead
        membership.ahead = max(-frames, 0)
        return max(0, min(frames, due.frames if due.skipped else MAX_CATCH_UP))


def _disarm(slot: _Slot) -> None:
    timer, slot.timer = slot.timer, None
    if timer is not None:
        timer.cancel()


def _nobody(frames_due: int) -> None:
    """Take no tick."""
