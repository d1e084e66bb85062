from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from benchmarks.soak.fit import Growth
from benchmarks.soak.ledger import CallResult, Fate, Judged
from benchmarks.soak.plan import Kind
from benchmarks.soak.verdicts import Rest, State, Verdict, give_verdicts

REST = Rest(channels=0, bridges=0, calls=0, lines=0, tasks=12, fds=30, conversations=0)
FLAT = Growth(0.1, 0.2, 100.0, 300, 1.0)


def judged(fate: Fate = Fate.AS_PLANNED, why: str = "") -> Judged:
    return Judged(CallResult(7, Kind.TALK, 0.0, 9.0), None, fate, why)


def verdicts(
    *calls: Judged, after: Rest = REST, rss: Growth = FLAT
) -> tuple[Verdict, Verdict, Verdict, Verdict]:
    stranded, failed, orphans, memory = give_verdicts(calls, REST, after, rss)
    return stranded, failed, orphans, memory


def test_a_run_in_which_all_is_well() -> None:
    assert {verdict.state for verdict in verdicts(judged(), judged(Fate.DISTURBED, "x"))} == {
        State.HELD
    }


def test_no_calls_prove_nothing() -> None:
    stranded, failed, _, _ = verdicts()
    assert (stranded.state, failed.state) == (State.OPEN, State.OPEN)


def test_one_stranded_caller_is_one_too_many_and_is_named() -> None:
    stranded, failed, _, _ = verdicts(judged(), judged(Fate.STRANDED, "nothing to be heard"))
    assert (stranded.state, failed.state) == (State.MISSED, State.HELD)
    assert stranded.measured == "1 of 2"
    assert stranded.details == ("soak7 (talk): nothing to be heard",)


def test_a_failure_without_a_fault() -> None:
    _, failed, _, _ = verdicts(judged(Fate.FAILED, "no answer within 10 s"))
    assert failed.state is State.MISSED


@pytest.mark.parametrize(
    "name", ["channels", "bridges", "calls", "lines", "tasks", "fds", "conversations"]
)
def test_anything_that_is_left_is_an_orphan(name: str) -> None:
    before = getattr(REST, name)
    _, _, orphans, _ = verdicts(judged(), after=replace(REST, **{name: before + 2}))
    assert orphans.state is State.MISSED
    assert orphans.details == (f"{name}: {before} before, {before + 2} after",)


def test_less_than_before_is_no_orphan() -> None:
    _, _, orphans, _ = verdicts(judged(), after=replace(REST, fds=20, tasks=3))
    assert orphans.state is State.HELD


@pytest.mark.parametrize(
    ("percent", "error", "hours", "state"),
    [
        (0.1, 0.2, 1.0, State.HELD),
        (-5.0, 0.5, 0.1, State.HELD),
        (0.9, 0.2, 1.0, State.OPEN),
        (3.0, 2.0, 1.0, State.OPEN),
        (3.0, 0.5, 1.0, State.MISSED),
        (7.0, 1.0, 0.1, State.OPEN),
        (7.0, 1.0, 0.5, State.MISSED),
        (500.0, 50.0, 0.05, State.MISSED),
        (0.0, inf, 0.0, State.OPEN),
    ],
)
def test_growth_is_judged_with_its_error_and_by_what_was_seen(
    percent: float, error: float, hours: float, state: State
) -> None:
    _, _, _, memory = verdicts(judged(), rss=Growth(percent, error, 100.0, 300, hours))
    assert memory.state is state
