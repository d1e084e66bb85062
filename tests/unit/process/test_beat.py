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
