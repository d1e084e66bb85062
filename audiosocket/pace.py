"""Whether a peer sends sound faster than anybody speaks. Pure: `now` is an argument."""

from __future__ import annotations

from typing import Final

_HEADROOM: Final = 1.25
"""A sound card's clock may be fast, by far less than this."""
_BURST_SECONDS: Final = 5.0
"""What may come at once after a hold-up, of the network's or of our own."""


class Pace:
    """Allows sound at the pace of speech, and what was held up to come at once."""

    def __init__(self, *, now: float) -> None:
        self._allowed = _BURST_SECONDS
        self._at = now
        self._seen = 0.0

    def keeps(self, spoken_seconds: float, *, now: float) -> bool:
        """Whether a peer that has sent so much sound in all, in seconds of it, is not too fast."""
        left = self._allowed + (now - self._at) * _HEADROOM - (spoken_seconds - self._seen)
        self._allowed = min(_BURST_SECONDS, left)
        self._at, self._seen = now, spoken_seconds
        return left >= 0
