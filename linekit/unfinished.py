"""Keeps the incomplete message at the end of a stream of bytes until the rest comes. Pure."""

from __future__ import annotations


class Unfinished:
    """The beginning of a message whose rest has not come. Its length is in bytes."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._needed = 0

    def __len__(self) -> int:
        return len(self._held)

    def before(self, data: bytes) -> bytes:
        """Return the bytes held back, followed by `data`; return nothing, and hold back both, while
        they are fewer than `hold` said are needed."""
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
