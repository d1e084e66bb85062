"""A timer finer than uvloop's, which has whole milliseconds: at the phone they would be jitter.

Linux' `timerfd_create(2)` fires within some 50 µs of its time and is awaited as a file. Python has
it from 3.13 on; before that it is reached through the C library. It is told how long to wait, not
until when: what fakes the wall clock for a process (libfaketime) shifts every absolute time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Final, Self

_CLOCK_MONOTONIC: Final = 1
_RELATIVE: Final = 0
_NON_BLOCKING: Final = os.O_NONBLOCK
_CLOSE_ON_EXEC: Final = os.O_CLOEXEC


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def is_coarse(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop's own timers are too coarse, and this machine has better ones."""
    return sys.platform == "linux" and type(loop).__module__.partition(".")[0] == "uvloop"


class KernelTimer:
    """One timer of the kernel's, awaited by an event loop. What a clock needs of a loop.

    Raises OSError when the kernel gives no timer.
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
        """Seconds on the clock that the timer goes by."""
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
