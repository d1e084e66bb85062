"""Keeps Python's garbage collector from holding up frames, and memory from growing.

A full collection takes tens of milliseconds, in which no frame is written. So whatever lives long
is frozen (`gc.freeze`): collections do not look at it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

_M_MMAP_THRESHOLD = -3
"""The name of a parameter of glibc's mallopt (malloc.h)."""
_LARGE_BYTES = 192 * 1024
"""More than any message of an agent's, less than the 256 KiB of a TLS connection (uvloop)."""
_YOUNG: Final = 700
"""New objects, less those that are gone, between two collections of the youngest: Python's own."""
_TIMES: Final = 5
"""How many of these before what they left is looked at once more."""
_LOOK_EVERY_SECONDS: Final = 60.0
_LEFT_WHEN_IDLE: Final = 20_000
_LEFT_AT_MOST: Final = 500_000
"""Objects; those of a call are some hundred, and 60 s after its end fewer."""


def settle_memory() -> bool:
    """Prepare for serving: call it once all that lives as long as the process has been made.

    Objects that exist now, and whatever survives its second collection, are frozen: a collection
    that looked at four hundred calls would hold up all frames for 40 to 97 ms. An ended call needs
    none, but what libraries leave of a broken connection are cycles: see `collect_leftovers`.

    The buffers of TLS connections go back to the system as calls end. By itself glibc takes them
    into its heap once one was freed, and the heap grows with every new arrangement of them.

    Returns:
        Whether the C library could be told; musl cannot.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _TIMES)
    if _freeze_survivors not in gc.callbacks:
        gc.callbacks.append(_freeze_survivors)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) == 1


def _freeze_survivors(phase: str, info: dict[str, int]) -> None:
    # A collection of what is not frozen, some thousand objects, takes 1 to 3 ms.
    if phase == "stop" and info["generation"] > 0:
        gc.freeze()


@contextlib.contextmanager
def collecting_nothing() -> Iterator[None]:
    """Switch collections off meanwhile, and freeze what was made unless this fails.

    For what makes many objects that stay: of a million, each full collection would take a second.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if collects:
            gc.enable()


_loading = threading.Lock()
_loaded_objects = 0


def load_for_good(names: Sequence[str]) -> None:
    """Import modules while calls run, and freeze what they made; call it in a thread of its own.

    No collection looks at them, neither while they are loaded nor afterwards: a full one would take
    some milliseconds longer, and frames would wait for it.

    Raises:
        ImportError: One cannot be imported.
    """
    global _loaded_objects
    with _loading:
        if all(name in sys.modules for name in names):
            return
        before = gc.get_freeze_count()
        with collecting_nothing():
            for name in names:
                importlib.import_module(name)
        _loaded_objects += gc.get_freeze_count() - before


async def collect_leftovers(is_idle: Callable[[], bool]) -> None:
    """Free reference cycles among the frozen objects, until cancelled.

    A full collection takes a tenth of a second, and ends the sharing of memory pages with the
    parent process. So it comes only where 20,000 objects have been left while no call runs, or
    500,000 in any case. Counting them takes some ten milliseconds, and is left out for as long as
    there cannot be so many.

    Args:
        is_idle: Tells whether no call runs.
    """
    settled = _frozen()
    left, collected = 0, _collections()
    while True:
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
        enough = _LEFT_WHEN_IDLE if is_idle() else _LEFT_AT_MOST
        if left + _frozen_at_most(_collections() - collected) <= enough:
            continue
        left, collected = _frozen() - settled, _collections()
        if left > enough:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            settled, left = _frozen(), 0


def _frozen_at_most(collections: int) -> int:
    """Return how many objects `_freeze_survivors` can have frozen in so many collections, by the
    thresholds that each had to reach."""
    return collections * (_YOUNG + 1) * (_TIMES + 2)


def _collections() -> int:
    """Return how many collections there were of more than the youngest generation."""
    return sum(generation["collections"] for generation in gc.get_stats()[1:])


def _frozen() -> int:
    """Return how many objects are frozen beside those of `load_for_good`, which stay for good."""
    return gc.get_freeze_count() - _loaded_objects
