"""Bounds for what a call keeps of others' words: entries, bytes, whole words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_LINE_BYTES = 8 * 1024
"""Of one thing that was said: ten minutes of speech."""
MAX_SAID_BYTES = 256 * 1024
"""Of all that is kept of what was said in a call."""

# What tells how much is missing.
_NOTE_BYTES = 48
# A word is not longer; where there is no space, the cut is between two characters.
_WORD_CHARACTERS = 64


def shortened(text: str, max_bytes: int = MAX_LINE_BYTES) -> str:
    """Shorten `text` to so many bytes of UTF-8: cut after a word, with how much is missing."""
    if 4 * len(text) <= max_bytes or _size(text, max_bytes) <= max_bytes:
        return text
    room = max(0, max_bytes - _NOTE_BYTES)
    head = text[:room].encode(errors="replace")[:room].decode(errors="ignore")
    words, space, last = head.rpartition(" ")
    if space and len(last) <= _WORD_CHARACTERS:
        head = words
    head = head.rstrip()
    return f"{head} … ({len(text) - len(head)} more characters)"


def _size(text: str, enough: int) -> int:
    """Return the bytes of a text, or at least more than `enough`."""
    return len(text) if len(text) > enough else len(text.encode(errors="replace"))


class Bounded(Generic[T]):
    """The newest entries of a list. The oldest are forgotten, and counted.

    Args:
        max_entries: So many are kept.
        max_bytes: Of so many bytes in all; the newest is always kept.

    Attributes:
        forgotten: How many there were before the first that is kept.
    """

    def __init__(self, max_entries: int, max_bytes: int = MAX_SAID_BYTES) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0
        # Each call has several, mostly short: an empty deque takes 760 bytes.
        self._kept: list[tuple[T, int]] = []
        self.forgotten = 0

    def append(self, entry: T, size: int = 0) -> None:
        """Add an entry of so many bytes."""
        self._kept.append((entry, size))
        self._bytes += size
        while len(self._kept) > self._max_entries or (
            self._bytes > self._max_bytes and len(self._kept) > 1
        ):
            self._bytes -= self._kept.pop(0)[1]
            self.forgotten += 1

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[T]:
        return (entry for entry, _ in self._kept)

    def __getitem__(self, index: int) -> T:
        return self._kept[index][0]
