"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        what: The subject that was looked at; several findings may share one.
        verdict: Whether it will work.
        detail: What was found; with anything but OK also what to do.
    """

    what: str
    verdict: Verdict
    detail: str


def ok(what: str, detail: str) -> Finding:
    """All is well."""
    return Finding(what, Verdict.OK, detail)


def warning(what: str, detail: str) -> Finding:
    """Calls can be taken, and something about them will be worse than it need be."""
    return Finding(what, Verdict.WARNING, detail)


def failed(what: str, detail: str) -> Finding:
    """Some or all calls cannot be taken."""
    return Finding(what, Verdict.FAILED, detail)
