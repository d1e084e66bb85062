from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.line.asterisk.ari.rest import Backoff


def test_doubles_up_to_the_limit() -> None:
    backoff = Backoff(first_seconds=0.2, most_seconds=5.0)
    delays = [backoff.delay(attempt, 1.0) for attempt in range(7)]
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


def test_jitter_takes_away_at_most_half() -> None:
    assert Backoff(first_seconds=2.0).delay(0, 0.0) == 1.0


@given(attempt=st.integers(0, 10**9), chance=st.floats(0, 1, exclude_max=True))
def test_stays_within_its_limits(attempt: int, chance: float) -> None:
    backoff = Backoff(first_seconds=0.2, most_seconds=5.0)
    assert 0.1 <= backoff.delay(attempt, chance) <= 5.0


@pytest.mark.parametrize(("first", "most"), [(0.0, 5.0), (-1.0, 5.0), (6.0, 5.0)])
def test_refuses_limits_that_make_no_sense(first: float, most: float) -> None:
    with pytest.raises(ValueError, match="first_seconds"):
        Backoff(first_seconds=first, most_seconds=most)
