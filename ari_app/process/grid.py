"""Moments that whatever a process does again and again has in common.

Waking up costs an idle process more than what it then does: its code is in no cache any more. So
what has the same period is done in the same wake-up.
"""

from __future__ import annotations


def seconds_to_next(period: float, now: float) -> float:
    """Return how long it is to the next moment that is a multiple of `period`, or to the one after
    it where that is less than half a period away: a timer may fire a little too soon."""
    left = period - now % period
    return left if left > period / 2 else left + period
