"""How every call ended: what its phone says, and where it landed in the dialplan. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from benchmarks.soak.plan import Kind
from benchmarks.soak.schedule import FaultKind, Window, is_quiet

_LANDING = re.compile(
    r"landed=(?P<where>\w+) caller=(?P<caller>\w+) stasis=(?P<stasis>\w*) agent=(?P<agent>\w*)"
    r" reason=(?P<reason>\S*)"
)
_HUNG_UP = frozenset({Kind.PLACED, Kind.PLACED_BUSY, Kind.PLACED_UNANSWERED, Kind.VANISHES})
"""Calls whose end at the far side is no landing in the dialplan: those that we placed, and phones
that are gone."""
_FAILS_BY_PLAN = frozenset({Kind.AGENT_DROPS})


@dataclass(frozen=True, slots=True)
class CallResult:
    """A call as its phone saw it. Times are monotonic seconds, which all processes share."""

    number: int
    kind: Kind
    started_at: float
    ended_at: float
    answered: bool = False
    heard: bool = False
    """There was sound at the phone."""
    ended_by: str = ""
    """us, far or network; empty when there was no call at all."""
    stranded: str = ""
    """Why the caller must be taken for left alone."""
    failed: str = ""
    """What did not go as planned."""
    packets: int = 0
    lost: int = 0

    @property
    def name(self) -> str:
        """The caller's number."""
        return f"soak{self.number}"

    def to_json(self) -> dict[str, Any]:
        """For the pipe from the phones."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(**{**body, "kind": Kind(body["kind"])})


@dataclass(frozen=True, slots=True)
class Landing:
    """A caller who goes on in the dialplan."""

    where: str
    """human, transfer or bye."""
    stasis: str
    agent: str
    reason: str

    @property
    def is_failure(self) -> bool:
        """The agent's part did not end as it should."""
        return self.where == "human"


def parse_landings(text: str) -> list[tuple[str, Landing]]:
    """The landings in a piece of Asterisk's log, by caller."""
    return [
        (found["caller"], Landing(found["where"], found["stasis"], found["agent"], found["reason"]))
        for found in _LANDING.finditer(text)
        # The dialplan's own line about the step to come has the names, not yet the values.
        if "${" not in found[0]
    ]


class Fate(StrEnum):
    """What became of a call."""

    AS_PLANNED = "as planned"
    DISTURBED = "disturbed"
    """Not as planned, and a fault was under way."""
    FAILED = "failed"
    """Not as planned, with no fault about."""
    STRANDED = "stranded"


@dataclass(frozen=True, slots=True)
class Judged:
    """A call and what is thought of it."""

    result: CallResult
    landing: Landing | None
    fate: Fate
    why: str = ""


def judge(
    results: Sequence[CallResult], landings: Mapping[str, Landing], windows: Collection[Window]
) -> list[Judged]:
    """Decide the fate of every call."""
    return [_judge(result, landings.get(result.name), windows) for result in results]


def count_fates(judged: Sequence[Judged]) -> Counter[Fate]:
    """How many calls had which fate."""
    return Counter(call.fate for call in judged)


def _judge(result: CallResult, landing: Landing | None, windows: Collection[Window]) -> Judged:
    stranded = _stranded(result, landing, windows)
    if stranded:
        return Judged(result, landing, Fate.STRANDED, stranded)
    why = result.stranded or result.failed or _failure(result, landing)
    if not why:
        return Judged(result, landing, Fate.AS_PLANNED)
    quiet = is_quiet(windows, result.started_at, result.ended_at)
    return Judged(result, landing, Fate.FAILED if quiet else Fate.DISTURBED, why)


def _stranded(result: CallResult, landing: Landing | None, windows: Collection[Window]) -> str:
    """A caller is stranded who was left alone, or hung up on without the dialplan's doing."""
    lost_with_asterisk = any(
        window.kind == FaultKind.ASTERISK_RESTARTED
        and window.overlaps(result.started_at, result.ended_at)
        for window in windows
    )
    if result.stranded:
        # Before it was answered only the Asterisk that was killed knew of it.
        return "" if lost_with_asterisk and not result.answered else result.stranded
    if result.kind in _HUNG_UP or result.ended_by != "far" or landing is not None:
        return ""
    if not result.answered and not result.heard and result.failed:
        # Refused before it was in the dialplan at all.
        return ""
    return "" if lost_with_asterisk else "hung up on, and never seen in the dialplan"


def _failure(result: CallResult, landing: Landing | None) -> str:
    if landing is None or not landing.is_failure or result.kind in _FAILS_BY_PLAN:
        return ""
    return f"landed: stasis {landing.stasis}, agent {landing.agent}, {landing.reason}"
