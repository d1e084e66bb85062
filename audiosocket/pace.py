"""Whether a peer floods its line. Pure: `now` is an argument.

Some phones send two or three streams at once after a hold. That is for whoever listens to put
right; what ends a line is as much as would hold up all others.
"""

from __future__ import annotations

from typing import Final

_HEADROOM: Final = 10.0
"""So many streams at once: 500 packets a second."""
_BURST_SECONDS: Final = 30.0
"""What may come at once after a hold-up, of the network's or of our own."""


class Pace:
    """Allows sound at some times the pace of speech, and what was held up to come at once."""

    def __init__(self, *, now: float) -> None:
        self._allowed = _BURST_SECONDS
        self._at = now
        self._seen = 0.0

    def keeps(self, spoken_seconds: float, *, now: float) -> bool:
        """Whether a peer that has sent so much sound in all, in seconds of it, is no flood."""
        left = self._allowed + (now - self._at) * _HEADROOM - (spoken_seconds - self._seen)
        self._allowed = min(_BURST_SECONDS, left)
        self._at, self._seen = now, spoken_seconds
        return left >= 0
