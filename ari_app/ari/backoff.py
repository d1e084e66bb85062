"""How long to wait before the next attempt to connect. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with jitter.

    The delay before attempt n (0 is the first repetition) lies between half of
    `first_seconds * 2**n` and all of it, and never above `most_seconds`: many clients of one
    Asterisk do not come back in step.
    """

    first_seconds: float = 0.2
    most_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.first_seconds <= self.most_seconds:
            raise ValueError("0 < first_seconds <= most_seconds is needed")

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait.

        Args:
            attempt: How many attempts have failed since the last good connection, from 0.
            chance: A random number in [0, 1).
        """
        # Beyond 2**64 the power says nothing new, and far beyond it overflows.
        ceiling = min(self.most_seconds, self.first_seconds * 2.0 ** min(attempt, 64))
        return ceiling * (0.5 + chance / 2)
