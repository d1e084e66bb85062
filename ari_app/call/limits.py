"""How many calls may begin in a second. Pure."""

from __future__ import annotations


class TokenBucket:
    """Lets through so many a second on average, and a burst after a pause.

    Args:
        per_second: The rate; 0 lets everything through.
        burst: How many may come at once; at least 1.

    Raises:
        ValueError: The rate is negative, or the burst below 1.
    """

    def __init__(self, per_second: float, burst: float = 1.0) -> None:
        if per_second < 0 or burst < 1:
            raise ValueError("the rate must not be negative, the burst at least 1")
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._at: float | None = None

    def wait(self, now: float) -> float:
        """Seconds until one may pass; 0 when one may pass now."""
        if not self._per_second:
            return 0.0
        self._fill(now)
        return max(0.0, (1.0 - self._tokens) / self._per_second)

    def take(self, now: float) -> bool:
        """Let one pass, if it may."""
        if self._per_second:
            self._fill(now)
            if self._tokens < 1.0 - 1e-9:
                return False
            self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def _fill(self, now: float) -> None:
        if self._at is not None:
            gained = max(0.0, now - self._at) * self._per_second
            self._tokens = min(self._burst, self._tokens + gained)
        self._at = now if self._at is None else max(self._at, now)
