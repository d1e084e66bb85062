from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.records.recording.timeline import Side, StereoTimeline

RATE_HZ = 8000
START = 1000.0
FRAME = 160
FRAME_SECONDS = 0.02

Stereo = npt.NDArray[np.int16]


def frame(level: int, samples: int = FRAME) -> bytes:
    return np.full(samples, level, "<i2").tobytes()


def stereo(*blocks: bytes) -> Stereo:
    return np.frombuffer(b"".join(blocks), "<i2").reshape(-1, 2)


def finished(timeline: StereoTimeline) -> Stereo:
    return stereo(*timeline.finish())


def spans(channel: npt.NDArray[np.int16]) -> list[tuple[int, int, int]]:
    """Where which level sounds: (level, from, to) in samples; silence left out."""
    edges = [0, *(np.flatnonzero(np.diff(channel)) + 1).tolist(), len(channel)]
    pairs = itertools.pairwise(edges)
    return [(int(channel[a]), a, b) for a, b in pairs if b > a and channel[a]]


def test_the_caller_is_on_the_left_and_was_heard_before_now() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    timeline.add(Side.CALLER, frame(7), START + 0.5)
    recorded = finished(timeline)
    assert spans(recorded[:, 0]) == [(7, 4000 - FRAME, 4000)]
    assert spans(recorded[:, 1]) == []


def test_the_agent_is_on_the_right_and_is_heard_from_now_on() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    timeline.add(Side.AGENT, frame(9), START + 0.5)
    recorded = finished(timeline)
    assert spans(recorded[:, 1]) == [(9, 4000, 4000 + FRAME)]
    assert spans(recorded[:, 0]) == []


def test_what_comes_first_is_where_it_was_heard_however_soon() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    # Taken for the line's jitter, it would begin too soon, and later jitter tear it in two.
    for index, jitter in enumerate([0, 0.004, -0.003, 0.011]):
        timeline.add(Side.AGENT, frame(5), START + 0.055 + index * FRAME_SECONDS + jitter)
    assert spans(finished(timeline)[:, 1]) == [(5, 440, 440 + 4 * FRAME)]


def test_jitter_leaves_no_hole() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    for index, jitter in enumerate([0, 0.015, -0.01, 0.03, 0.001]):
        timeline.add(Side.AGENT, frame(5), START + index * FRAME_SECONDS + jitter)
    assert spans(finished(timeline)[:, 1]) == [(5, 0, 5 * FRAME)]


def test_a_pause_is_silence_of_its_length() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    timeline.add(Side.AGENT, frame(5), START)
    timeline.add(Side.AGENT, frame(6), START + 1)
    assert spans(finished(timeline)[:, 1]) == [(5, 0, FRAME), (6, RATE_HZ, RATE_HZ + FRAME)]


def test_a_burst_is_complete_and_in_order() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    for level in (1, 2, 3):
        timeline.add(Side.CALLER, frame(level), START + 0.5)
    levels = [level for level, _, _ in spans(finished(timeline)[:, 0])]
    assert levels == [1, 2, 3]


def test_a_frame_from_before_the_start_is_kept() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    timeline.add(Side.CALLER, frame(4), START - 1)
    assert spans(finished(timeline)[:, 0]) == [(4, 0, FRAME)]


def test_a_voice_that_was_held_up_is_back_in_time_after_the_next_silence() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    held_up = 0.4
    for index in range(250):
        at = index * FRAME_SECONDS
        is_late, spoken = 2 <= at < 2 + held_up, at < 3 or at >= 4
        now = START + (2 + held_up if is_late else at + FRAME_SECONDS)
        timeline.add(Side.CALLER, frame(1000 if spoken else 3), now)
    speech = [(a, b) for level, a, b in spans(finished(timeline)[:, 0]) if level == 1000]
    assert speech[-1] == (4 * RATE_HZ, 5 * RATE_HZ)
    assert sum(b - a for a, b in speech) == 4 * RATE_HZ, "not a word is lost"


@pytest.mark.parametrize("held_up", [0.2, 0.4, 2.0])
def test_on_a_noisy_line_it_is_back_in_time_after_a_few_pauses(held_up: float) -> None:
    """Its silence is never quiet: a mobile phone in a street."""
    random = np.random.default_rng(1)
    timeline = StereoTimeline(RATE_HZ, START)
    word = random.normal(0, 4000, (25, FRAME)).clip(-30000, 30000)
    for index in range(1100):
        # A word every second and a half.
        piece = index % 75
        pcm = word[piece] if piece < 25 else random.normal(0, 300, FRAME)
        at = (index + 1) * FRAME_SECONDS
        arrives = 1.1 + held_up if 1.1 <= at < 1.1 + held_up else at
        timeline.add(Side.CALLER, pcm.astype("<i2").tobytes(), START + arrives)
    recorded = finished(timeline)[:, 0].astype(float)
    expected = 21 * RATE_HZ
    around = recorded[expected - 4000 : expected + 8000]
    lag = int(np.argmax(np.correlate(around, word.reshape(-1), "valid"))) - 4000
    assert abs(lag) <= RATE_HZ * 0.02


