"""Listening: starts and ends of speech by energy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.practice_agent.formats import Samples
from lab.practice_agent.vad import (
    SILENCE_DBFS,
    SpeechDetector,
    SpeechEnded,
    SpeechEvent,
    SpeechStarted,
    level_dbfs,
)

RATE_HZ = 8000


def sound(ms: int, amplitude: int = 8000, rate_hz: int = RATE_HZ) -> Samples:
    return np.full(rate_hz * ms // 1000, amplitude, dtype=np.int16)


def quiet(ms: int) -> Samples:
    return sound(ms, 0)


def test_speech_starts_after_enough_sound_and_ends_after_the_hang_over() -> None:
    detector = SpeechDetector(RATE_HZ, start_ms=80, end_ms=600)
    assert detector.feed(quiet(500)) == []
    assert detector.feed(sound(60)) == []
    assert detector.feed(sound(20)) == [SpeechStarted()]
    assert detector.speaking
    assert detector.feed(sound(920)) == []
    assert detector.feed(quiet(580)) == []
    assert detector.feed(quiet(20)) == [SpeechEnded(seconds=1.0)]
    assert not detector.speaking


def test_a_click_is_not_speech() -> None:
    detector = SpeechDetector(RATE_HZ, start_ms=80)
    for _ in range(10):
        assert detector.feed(np.concatenate([sound(60), quiet(20)])) == []


def test_a_pause_shorter_than_the_hang_over_belongs_to_the_speech() -> None:
    detector = SpeechDetector(RATE_HZ, start_ms=20, end_ms=200)
    events = detector.feed(np.concatenate([sound(100), quiet(180), sound(100), quiet(200)]))
    assert events == [SpeechStarted(), SpeechEnded(seconds=0.38)]


def test_speech_can_come_again() -> None:
    detector = SpeechDetector(RATE_HZ, start_ms=20, end_ms=40)
    once = np.concatenate([sound(100), quiet(100)])
    assert len(detector.feed(np.concatenate([once, once]))) == 4


def test_the_threshold_is_a_level() -> None:
    detector = SpeechDetector(RATE_HZ, threshold_dbfs=-20, start_ms=20)
    assert detector.feed(sound(200, 3200)) == []
    assert detector.score < 0.5
    assert detector.feed(sound(20, 3400)) == [SpeechStarted()]
    assert detector.score > 0.5


@given(cuts=st.lists(st.integers(1, 2000)), rate_hz=st.sampled_from([8000, 22050, 44100]))
def test_any_split_of_the_samples_gives_the_same_events(cuts: list[int], rate_hz: int) -> None:
    samples = np.concatenate([sound(300, 8000, rate_hz), sound(300, 0, rate_hz)] * 2)
    whole = SpeechDetector(rate_hz, end_ms=200).feed(samples)
    in_pieces: list[SpeechEvent] = []
    detector = SpeechDetector(rate_hz, end_ms=200)
    for piece in np.split(samples, np.minimum(np.cumsum(cuts, dtype=int), len(samples))):
        in_pieces += detector.feed(piece)
    assert in_pieces == whole
    assert len(whole) == 4


def test_level() -> None:
    assert level_dbfs(sound(20, 16384)) == pytest.approx(-6.02, abs=0.01)
    assert level_dbfs(quiet(20)) == SILENCE_DBFS
    assert level_dbfs(sound(0)) == SILENCE_DBFS
