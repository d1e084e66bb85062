from __future__ import annotations

from audiosocket.pace import Pace


def test_speech_keeps_its_pace_for_hours_even_by_a_fast_clock() -> None:
    pace = Pace(now=0.0)
    assert all(pace.keeps(1.01 * 0.02 * n, now=0.02 * n) for n in range(1, 400_000))


def test_what_was_held_up_may_come_at_once() -> None:
    pace = Pace(now=0.0)
    assert pace.keeps(10.0, now=10.0)
    assert pace.keeps(14.9, now=10.0)
    assert not pace.keeps(17.6, now=10.0)


def test_twice_the_pace_is_noticed() -> None:
    pace = Pace(now=0.0)
    kept = [pace.keeps(2 * 0.02 * n, now=0.02 * n) for n in range(1, 500)]
    assert kept.index(False) == 333


def test_silence_saves_nothing_up() -> None:
    pace = Pace(now=0.0)
    assert pace.keeps(0.0, now=3600.0)
    assert not pace.keeps(5.1, now=3600.02)
