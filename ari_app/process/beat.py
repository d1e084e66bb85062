"""Moments that what a worker does again and again has in common.

Waking up costs an idle process more than what it then does: its code is in no cache any more. So
that it lives is told, and how late its event loop is, is measured, in the same wake-up.
"""

from __future__ import annotations

from typing import Final

BEAT_SECONDS: Final = 0.2


def seconds_to_beat(now: float) -> float:
    """Return how long it is to the next beat, or to the one after it where that is less than half a
    beat away: a timer may fire a little too soon.

    Args:
        now: Seconds on a clock that all who ask have in common.
    """
    left = BEAT_SECONDS - now % BEAT_SECONDS
    return left if left > BEAT_SECONDS / 2 else left + BEAT_SECONDS
