"""A buffer for live sound that comes unevenly and is taken evenly. Pure: no clock, no socket."""

from __future__ import annotations

from typing import Final

MOST_MS: Final = 160
"""The most that is kept. What goes beyond it has come in a burst, and is dropped."""


class JitterBuffer:
    """Delays live sound a little, so that a packet which comes late leaves no gap.

    Args:
        bytes_per_ms: Bytes of a millisecond, whole samples.
        behind_ms: How much has to be there before the first of it is given out.
        patience: How often `take` may find nothing before the sound counts as interrupted; then it
            waits for `behind_ms` again.
    """

    def __init__(self, bytes_per_ms: int, *, behind_ms: int, patience: int = 0) -> None:
        self._begins_at = behind_ms * bytes_per_ms
        self._most = MOST_MS * bytes_per_ms
        self._patience = patience
        self._waiting = bytearray()
        self._missed = 0
        self._sounds = False

    def add(self, pcm: bytes) -> None:
        """Add sound that has come."""
        self._waiting += pcm
        if len(self._waiting) > self._most:
            del self._waiting[: len(self._waiting) - self._begins_at]

    @property
    def ready_bytes(self) -> int:
        """How many bytes `take` would give now."""
        ready = self._sounds or len(self._waiting) >= self._begins_at
        return len(self._waiting) if ready else 0

    def take(self, count: int) -> bytes:
        """Return up to `count` bytes; none before enough is there to begin."""
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
