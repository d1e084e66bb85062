"""Both sides of a call for somebody who listens: in time, and never at the call's cost."""

from __future__ import annotations

from typing import Final

import numpy as np

from ari_app.audio.formats import SAMPLE_BYTES

_BEHIND_MS: Final = 40
"""A side that begins to sound waits so long, so that a packet which is late makes no hole."""
_MOST_MS: Final = 160
"""What lies there beyond this has come in a burst, and is let go."""


class _Side:
    def __init__(self, bytes_per_ms: int) -> None:
        self._begins_at = _BEHIND_MS * bytes_per_ms
        self._most = _MOST_MS * bytes_per_ms
        self._waiting = bytearray()
        self._sounds = False

    def add(self, pcm: bytes) -> None:
        self._waiting += pcm
        if len(self._waiting) > self._most:
            del self._waiting[: len(self._waiting) - self._begins_at]

    def take(self, count: int) -> bytes:
        """Take so many bytes; what is missing is silence."""
        if not self._sounds:
            if len(self._waiting) < self._begins_at:
                return bytes(count)
            self._sounds = True
        taken = bytes(self._waiting[:count])
        del self._waiting[:count]
        self._sounds = bool(self._waiting)
        return taken.ljust(count, b"\0")


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
        self._caller = _Side(self._bytes_per_ms)
        self._agent = _Side(self._bytes_per_ms)

    def hear_caller(self, pcm: bytes) -> None:
        """Take what the caller says."""
        self._caller.add(pcm)

    def hear_agent(self, pcm: bytes) -> None:
        """Take what the caller is played."""
        self._agent.add(pcm)

    def take(self, ms: int) -> bytes:
        """Take the next `ms` as stereo PCM, 16 bits; to be called that often."""
        count = ms * self._bytes_per_ms
        sides = [np.frombuffer(side.take(count), "<i2") for side in (self._caller, self._agent)]
        return np.column_stack(sides).tobytes()
