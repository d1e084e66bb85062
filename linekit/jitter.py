"""A buffer for live sound that comes unevenly and is taken evenly. Pure: no clock, no socket."""

from __future__ import annotations

from typing import Final

MOST_MS: Final = 160
"""What lies there beyond this has come in a burst, and is let go."""


class JitterBuffer:
    """Gives out what comes, a little later.

    Args:
        bytes_per_ms: Of the sound, whole samples.
        behind_ms: How much waits before it begins, so that a packet which is late makes no hole.
        patience: How often nothing may be there when it is taken until it counts as over, and
            begins anew.
    """

    def __init__(self, bytes_per_ms: int, *, behind_ms: int, patience: int = 0) -> None:
        self._begins_at = behind_ms * bytes_per_ms
        self._most = MOST_MS * bytes_per_ms
        self._patience = patience
        self._waiting = bytearray()
        self._missed = 0
        self._sounds = False

    def add(self, pcm: bytes) -> None:
        """Take what has come."""
        self._waiting += pcm
        if len(self._waiting) > self._most:
            del self._waiting[: len(self._waiting) - self._begins_at]

    @property
    def ready_bytes(self) -> int:
        """How much may be taken now."""
        ready = self._sounds or len(self._waiting) >= self._begins_at
        return len(self._waiting) if ready else 0

    def take(self, count: int) -> bytes:
        """Take so many bytes; fewer where there are no more, or where it has not begun."""
        if not self.ready_bytes:
            self._missed += 1
            if self._missed > self._patience:
                self._sounds = False
            return b""
        self._sounds, self._missed = True, 0
        taken = bytes(self._waiting[:count])
        del self._waiting[:count]
        if not self._waiting and not self._patience:
            self._sounds = False
        return taken
