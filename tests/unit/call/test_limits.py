from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.admission import TokenBucket


def test_no_rate_lets_everything_through() -> None:
    bucket = TokenBucket(0)
    assert all(bucket.take(5.0) for _ in range(1000))
    assert bucket.wait(5.0) == 0


def test_one_after_another() -> None:
    bucket = TokenBucket(2)
    assert bucket.take(10.0)
    assert not bucket.take(10.0)
    assert bucket.wait(10.0) == pytest.approx(0.5)
    assert bucket.wait(10.4) == pytest.approx(0.1)
    assert bucket.take(10.5)
    assert not bucket.take(10.6)


def test_a_burst_after_a_pause() -> None:
    bucket = TokenBucket(1, burst=3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1)
    assert bucket.take(10.0)
    assert not bucket.take(5.0)
    assert not bucket.take(10.5)
    assert bucket.take(11.0)


@pytest.mark.parametrize(("rate", "burst"), [(-1, 1), (1, 0.5)])
def test_what_makes_no_sense_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="rate must not be negative"):
        TokenBucket(rate, burst)


@given(st.integers(1, 50), st.lists(st.floats(0, 0.5), max_size=60))
def test_never_more_than_the_rate(rate: int, pauses: list[float]) -> None:
    bucket = TokenBucket(rate)
    now, passed = 0.0, 0
    for pause in pauses:
        now += pause
        passed += bucket.take(now)
    assert passed <= 1 + now * rate + 1e-6


@given(st.integers(1, 50), st.lists(st.floats(0, 0.5), min_size=1, max_size=30))
def test_after_the_wait_it_passes(rate: int, pauses: list[float]) -> None:
    bucket = TokenBucket(rate)
    now = 0.0
    for pause in pauses:
        now += pause
        bucket.take(now)
    assert bucket.take(now + bucket.wait(now))
