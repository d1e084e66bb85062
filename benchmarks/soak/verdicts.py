"""Whether the goals are met: from what was counted and sampled. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import isfinite

from benchmarks.soak.fit import Growth
from benchmarks.soak.ledger import Fate, Judged

MOST_GROWTH_PERCENT_PER_HOUR = 1.0


class State(StrEnum):
    """What can be said of a goal."""

    HELD = "held"
    MISSED = "missed"
    OPEN = "open"
    """The run was too short to tell."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal and what was measured of it."""

    what: str
    goal: str
    measured: str
    state: State
    details: tuple[str, ...] = ()
    """One line for each thing that is wrong."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What there is while no call runs."""

    channels: int
    """In Asterisk, as are the bridges."""
    bridges: int
    calls: int
    """In the service, as are lines, tasks and files."""
    lines: int
    tasks: int
    fds: int
    conversations: int
    """Open at the agent."""

    def exceeds(self, before: Rest) -> dict[str, tuple[int, int]]:
        """What there is more of than before: before and now."""
        now, then = asdict(self), asdict(before)
        return {name: (then[name], now[name]) for name in now if now[name] > then[name]}


def give_verdicts(
    judged: Sequence[Judged], before: Rest, after: Rest, rss: Growth
) -> list[Verdict]:
    """One verdict for each goal."""
    return [
        _none_of(judged, Fate.STRANDED, "stranded callers"),
        _none_of(judged, Fate.FAILED, "calls that failed with no fault about"),
        _orphans(before, after),
        _growth(rss),
    ]


def _none_of(judged: Sequence[Judged], fate: Fate, what: str) -> Verdict:
    bad = [call for call in judged if call.fate is fate]
    details = tuple(f"{call.result.name} ({call.result.kind}): {call.why}" for call in bad)
    state = State.MISSED if bad else State.HELD if judged else State.OPEN
    return Verdict(what, "0", f"{len(bad)} of {len(judged)}", state, details)


def _orphans(before: Rest, after: Rest) -> Verdict:
    left = after.exceeds(before)
    details = tuple(f"{name}: {then} before, {now} after" for name, (then, now) in left.items())
    measured = ", ".join(f"{name} +{now - then}" for name, (then, now) in left.items()) or "0"
    return Verdict("orphans at rest", "0", measured, State.MISSED if left else State.HELD, details)


def _growth(rss: Growth) -> Verdict:
    what, goal = "RSS growth after warm-up", f"under {MOST_GROWTH_PERCENT_PER_HOUR:g} % an hour"
    if not isfinite(rss.error_percent_per_hour):
        return Verdict(what, goal, "too few samples", State.OPEN)
    error = 2 * rss.error_percent_per_hour
    measured = f"{rss.percent_per_hour:+.2f} ± {error:.2f} % an hour in {rss.hours * 60:.0f} min"
    if rss.highest < MOST_GROWTH_PERCENT_PER_HOUR:
        return Verdict(what, goal, measured, State.HELD)
    # Within less than an hour's allowance it may yet level off; beyond it, it has not.
    if rss.seen_percent > MOST_GROWTH_PERCENT_PER_HOUR:
        return Verdict(what, goal, measured, State.MISSED, (measured,))
    return Verdict(what, goal, measured, State.OPEN)
