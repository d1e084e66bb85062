from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.soak.schedule import (
    SETTLE_SECONDS,
    FaultKind,
    Window,
    is_quiet,
    schedule,
)

ALL = tuple(FaultKind)


@given(st.integers(), st.floats(1, 7200), st.floats(0, 60), st.sets(st.sampled_from(ALL)))
def test_faults_fit_into_the_run_and_leave_one_another_time(
    seed: int, seconds: float, quiet: float, kinds: set[FaultKind]
) -> None:
    planned = schedule(seed, seconds, sorted(kinds), quiet_seconds=quiet)
    assert all(fault.at_s >= quiet - 0.1 for fault in planned)
    assert all(fault.at_s + fault.seconds <= seconds + 0.1 for fault in planned)
    for fault, after in pairwise(planned):
        assert after.at_s >= fault.at_s + fault.seconds + SETTLE_SECONDS


def test_each_kind_comes_once_before_any_comes_again() -> None:
    planned = schedule(1, 3600, ALL, quiet_seconds=30)
    kinds = [fault.kind for fault in planned]
    assert set(kinds[: len(ALL)]) == set(ALL)
    assert len(kinds) > 2 * len(ALL)
    assert kinds == [fault.kind for fault in schedule(1, 3600, ALL, quiet_seconds=30)]


def test_the_worker_is_ended_early_and_once() -> None:
    kinds = [fault.kind for fault in schedule(2, 3600, ALL, quiet_seconds=30)]
    ending = {FaultKind.WORKER_KILLED, FaultKind.WORKER_STOPPED}
    assert set(kinds[:2]) == ending
    assert not ending & set(kinds[2:])


@pytest.mark.parametrize(
    ("start", "end", "quiet"),
    [(0, 99, True), (0, 100, False), (103, 104, False), (110, 111, False), (116, 120, True)],
)
def test_what_a_fault_may_have_touched(start: float, end: float, quiet: bool) -> None:
    assert SETTLE_SECONDS == 10
    assert is_quiet([Window("ari_cut", 100, 105)], start, end) is quiet
