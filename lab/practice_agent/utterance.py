"""One spoken response: when its chunks leave, and how much of it has been heard. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lab.practice_agent.formats import Chunk


@dataclass(frozen=True, slots=True)
class DueChunk:
    """A chunk whose time has come."""

    payload: bytes
    is_first: bool
    is_final: bool


class Utterance:
    """A response on its way to the caller.

    Chunks leave ``speed`` times faster than real time, reckoned from ``started_at``. The other
    side plays them in real time from ``plays_from``, which is later than ``started_at`` while an
    earlier response is still playing. Nobody says how far it has got, so this is an estimate, as
    it is in the real service.
    """

    def __init__(
        self,
        text: str,
        response_id: str,
        event_id: int,
        chunks: tuple[Chunk, ...],
        *,
        duration_s: float,
        started_at: float,
        plays_from: float,
        speed: float,
    ) -> None:
        self.text = text
        self.response_id = response_id
        self.event_id = event_id
        self.ends_at = plays_from + duration_s
        self._chunks = chunks
        self._duration_s = duration_s
        self._started_at = started_at
        self._plays_from = plays_from
        self._speed = speed
        self._next = 0

    @property
    def next_due_at(self) -> float | None:
        """When the next chunk leaves; None when all have left."""
        if self._next == len(self._chunks):
            return None
        return self._started_at + self._chunks[self._next].starts_at_s / self._speed

    def take_due(self, now: float) -> list[DueChunk]:
        """Return the chunks to send by ``now``; each is returned once."""
        due: list[DueChunk] = []
        while (at := self.next_due_at) is not None and at <= now:
            chunk = self._chunks[self._next]
            self._next += 1
            is_final = self._next == len(self._chunks)
            due.append(DueChunk(chunk.payload, is_first=self._next == 1, is_final=is_final))
        return due

    def heard(self, now: float) -> str:
        """Return the words that have been played by ``now``, with ``...`` when some are missing."""
        share = (now - self._plays_from) / self._duration_s if self._duration_s else 1.0
        words = self.text.split()
        count = int(len(words) * max(0.0, share))
        if count >= len(words):
            return self.text
        return " ".join(words[:count]) + "..." if count else ""
