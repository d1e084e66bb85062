"""Frees what the garbage collector has been told to look away from; see `settle_memory`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Final

from ari_app.process.later import kept_for_good
from ari_app.process.limits import looks_away_from

_LOOK_EVERY_SECONDS: Final = 60.0
_LEFT_WHEN_IDLE: Final = 20_000
_LEFT_AT_MOST: Final = 500_000
"""Objects; those of a call are some hundred, and 60 s after its end fewer."""


async def collect_leftovers(is_idle: Callable[[], bool]) -> None:
    """Free, until cancelled, the circles among what the collector looks away from.

    That takes a tenth of a second, and pages of its own for what this process has in common with
    its parent: it is done only where much is left while nothing runs, or very much. Counting takes
    some ten milliseconds, so that calls are spared it for as long as it cannot be very much.

    Args:
        is_idle: Tells whether nobody would notice.
    """
    settled = _frozen()
    left, collected = 0, _collections()
    while True:
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
        enough = _LEFT_WHEN_IDLE if is_idle() else _LEFT_AT_MOST
        if left + looks_away_from(_collections() - collected) <= enough:
            continue
        left, collected = _frozen() - settled, _collections()
        if left > enough:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            settled, left = _frozen(), 0


def _collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats()[1:])


def _frozen() -> int:
    # What was loaded later is no leftover, and more than these.
    return gc.get_freeze_count() - kept_for_good()