def test_a_voice_that_began_early_is_in_time_after_its_next_silence() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    for index in range(100):
        at = index * FRAME_SECONDS + (0.008 if index else 0)
        timeline.add(Side.AGENT, frame(3 if index in range(50, 60) else 1000), START + at)
    speech = [(a, b) for level, a, b in spans(finished(timeline)[:, 1]) if level == 1000]
    assert speech == [(0, 50 * FRAME), (60 * FRAME + 64, 100 * FRAME + 64)], "speech has no hole"


def test_half_a_sample_is_left_out() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    timeline.add(Side.AGENT, frame(3) + b"\x01", START)
    assert len(finished(timeline)) == FRAME


def test_only_what_is_settled_is_given() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    timeline.add(Side.AGENT, frame(5, 4 * RATE_HZ), START)
    blocks = [stereo(block) for block in timeline.take(START + 2.7)]
    assert [len(block) for block in blocks] == [RATE_HZ, RATE_HZ, RATE_HZ // 2]
    assert list(timeline.take(START + 2.7)) == []
    assert spans(finished(timeline)[:, 1]) == [(5, 0, RATE_HZ * 3 // 2)]
    assert list(timeline.finish()) == []


def test_a_frame_for_a_time_already_given_follows_it() -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    list(timeline.take(START + 1.2))
    timeline.add(Side.CALLER, frame(8), START + 0.5)
    assert spans(finished(timeline)[:, 0]) == [(8, 0, FRAME)]


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(Side),
            st.booleans(),
            st.sampled_from([1, 80, FRAME, 3 * FRAME]) | st.integers(1, 500),
            st.sampled_from([0.0, 0.02, 0.021, 0.03]) | st.floats(-0.1, 0.4),
        ),
        max_size=150,
    ),
    take_every=st.integers(1, 60),
)
def test_every_sample_of_speech_is_recorded_once_and_in_order(
    events: list[tuple[Side, bool, int, float]], take_every: int
) -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    now = START
    blocks: list[bytes] = []
    expected: tuple[list[int], list[int]] = ([], [])
    for number, (side, spoken, samples, step) in enumerate(events, start=1):
        now += step
        # What is quiet may be left out, where its voice came early.
        timeline.add(side, frame(1000 + number if spoken else 3, samples), now)
        if spoken:
            expected[side].extend([1000 + number] * samples)
        if number % take_every == 0:
            blocks.extend(timeline.take(now))
    recorded = stereo(*blocks, *timeline.finish())
    for side in Side:
        channel = recorded[:, side]
        assert channel[channel > 3].tolist() == expected[side]


@pytest.mark.parametrize("side", Side)
def test_an_hour_of_steady_frames_stays_in_time(side: Side) -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    given_samples = 0
    for second in range(0, 3600, 10):
        for _ in range(2):
            timeline.add(side, frame(1, RATE_HZ * 5), START + second + (5 if side == 0 else 0))
        given_samples += sum(len(block) for block in timeline.take(START + second)) // 4
    given_samples += len(finished(timeline))
    assert given_samples == 3600 * RATE_HZ


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("pace", [0.9998, 1.0002])
def test_a_voice_whose_clock_drifts_stays_in_time_and_whole(side: Side, pace: float) -> None:
    timeline = StereoTimeline(RATE_HZ, START)
    blocks: list[bytes] = []
    for index in range(30_000):
        # Speech of 3 s and pauses of 1 s; what comes late now and then is no drift.
        at = index * FRAME_SECONDS * pace + (index * 7 % 11 == 0) * 0.009
        level = 3 if index % 200 >= 150 else 1000 + index // 200
        timeline.add(side, frame(level), START + at + (FRAME_SECONDS if side is Side.CALLER else 0))
        if index % 50 == 0:
            blocks.extend(timeline.take(START + at))
    said = [each for each in spans(stereo(*blocks, *timeline.finish())[:, side]) if each[0] > 3]
    assert [(level, end - begin) for level, begin, end in said] == [
        (1000 + number, 150 * FRAME) for number in range(150)
    ]
    off = [begin / RATE_HZ - number * 4 * pace for number, (_, begin, _) in enumerate(said)]
    assert max(map(abs, off)) < 0.02
