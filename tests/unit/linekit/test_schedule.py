from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linekit.clock import MAX_CATCH_UP, Due, Schedule


def parts(due: Due) -> tuple[int, int, float]:
    return (due.frames, due.skipped, due.late_seconds)


def test_punctual_ticks() -> None:
    schedule = Schedule(100.0, 0.02)
    for n in range(1, 1000):
        assert schedule.deadline == pytest.approx(100.0 + n * 0.02)
        assert parts(schedule.advance(schedule.deadline)) == (1, 0, 0.0)


def test_late_ticks_do_not_drift() -> None:
    schedule = Schedule(0.0, 0.02)
    for _ in range(5000):
        schedule.advance(schedule.deadline + 0.015)
    assert schedule.deadline == pytest.approx(5001 * 0.02)


@pytest.mark.parametrize(
    ("late", "frames", "skipped"),
    [
        (0.0, 1, 0),
        (0.019, 1, 0),
        (0.021, 2, 0),
        (0.059, 3, 0),
        (0.061, 1, 3),
        (1.001, 1, 50),
    ],
)
def test_a_stall_is_made_good_or_skipped(late: float, frames: int, skipped: int) -> None:
    schedule = Schedule(0.0, 0.02)
    due = schedule.advance(0.02 + late)
    assert (due.frames, due.skipped) == (frames, skipped)
    assert due.late_seconds == pytest.approx(late)
    assert 0.02 + late < schedule.deadline <= 0.02 + late + 0.02


def test_a_timer_may_be_a_little_early() -> None:
    schedule = Schedule(0.0, 0.02)
    assert parts(schedule.advance(0.0185)) == (1, 0, 0.0)
    assert schedule.deadline == 0.04
    assert parts(schedule.advance(0.03)) == (0, 0, 0.0)
    assert schedule.deadline == 0.04


@given(st.lists(st.floats(0.0, 0.3), max_size=100))
def test_frames_and_skips_add_up_to_the_time_passed(waits: list[float]) -> None:
    schedule = Schedule(50.0, 0.02)
    now, settled = 50.0, 0
    for wait in waits:
        now += wait
        due = schedule.advance(now)
        assert 0 <= due.frames <= MAX_CATCH_UP
        settled += due.frames + due.skipped
        assert schedule.deadline == pytest.approx(50.0 + (settled + 1) * 0.02)
    assert abs((now - 50.0) / 0.02 - settled) < 1.01


def test_a_senseless_period() -> None:
    with pytest.raises(ValueError, match=r"a period of 0\.0 s"):
        Schedule(0.0, 0.0)
