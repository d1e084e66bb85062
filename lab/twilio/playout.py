"""What a stream has been sent and has not yet played: Twilio's buffer of one call. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

BYTES_PER_MS: Final = 8
FRAME_BYTES: Final = 160
FRAME_MS: Final = 20
SILENCE: Final = b"\xff"
MAX_MS: Final = 600_000
"""More is not taken: warning 31931."""


@dataclass(frozen=True, slots=True)
class Told:
    """A message of the server's. `size` is bytes of sound, `name` a mark's."""

    at: float
    kind: Literal["media", "mark", "clear"]
    size: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """The buffer ran empty and was filled again `ms` later: the caller heard a hole, or a pause."""

    at: float
    ms: float


@dataclass(frozen=True, slots=True)
class Played:
    """A mark that has come back. `cleared`: by a `clear`, so its sound was not played."""

    at: float
    name: str
    cleared: bool


class Playout:
    """Plays 160 bytes each 20 ms, whatever the size of what comes.

    Attributes:
        told: What the server has said, in order.
        played: The marks that came back, in order.
        gaps: Where the sound stopped and went on later, without a `clear` in between.
        heard_until: When the last byte of the server's was played.
    """

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.played: list[Played] = []
        self.gaps: list[Gap] = []
        self.heard_until: float | None = None
        self._buffer = bytearray()
        self._taken = 0
        self._marks: deque[tuple[int, str]] = deque()
        self._empty_ms: float | None = None

    @property
    def waiting_ms(self) -> float:
        """How much is still to be played."""
        return len(self._buffer) / BYTES_PER_MS

    @property
    def marks(self) -> int:
        """How many marks have not come back."""
        return len(self._marks)

    def media(self, payload: bytes, now: float) -> bool:
        """Take sound; False when ten minutes wait already."""
        if self.waiting_ms + len(payload) / BYTES_PER_MS > MAX_MS:
            return False
        self.told.append(Told(now, "media", len(payload)))
        self._buffer += payload
        return True

    def mark(self, name: str, now: float) -> list[str]:
        """Take a mark; the marks that are due at once, for nothing is to be played before them."""
        self.told.append(Told(now, "mark", name=name))
        self._marks.append((self._taken + len(self._buffer), name))
        return self._due(now)

    def clear(self, now: float) -> list[str]:
        """Forget the sound; all marks that waited are due."""
        self.told.append(Told(now, "clear"))
        self._buffer.clear()
        self._empty_ms = None
        names = [name for _, name in self._marks]
        self._marks.clear()
        self.played += (Played(now, name, cleared=True) for name in names)
        return names

    def frame(self, now: float) -> tuple[bytes, list[str]]:
        """Play the next 20 ms; them, filled up with silence, and the marks of what was played."""
        names = self._due(now)
        piece = bytes(self._buffer[:FRAME_BYTES])
        del self._buffer[:FRAME_BYTES]
        if piece:
            if self._empty_ms:
                self.gaps.append(Gap(now - self._empty_ms / 1000, self._empty_ms))
            self._empty_ms = (FRAME_BYTES - len(piece)) / BYTES_PER_MS
            self._taken += len(piece)
            self.heard_until = now + len(piece) / BYTES_PER_MS / 1000
        elif self._empty_ms is not None:
            self._empty_ms += FRAME_MS
        return piece.ljust(FRAME_BYTES, SILENCE), names

    def _due(self, now: float) -> list[str]:
        names: list[str] = []
        while self._marks and self._marks[0][0] <= self._taken:
            names.append(self._marks.popleft()[1])
        self.played += (Played(now, name, cleared=False) for name in names)
        return names
