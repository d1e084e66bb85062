"""How far apart packets came, for many calls at once. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Self


class GapBook:
    """A histogram of gaps, in whole ms. Books can be added up."""

    def __init__(self, counts: Mapping[int, int] | None = None, longest_ms: float = 0.0) -> None:
        self.counts: Counter[int] = Counter(counts or {})
        self.longest_ms = longest_ms

    def note(self, gap_ms: float) -> None:
        """Count a gap."""
        self.counts[round(gap_ms)] += 1
        self.longest_ms = max(self.longest_ms, gap_ms)

    def add(self, other: GapBook) -> None:
        """Count all of another book's."""
        self.counts.update(other.counts)
        self.longest_ms = max(self.longest_ms, other.longest_ms)

    @property
    def packets(self) -> int:
        """How many gaps there are."""
        return self.counts.total()

    def percentile(self, percent: float) -> int:
        """The ms that so many percent of the gaps do not pass; 0 without any."""
        wanted = self.packets * percent / 100
        seen = 0
        for gap_ms in sorted(self.counts):
            seen += self.counts[gap_ms]
            if seen >= wanted:
                return gap_ms
        return 0

    def to_json(self) -> dict[str, object]:
        """For the pipe from the phones."""
        counts = {str(gap_ms): count for gap_ms, count in self.counts.items()}
        return {"counts": counts, "longest_ms": self.longest_ms}

    @classmethod
    def from_json(cls, body: Mapping[str, Mapping[str, int] | float]) -> Self:
        """What `to_json` gave."""
        counts, longest_ms = body["counts"], body["longest_ms"]
        assert isinstance(counts, Mapping)
        assert not isinstance(longest_ms, Mapping)
        return cls({int(gap_ms): count for gap_ms, count in counts.items()}, longest_ms)

    @classmethod
    def sum(cls, books: Iterable[GapBook]) -> Self:
        """All of them together."""
        total = cls()
        for book in books:
            total.add(book)
        return total
