"""When a delivery is tried again, and when it is given up. Pure.

It is counted in attempts, not in hours: what waits while the service is stopped, or while a clock
jumps, loses none of its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final

_MINUTE: Final = 60.0
_HOUR: Final = 60 * _MINUTE
PAUSES: Final = (5.0, 15.0, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE, *[_HOUR] * 23)
"""Seconds after each attempt; after the last one it is given up, a day after the first."""
MAX_RETRY_AFTER: Final = _HOUR
JITTER: Final = 0.1
"""A pause is this much longer or shorter, so that what failed together is not repeated together."""


class Fate(StrEnum):
    """What becomes of a delivery after an attempt."""

    DELIVERED = "delivered"
    AGAIN = "waiting"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt.

    Attributes:
        status: The HTTP status; None: there was no answer.
        error: What went wrong, in a few words; None with a status.
        retry_after: Seconds for which the receiver wants to hear nothing.
    """

    status: int | None = None
    error: str | None = None
    retry_after: float | None = None

    @property
    def words(self) -> str:
        """Say it in a few words."""
        return self.error or f"HTTP {self.status}"


@dataclass(frozen=True, slots=True)
class Next:
    """What is done next: `pause` seconds pass before it is tried again."""

    fate: Fate
    pause: float = 0.0


def judge(answer: Answer, attempts: int, jitter: float) -> Next:
    """Decide what follows an attempt.

    Args:
        answer: What came of it.
        attempts: How many there have been, this one included.
        jitter: From -1 to 1, at random.
    """
    status = answer.status
    if status is not None and 200 <= status < 300:
        return Next(Fate.DELIVERED)
    if status == HTTPStatus.GONE or attempts > len(PAUSES):
        return Next(Fate.DEAD)
    pause = PAUSES[attempts - 1] * (1 + JITTER * jitter)
    return Next(Fate.AGAIN, max(pause, answer.retry_after or 0.0))


def retry_after(header: str | None, now: float) -> float | None:
    """Read the header of this name, seconds or a date; None: it says nothing that can be used.

    Args:
        header: Its value.
        now: Unix time.
    """
    if header is None or len(header) > 64:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
