from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from audiosocket.rhythm import Rhythm

PERIOD, SLOT = 0.02, 0.002


def learned(since_tick: float, jitter: list[float]) -> Rhythm:
    rhythm = Rhythm(PERIOD, SLOT)
    for off in jitter:
        rhythm.came((since_tick + off) % PERIOD)
    return rhythm


@given(
    since_tick=st.floats(0, 0.01999),
    jitter=st.lists(st.floats(-0.0004, 0.0004), min_size=8, max_size=20),
)
def test_a_tick_is_moved_to_shortly_after_the_frames(
    since_tick: float, jitter: list[float]
) -> None:
    shift = learned(since_tick, jitter).take_shift()

    assert -5 <= shift <= 5
    waits = (-since_tick + shift * SLOT) % PERIOD
    assert waits >= 0.0001 - 1e-9
    assert waits < SLOT + 0.0025 + 1e-9


def test_few_frames_tell_nothing() -> None:
    rhythm = learned(0.01, [0.0] * 7)
    assert (rhythm.known, rhythm.take_shift()) == (False, 0)
    rhythm.came(0.01)
    assert rhythm.known
    assert rhythm.take_shift() == -4
    assert not rhythm.known, "what was learned is of another tick"


def test_single_frames_that_are_late_count_for_nothing() -> None:
    assert learned(0.019, [0.0, 0.01, 0.0, 0.0, 0.012, 0.0, 0.0, 0.0]).take_shift() == 0
