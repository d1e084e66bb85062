"""The limits of this process: file descriptors, memory, and how long its collector may stand."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from typing import Final

_M_MMAP_THRESHOLD = -3
"""The name of a parameter of glibc's mallopt (malloc.h)."""
_LARGE_BYTES = 192 * 1024
"""More than any message of an agent's, less than the 256 KiB of a TLS connection (uvloop)."""
_YOUNG: Final = 700
"""New objects, less those that are gone, between two collections of the youngest: Python's own."""
_TIMES: Final = 5
"""How many of these before what they left is looked at once more."""


def settle_memory() -> bool:
    """Prepare for serving: to be called when all that lives as long as the process is there.

    Garbage collection looks away from what there is now, and from whatever is no longer young:
    while one looks at four hundred calls, no frame is written for 40 to 97 ms. An ended call needs
    none, but what libraries leave of a broken connection are circles: see `leftovers.py`.

    The buffers of TLS connections are given back to the system as calls end. By itself glibc takes
    them into its heap once one was freed, and the heap grows with every new arrangement of them.

    Returns:
        Whether the C library could be told; musl cannot.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _TIMES)
    if _look_away not in gc.callbacks:
        gc.callbacks.append(_look_away)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) == 1


def looks_away_from(collections: int) -> int:
    """Return from how many objects so many collections of more than the youngest look away."""
    # At most: each threshold has to be passed.
    return collections * (_YOUNG + 1) * (_TIMES + 2)


def _look_away(phase: str, info: dict[str, int]) -> None:
    # All that survives its second collection: of some thousand objects that takes 1 to 3 ms.
    if phase == "stop" and info["generation"] > 0:
        gc.freeze()


@contextlib.contextmanager
def collecting_nothing() -> Iterator[None]:
    """Have no collection look at what is made meanwhile, neither as it grows nor, unless this
    fails, afterwards: of a million objects that stay that would take a second, again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if collects:
            gc.enable()


_TURN_SECONDS: Final = 0.001


def share_interpreter() -> None:
    """Let the event loop wait for a thread of ours for 1 ms at most before it gets its turn.

    Python's own choice is 5 ms, a quarter of a frame; such threads write recordings, the log and
    the call log.
    """
    sys.setswitchinterval(_TURN_SECONDS)


_OUR_OWN: Final = 200
"""Log, database, timers, the connections to Asterisk, to pre-call services and to tools."""
_PER_CALL: Final = 3
"""The agent's socket, the request for its address, a recording; the line counts by its limit."""
_MOST: Final = 1 << 20


def needed(calls: int, connections: int) -> int:
    """Return how many file descriptors this process may need at most.

    Every connection is one, and a process without any takes no calls.

    Args:
        calls: How many may run at once.
        connections: How many may come in from outside at once.
    """
    return _OUR_OWN + _PER_CALL * calls + connections


def available() -> int:
    """Return how many file descriptors this process may have, if it asks for them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if hard == resource.RLIM_INFINITY else hard


def raise_limit() -> int:
    """Ask for as many as this process may have; how many it has got.

    The usual 1024 are a limit for programs that use `select(2)`, which this is not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < available():
        resource.setrlimit(resource.RLIMIT_NOFILE, (available(), hard))
    return available()
