"""Which faults are injected, and when: seeded. Pure."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

SETTLE_SECONDS = 10.0
"""After a fault: what goes wrong in this time still counts as its doing."""
_LEAST_QUIET_SECONDS = 8.0


class FaultKind(StrEnum):
    """What is done from outside."""

    AGENT_500 = "agent_500"
    AGENT_401 = "agent_401"
    AGENT_429 = "agent_429"
    AGENT_SLOW = "agent_slow"
    AGENT_KILLED = "agent_killed"
    AGENT_STOPPED = "agent_stopped"
    ARI_CUT = "ari_cut"
    LINE_GARBAGE = "line_garbage"
    LINE_FLOOD = "line_flood"
    HTTP_ABUSE = "http_abuse"
    WORKER_KILLED = "worker_killed"
    WORKER_STOPPED = "worker_stopped"
    LOG_STALLED = "log_stalled"
    ASTERISK_RESTARTED = "asterisk_restarted"


LENGTHS: dict[FaultKind, float] = {
    FaultKind.AGENT_500: 8.0,
    FaultKind.AGENT_401: 8.0,
    FaultKind.AGENT_429: 8.0,
    FaultKind.AGENT_SLOW: 10.0,
    FaultKind.AGENT_KILLED: 2.0,
    FaultKind.AGENT_STOPPED: 5.0,
    FaultKind.ARI_CUT: 10.0,
    FaultKind.LINE_GARBAGE: 5.0,
    FaultKind.LINE_FLOOD: 5.0,
    FaultKind.HTTP_ABUSE: 5.0,
    FaultKind.WORKER_KILLED: 3.0,
    FaultKind.WORKER_STOPPED: 6.0,
    FaultKind.LOG_STALLED: 15.0,
    FaultKind.ASTERISK_RESTARTED: 5.0,
}
"""How long each lasts, in seconds."""

_FIRST = frozenset({FaultKind.WORKER_KILLED, FaultKind.WORKER_STOPPED})
"""These begin a run: the worker after them then lives long enough to see whether it grows."""


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault to come. Seconds since the mix began."""

    kind: FaultKind
    at_s: float

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return LENGTHS[self.kind]


@dataclass(frozen=True, slots=True)
class Window:
    """A fault that was injected, with the time in which it may show. Monotonic seconds."""

    kind: str
    start: float
    end: float
    note: str = ""

    def overlaps(self, start: float, end: float) -> bool:
        """Whether the fault may have touched something that lasted from `start` to `end`."""
        return start <= self.end + SETTLE_SECONDS and end >= self.start


def schedule(
    seed: int, seconds: float, kinds: Sequence[FaultKind], *, quiet_seconds: float
) -> list[PlannedFault]:
    """Spread faults over a run of `seconds`; the first `quiet_seconds` stay free.

    Each kind comes once before any comes again, in a random order, with even pauses; those that end
    the worker come first, and once. Kinds for which there is no room are left out.
    """
    rng = random.Random(seed)
    # What follows the last fault may lie behind the end.
    room = seconds - quiet_seconds + SETTLE_SECONDS + _LEAST_QUIET_SECONDS
    chosen: list[FaultKind] = []
    used = 0.0
    first = [kind for kind in kinds if kind in _FIRST]
    others = [kind for kind in kinds if kind not in _FIRST]
    deck = rng.sample(first, len(first)) + rng.sample(others, len(others))
    while deck:
        fitting = _fitting(deck, room - used)
        chosen += fitting
        used += sum(map(_span, fitting))
        if len(fitting) < len(deck):
            break
        deck = rng.sample(others, len(others))
    pause = (room - used) / len(chosen) if chosen else 0.0
    planned: list[PlannedFault] = []
    at = quiet_seconds
    for kind in chosen:
        planned.append(PlannedFault(kind, round(at, 1)))
        at += _span(kind) + pause
    return planned


def is_quiet(windows: Collection[Window], start: float, end: float) -> bool:
    """Whether no fault can have touched what lasted from `start` to `end`."""
    return not any(window.overlaps(start, end) for window in windows)


def _span(kind: FaultKind) -> float:
    return LENGTHS[kind] + SETTLE_SECONDS + _LEAST_QUIET_SECONDS


def _fitting(deck: Sequence[FaultKind], room: float) -> list[FaultKind]:
    fitting: list[FaultKind] = []
    for kind in deck:
        if (room := room - _span(kind)) < 0:
            break
        fitting.append(kind)
    return fitting
