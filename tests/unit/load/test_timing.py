from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.load.timing import HeardReport, drift_ppm, lateness_ms, missing_frames, summarise

FRAME_NS = 20_000_000


def even(frames: int, *, start_ns: int = 1_700_000_000_000_000_000) -> np.ndarray:
    return start_ns + np.arange(frames, dtype=np.int64) * FRAME_NS


def test_an_even_line_is_perfect() -> None:
    report = summarise([even(500), even(500, start_ns=7)])

    assert (report.lines, report.frames) == (2, 1000)
    assert report.gaps.p50_ms == report.gaps.max_ms == 20.0
    assert report.lateness.max_ms == 0.0
    assert (report.missing_frames, report.surplus_frames, report.drift_ppm) == (0, 0, 0.0)
    assert report.seconds == 9.98


def test_one_late_frame_shows_in_gaps_and_lateness_and_is_not_missing() -> None:
    times = even(500)
    times[250] += 9_000_000

    report = summarise([times])
    assert report.gaps.max_ms == 29.0
    assert report.lateness.max_ms == 9.0
    assert report.missing_frames == 0


def test_a_frame_that_never_came_is_counted() -> None:
    report = summarise([np.delete(even(500), 250), even(500)])

    assert report.missing_frames == 1
    assert report.surplus_frames == 0
    assert report.gaps.max_ms == 40.0


def test_a_frame_too_many_is_counted() -> None:
    times = even(500)
    times[250:] -= FRAME_NS

    assert summarise([times]).surplus_frames == 1


def test_a_late_frame_at_the_edge_is_not_missing() -> None:
    times = even(500)
    times[-1] += 15_000_000

    assert missing_frames(times / 1e6) == 0


@pytest.mark.parametrize("ppm", [-400.0, 50.0, 300.0])
def test_the_pace_is_measured(ppm: float) -> None:
    times_ms = np.arange(1000, dtype=np.float64) * (20 * (1 + ppm * 1e-6))

    assert drift_ppm(times_ms) == pytest.approx(ppm, abs=0.1)


def test_the_worst_drift_counts_whatever_its_sign() -> None:
    slow = (np.arange(1000) * 20e6 * (1 - 300e-6)).astype(np.int64)

    assert summarise([even(1000), slow]).drift_ppm == pytest.approx(-300, abs=1)


def test_nothing_heard_is_no_figure() -> None:
    assert summarise([]) == summarise([np.array([1], np.int64)]) == HeardReport()


def test_too_few_frames_have_no_drift() -> None:
    assert drift_ppm(np.arange(10, dtype=np.float64) * 21) == 0.0


@given(st.lists(st.integers(0, 15_000_000), min_size=2, max_size=200))
def test_lateness_is_never_negative_and_zero_for_the_earliest(late_ns: list[int]) -> None:
    times_ms = (even(len(late_ns), start_ns=0) + np.array(late_ns)) / 1e6

    late = lateness_ms(times_ms)
    assert late.min() == 0.0
    assert late.max() == pytest.approx((max(late_ns) - min(late_ns)) / 1e6)


@pytest.mark.parametrize(
    ("moves_ms", "missing"),
    [
        ({250: 12}, 0),
        ({250: -12}, 0),
        ({150: 12, 300: 8}, 0),
        ({250: 19}, 1),
        ({250: -19}, -1),
        ({250: 41}, 2),
        ({150: 12, 300: 20}, 1),
        ({470: 20}, 1),
    ],
)
def test_a_line_that_moves_lacks_nothing(moves_ms: dict[int, int], missing: int) -> None:
    times = even(500)
    for at, moved_ms in moves_ms.items():
        times[at:] += moved_ms * 1_000_000
    # Some come late, alone or after a hold-up of 50 ms that is made up for.
    times[[100, 200, 352, 400]] += 9_000_000
    times[350:352] += np.array([50_000_000, 30_000_000])

    assert missing_frames(times / 1e6) == missing


def test_a_slow_line_lacks_frames() -> None:
    times = even(1000)

    assert missing_frames(times * 1.001 / 1e6) == 1
