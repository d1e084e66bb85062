"""The findings of checks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Verdict(StrEnum):
    """The verdict of a check."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILED = "failed"


class Use(StrEnum):
    """The uses of the service."""

    CALLS_IN = "Calls in"
    CALLS_OUT = "Calls out"
    AMD = "Answering machine detection"


EVERYTHING: Final = frozenset(Use)
CALLS_IN: Final = frozenset({Use.CALLS_IN})
CALLS_OUT: Final = frozenset({Use.CALLS_OUT, Use.AMD})
AMD: Final = frozenset({Use.AMD})
NOTHING: Final[frozenset[Use]] = frozenset()

_STATES: Final = {
    Verdict.OK: "yes",
    Verdict.NOTE: "not set up",
    Verdict.WARNING: "not sure",
    Verdict.FAILED: "no",
}
_WORSE: Final = tuple(_STATES)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        what: The subject that was looked at; several findings may share one.
        verdict: Whether it will work.
        detail: What was found; with anything but OK also what to do.
        uses: What the verdict holds for; a finding that only makes something worse has none.
        about: The thing that it is about, where several checks may find the same.
        may_pass: It may be over in a minute, so it is no reason not to start.
    """

    what: str
    verdict: Verdict
    detail: str
    uses: frozenset[Use] = NOTHING
    about: str = ""
    may_pass: bool = False


def ok(what: str, detail: str) -> Finding:
    """Report that all is well."""
    return Finding(what, Verdict.OK, detail)


def note(what: str, detail: str, *, uses: frozenset[Use] = NOTHING, about: str = "") -> Finding:
    """Report what nobody asked for and is not set up, or what could be better than it need be."""
    return Finding(what, Verdict.NOTE, detail, uses, about)


def warning(what: str, detail: str, *, uses: frozenset[Use] = NOTHING, about: str = "") -> Finding:
    """Report that calls can be taken, and something about them will be worse than it need be."""
    return Finding(what, Verdict.WARNING, detail, uses, about)


def failed(
    what: str,
    detail: str,
    *,
    uses: frozenset[Use] = EVERYTHING,
    about: str = "",
    may_pass: bool = False,
) -> Finding:
    """Report that some or all calls cannot be taken."""
    return Finding(what, Verdict.FAILED, detail, uses, about, may_pass)


def told_once(findings: Iterable[Finding], told: set[str]) -> list[Finding]:
    """Leave out what was told before.

    Args:
        findings: In the order in which they are told.
        told: What they were about so far; what they are about is added.
    """
    kept = []
    for finding in findings:
        if finding.about and finding.about in told:
            continue
        told.add(finding.about)
        kept.append(finding)
    return kept


def what_works(findings: Iterable[Finding]) -> str:
    """Say what can be used, in one line: `Calls in: yes. Calls out: no, see Agent. ...`."""
    worst = dict.fromkeys(Use, Finding("", Verdict.OK, ""))
    for finding in findings:
        for use in finding.uses:
            if _WORSE.index(finding.verdict) > _WORSE.index(worst[use].verdict):
                worst[use] = finding
    return " ".join(
        f"{use}: {_STATES[finding.verdict]}{f', see {finding.what}' if finding.what else ''}."
        for use, finding in worst.items()
    )
