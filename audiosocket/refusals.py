"""Says how much of what was refused to log. Pure: `now` is an argument."""

from __future__ import annotations

from collections import Counter
from typing import Final

WINDOW_SECONDS: Final = 1.0
_TOLD_ONE_BY_ONE: Final = 5


class RefusalLog:
    """The first few of each second are told one by one, all others in one line when it is over.

    So a person who looks for one mistake sees it, and a flood writes six lines a second.
    """

    def __init__(self, told_one_by_one: int = _TOLD_ONE_BY_ONE) -> None:
        self._told_one_by_one = told_one_by_one
        self._told = 0
        self._untold: Counter[str] = Counter()
        self._window_ends = float("-inf")

    def add(self, reason: str, *, now: float) -> bool:
        """One more. Whether to tell of it by itself; if not, it is told with others later."""
        if now >= self._window_ends and not self._untold:
            self._window_ends, self._told = now + WINDOW_SECONDS, 0
        if self._told < self._told_one_by_one:
            self._told += 1
            return True
        self._untold[reason] += 1
        return False

    @property
    def summary_at(self) -> float | None:
        """When to tell of those that were not told one by one; None when there are none."""
        return self._window_ends if self._untold else None

    def take_untold(self, *, now: float) -> dict[str, int]:
        """Those that were not told yet, by reason. The second that begins is told as a whole."""
        untold, self._untold = dict(self._untold), Counter()
        self._window_ends, self._told = now + WINDOW_SECONDS, self._told_one_by_one
        return untold
