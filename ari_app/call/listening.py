"""Both sides of a call for a supervisor who listens, in stereo and in real time."""

from __future__ import annotations

from typing import Final

from ari_app.audio.formats import SAMPLE_BYTES
from linekit.jitter import JitterBuffer

_BEHIND_MS: Final = 80
"""How far listeners are behind: more than is taken at once, or every late packet makes a gap."""


class Ear:
    """Gathers both sides of a call: caller left, agent right.

    Args:
        rate_hz: The rate of the line's 16-bit PCM.

    Attributes:
        over: The call's sound has ended; nothing more will come.
    """

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.over = False
        self._bytes_per_ms = rate_hz * SAMPLE_BYTES // 1000
        self._caller = JitterBuffer(self._bytes_per_ms, behind_ms=_BEHIND_MS)
        self._agent = JitterBuffer(self._bytes_per_ms, behind_ms=_BEHIND_MS)

    def hear_caller(self, pcm: bytes) -> None:
        """Add sound of the caller's."""
        self._caller.add(pcm)

    def hear_agent(self, pcm: bytes) -> None:
        """Add sound that the caller hears."""
        self._agent.add(pcm)

    def take(self, ms: int) -> bytes:
        """Return the next `ms` milliseconds as 16-bit stereo PCM; to be called that often."""
        import numpy as np

        count = ms * self._bytes_per_ms
        sides = [
            np.frombuffer(side.take(count).ljust(count, b"\0"), "<i2")
            for side in (self._caller, self._agent)
        ]
        return np.column_stack(sides).tobytes()
