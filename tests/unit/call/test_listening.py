"""What somebody who listens to a call hears."""

from __future__ import annotations

import numpy as np
import pytest

from ari_app.call.listening import Ear

RATE_HZ = 8000
BLOCK_MS = 60


def frame(level: int) -> bytes:
    return np.full(160, level, "<i2").tobytes()


def listened(ear: Ear) -> tuple[list[int], list[int]]:
    stereo = np.frombuffer(ear.take(BLOCK_MS), "<i2").reshape(-1, 2)
    assert len(stereo) == RATE_HZ * BLOCK_MS // 1000
    return stereo[:, 0].tolist(), stereo[:, 1].tolist()


def test_both_sides_come_in_time_and_without_a_hole() -> None:
    ear = Ear(RATE_HZ)
    caller: list[int] = []
    agent: list[int] = []
    for block in range(20):
        for _ in range(3):
            ear.hear_caller(frame(1000))
            if block >= 10:
                ear.hear_agent(frame(-2000))
        left, right = listened(ear)
        caller += left
        agent += right
    begins = caller.index(1000)
    assert begins <= RATE_HZ * 0.08
    assert set(caller[begins:]) == {1000}
    begins = agent.index(-2000)
    assert 0 <= begins - 10 * 480 <= RATE_HZ * 0.08
    assert set(agent[:begins]) == {0}
    assert set(agent[begins:]) == {-2000}


@pytest.mark.parametrize("first", [1, 2, 3])
def test_no_word_has_a_hole_at_its_beginning(first: int) -> None:
    """However many frames of it come before it is listened to for the first time."""
    ear = Ear(RATE_HZ)
    heard: list[int] = []
    for number in range(10):
        for _ in range(3 if number else first):
            ear.hear_agent(frame(1000))
        heard += listened(ear)[1]
    assert set(heard[heard.index(1000) :]) == {1000}


def test_a_packet_that_comes_late_makes_no_hole() -> None:
    ear = Ear(RATE_HZ)
    heard: list[int] = []
    for packets in (3, 3, 2, 4, 3, 2, 4, 3):
        for _ in range(packets):
            ear.hear_caller(frame(1000))
        heard += listened(ear)[0]
    assert set(heard[heard.index(1000) :]) == {1000}


def test_a_burst_is_not_heard_later_and_later() -> None:
    ear = Ear(RATE_HZ)
    for number in range(100):
        ear.hear_caller(frame(number))
    assert listened(ear)[0][0] >= 92


def test_nothing_is_silence_of_the_right_length() -> None:
    left, right = listened(Ear(RATE_HZ))
    assert set(left) == set(right) == {0}
