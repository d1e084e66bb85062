"""Keeps what comes in while a soak runs: results, landings, faults, gaps. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchmarks.soak.gaps import GapBook
from benchmarks.soak.ledger import CallResult, Judged, Landing, judge, parse_landings
from benchmarks.soak.schedule import Window, is_quiet


class Tally:
    """All that is known of the calls so far."""

    def __init__(self) -> None:
        self.started = 0
        self.results: list[CallResult] = []
        self.landings: dict[str, Landing] = {}
        self.windows: list[Window] = []
        """The faults that are over, and the one that is under way."""
        self.seconds: list[tuple[float, GapBook]] = []
        """What the phones heard in each second, by the time at its end."""
        self._log_rest = ""

    @property
    def running(self) -> int:
        """Calls that have begun and not ended."""
        return self.started - len(self.results)

    def take(self, event: Mapping[str, Any]) -> None:
        """An event of the phones' process."""
        match event["event"]:
            case "ended":
                self.results.append(CallResult.from_json(event["result"]))
            case "second":
                self.seconds.append((event["at"], GapBook.from_json(event["gaps"])))
            case unknown:
                raise ValueError(f"not understood: {unknown}")

    def take_log(self, text: str) -> None:
        """The next piece of Asterisk's log, which may end in the middle of a line."""
        whole, _, self._log_rest = (self._log_rest + text).rpartition("\n")
        self.landings.update(parse_landings(whole))

    def judged(self) -> list[Judged]:
        """The fate of every call that has ended."""
        return judge(self.results, self.landings, self.windows)

    def gaps(self, since: float, until: float) -> GapBook:
        """Of the seconds that ended in a time."""
        return GapBook.sum(book for at, book in self.seconds if since < at <= until)

    def gaps_by_quiet(self, since: float, until: float) -> tuple[GapBook, GapBook]:
        """Of that time, those with no fault about, and those while there was one."""
        quiet, disturbed = GapBook(), GapBook()
        for at, book in self.seconds:
            if since < at <= until:
                (quiet if is_quiet(self.windows, at - 1, at) else disturbed).add(book)
        return quiet, disturbed

    def landings_by_kind(self) -> Counter[str]:
        """How many callers landed where, and with which status and reason."""
        return Counter(
            f"{landing.where} {landing.agent or landing.stasis} {landing.reason}".rstrip()
            for landing in self.landings.values()
        )
