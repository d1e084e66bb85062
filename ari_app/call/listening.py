"""Both sides of a call for somebody who listens: in time, and never at the call's cost."""

from __future__ import annotations

from typing import Final

from ari_app.audio.formats import SAMPLE_BYTES
from linekit.jitter import JitterBuffer

_BEHIND_MS: Final = 80
"""More than is taken at once, for what is taken short has a hole behind it."""


class Ear:
    """Hears a call: caller left, agent right.

    Args:
        rate_hz: Of the line's 16-bit PCM.

    Attributes:
        over: The sound has ended: no more will come.
    """

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.over = False
        self._bytes_per_ms = rate_hz * SAMPLE_BYTES // 1000
        self._caller = JitterBuffer(self._bytes_per_ms, behind_ms=_BEHIND_MS)
        self._agent = JitterBuffer(self._bytes_per_ms, behind_ms=_BEHIND_MS)

    def hear_caller(self, pcm: bytes) -> None:
        """Take what the caller says."""
        self._caller.add(pcm)

    def hear_agent(self, pcm: bytes) -> None:
        """Take what the caller is played."""
        self._agent.add(pcm)

    def take(self, ms: int) -> bytes:
        """Take the next `ms` as stereo PCM, 16 bits; to be called that often."""
        import numpy as np

        count = ms * self._bytes_per_ms
        sides = [
            np.frombuffer(side.take(count).ljust(count, b"\0"), "<i2")
            for side in (self._caller, self._agent)
        ]
        return np.column_stack(sides).tobytes()
