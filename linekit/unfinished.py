"""The end of a stream of bytes that is no whole message yet. Pure."""

from __future__ import annotations


class Unfinished:
    """Holds the beginning of a message back until the rest of it comes. Its length is in bytes."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._needed = 0

    def __len__(self) -> int:
        return len(self._held)

    def before(self, data: bytes) -> bytes:
        """Return what was held back with `data` behind it, and hold back nothing; while that is too
        little, hold back both and return nothing."""
        held = self._held
        if not held:
            return data
        held += data
        if len(held) < self._needed:
            return b""
        whole = bytes(held)
        held.clear()
        return whole

    def hold(self, data: bytes, needed: int) -> None:
        """Hold these bytes back until there are `needed` of them."""
        self._held += data
        self._needed = needed
