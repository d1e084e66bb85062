from __future__ import annotations

import pytest

from ari_app.process.beat import seconds_to_beat


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (100.0, 0.2),
        (100.05, 0.15),
        # Half a period is left, or less: a timer that fired a little too soon does not fire again.
        (100.11, 0.29),
        (100.199, 0.201),
    ],
)
def test_what_has_the_same_period_comes_at_the_same_moments(now: float, seconds: float) -> None:
    assert seconds_to_beat(now) == pytest.approx(seconds)


@pytest.mark.parametrize(("now", "seconds"), [(100.0, 1.0), (100.05, 0.95), (100.15, 1.05)])
def test_what_comes_less_often_comes_with_it(now: float, seconds: float) -> None:
    assert seconds_to_beat(now, 1.0) == pytest.approx(seconds)
