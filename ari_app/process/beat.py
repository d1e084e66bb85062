"""Moments that what a worker does again and again has in common.

Waking up costs more than what is then done: the code for it is in no cache any more. So that a
worker lives is told, how late its event loop is, is measured, and calls look after themselves, in
the same wake-ups.
"""

from __future__ import annotations

from typing import Final

BEAT_SECONDS: Final = 0.2


def seconds_to_beat(now: float, after: float = BEAT_SECONDS) -> float:
    """Return how long it is to the beat that is nearest to so many seconds from now.

    Args:
        now: Seconds on a clock that all who ask have in common.
        after: A beat at least.
    """
    return round((now + after) / BEAT_SECONDS) * BEAT_SECONDS - now
