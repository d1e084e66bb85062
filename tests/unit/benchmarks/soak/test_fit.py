from __future__ import annotations

from math import isinf

import numpy as np
import pytest

from benchmarks.soak.fit import growth

Run = list[tuple[float, float]]


def run(level: float, per_hour: float, *, start: float = 0, noise: float = 0, seed: int = 1) -> Run:
    rng = np.random.default_rng(seed)
    at = np.arange(start, start + 600, 2.0)
    values = level + per_hour * (at - start) / 3600 + rng.normal(0, noise, len(at))
    return list(zip(at.tolist(), values.tolist(), strict=True))


def test_a_straight_line() -> None:
    found = growth([run(100, 5)])
    assert found.percent_per_hour == pytest.approx(5, rel=0.01)
    assert found.error_percent_per_hour == pytest.approx(0, abs=1e-6)
    assert found.seen_percent == pytest.approx(5 * 598 / 3600, rel=0.01)


def test_workers_at_other_levels_are_no_growth() -> None:
    found = growth([run(100, 0), run(140, 0, start=700), run(90, 0, start=1400)])
    assert found.percent_per_hour == pytest.approx(0, abs=1e-9)
    assert found.samples == 900
    assert found.hours == pytest.approx(598 / 3600)


def test_the_slope_is_common_to_all_workers() -> None:
    found = growth([run(100, 10), run(200, 10, start=700)])
    assert found.percent_per_hour == pytest.approx(10 / 150 * 100, rel=0.02)


@pytest.mark.parametrize("seed", range(8))
def test_two_errors_hold_the_truth(seed: int) -> None:
    found = growth([run(100, 3, noise=0.5, seed=seed)])
    assert found.lowest < 3 < found.highest
    assert found.error_percent_per_hour < 2


def test_neighbours_that_are_alike_count_for_fewer() -> None:
    rng = np.random.default_rng(3)
    independent = rng.normal(0, 1, 300)
    wandering = np.repeat(rng.normal(0, 1, 30), 10)
    at = np.arange(300) * 2.0
    alone, alike = (
        growth([list(zip(at.tolist(), (100 + noise).tolist(), strict=True))])
        for noise in (independent, wandering)
    )
    assert alike.error_percent_per_hour > 2 * alone.error_percent_per_hour


@pytest.mark.parametrize(
    "runs", [[], [[]], [[(0, 1), (2, 1), (4, 1)]], [[(0, 0), (100, 0)]]], ids=str
)
def test_too_little_says_nothing(runs: list[Run]) -> None:
    assert isinf(growth(runs).error_percent_per_hour)
