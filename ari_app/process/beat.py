"""A common beat for periodic tasks, so that one wake-up of the process serves all of them.

Waking up costs more than the tasks themselves, whose code is in no cache any more. On the beat a
worker sends its heartbeat, measures how late its event loop is, and has its calls look whether
their agents still answer.
"""

from __future__ import annotations

from typing import Final

BEAT_SECONDS: Final = 0.2


def seconds_to_beat(now: float, after: float = BEAT_SECONDS) -> float:
    """Return the seconds from `now` to the beat that is nearest to `now + after`.

    Args:
        now: Seconds on a clock that all tasks share.
        after: The wanted pause, at least `BEAT_SECONDS`.
    """
    return round((now + after) / BEAT_SECONDS) * BEAT_SECONDS - now
