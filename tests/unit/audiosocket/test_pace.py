from __future__ import annotations

import pytest

from audiosocket.connection import Pace


@pytest.mark.parametrize("streams", [1.01, 2, 3])
def test_a_few_streams_at_once_are_no_flood(streams: float) -> None:
    pace = Pace(now=0.0)
    assert all(pace.keeps(streams * 0.02 * n, now=0.02 * n) for n in range(1, 400_000))


def test_what_was_held_up_may_come_at_once() -> None:
    pace = Pace(now=0.0)
    assert pace.keeps(10.0, now=10.0)
    assert pace.keeps(39.9, now=10.0)
    assert not pace.keeps(40.1, now=10.0)


def test_a_flood_is_noticed() -> None:
    pace = Pace(now=0.0)
    kept = [pace.keeps(50 * 0.02 * n, now=0.02 * n) for n in range(1, 500)]
    assert kept.index(False) == 37, "after 0.76 s"


def test_silence_saves_nothing_up() -> None:
    pace = Pace(now=0.0)
    assert pace.keeps(0.0, now=3600.0)
    assert not pace.keeps(30.3, now=3600.02)
