"""What a resampler must be: clean, prompt, exact in time. The yardstick is soxr, run offline."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from ari_app.audio.formats import AGENT_FORMATS, LINE_RATES_HZ, AudioFormat
from ari_app.audio.resample import Resampler
from tests.unit.audio.signals import (
    MINUS_10_DBFS,
    highest_peak_db,
    inner,
    power_db,
    sinad_db,
    split_tone,
    to_pcm,
    to_samples,
    tone,
)

AGENT_RATES_HZ = sorted({AudioFormat.parse(name).rate_hz for name in AGENT_FORMATS})
PAIRS = sorted(
    {
        pair
        for line, agent in itertools.product(LINE_RATES_HZ, AGENT_RATES_HZ)
        for pair in ((line, agent), (agent, line))
        if line != agent
    }
)
EVERY_PAIR = pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)


def in_frames(pcm: bytes, frame_bytes: int) -> list[bytes]:
    return [pcm[start : start + frame_bytes] for start in range(0, len(pcm), frame_bytes)]


def live(pcm: bytes, from_hz: int, to_hz: int) -> bytes:
    """A whole stream, in 20 ms frames."""
    resampler = Resampler(from_hz, to_hz)
    frames = in_frames(pcm, from_hz // 50 * 2)
    return b"".join([*map(resampler.process, frames), resampler.flush()])


@EVERY_PAIR
@pytest.mark.parametrize("frequency_hz", [300, 1000])
def test_sinad(from_hz: int, to_hz: int, frequency_hz: int) -> None:
    output = to_samples(live(tone(frequency_hz, from_hz, 0.5), from_hz, to_hz))
    assert sinad_db(inner(output, to_hz), frequency_hz, to_hz) >= 80


@EVERY_PAIR
def test_pass_band(from_hz: int, to_hz: int) -> None:
    for share in np.linspace(0.02, 0.425, 10):
        frequency_hz = share * min(from_hz, to_hz)
        output = to_samples(live(tone(frequency_hz, from_hz, 0.2), from_hz, to_hz))
        peak, _ = split_tone(inner(output, to_hz), frequency_hz, to_hz)
        assert abs(20 * np.log10(peak / MINUS_10_DBFS)) < 0.1


@pytest.mark.parametrize(("from_hz", "to_hz"), [pair for pair in PAIRS if pair[0] > pair[1]])
def test_no_aliases(from_hz: int, to_hz: int) -> None:
    shares = np.linspace(0.55, from_hz / to_hz / 2, 12, endpoint=False)
    for frequency_hz in shares[shares < from_hz / to_hz / 2] * to_hz:
        pcm = tone(frequency_hz, from_hz, 0.2)
        output = to_samples(live(pcm, from_hz, to_hz))
        assert power_db(inner(output, to_hz)) < power_db(to_samples(pcm)) - 70


@pytest.mark.parametrize(("from_hz", "to_hz"), [pair for pair in PAIRS if pair[0] < pair[1]])
def test_no_images(from_hz: int, to_hz: int) -> None:
    for share in np.linspace(0.02, 0.45, 10):
        pcm = tone(share * from_hz, from_hz, 0.5)
        output = inner(to_samples(live(pcm, from_hz, to_hz)), to_hz)
        loudest_db = highest_peak_db(output, to_hz, above_hz=0.55 * from_hz)
        assert loudest_db < 20 * np.log10(MINUS_10_DBFS) - 70


@EVERY_PAIR
def test_it_sounds_and_is_timed_like_soxr(from_hz: int, to_hz: int) -> None:
    rng = np.random.default_rng(7)
    times = np.arange(from_hz // 2) / from_hz
    frequencies_hz = rng.uniform(0.01, 0.4, 20) * min(from_hz, to_hz)
    phases = rng.uniform(0, 2 * np.pi, 20)
    chord = np.sin(2 * np.pi * np.outer(times, frequencies_hz) + phases).sum(axis=1)
    pcm = to_pcm(chord * 1000)
    ours = to_samples(live(pcm, from_hz, to_hz))
    theirs = np.asarray(soxr.resample(to_samples(pcm), from_hz, to_hz, "VHQ"))
    length = min(len(ours), len(theirs))
    difference = inner(ours[:length] - theirs[:length], to_hz)
    assert power_db(difference) < power_db(inner(ours, to_hz)) - 75


@EVERY_PAIR
def test_the_delay_is_short(from_hz: int, to_hz: int) -> None:
    resampler = Resampler(from_hz, to_hz)
    held_back = resampler.lookahead_samples
    assert held_back * 1000 / from_hz <= 5
    # Exactly that much is held back, whatever the size of the chunks.
    received = given_back = 0
    for size in (held_back, 1, 7, from_hz // 50, 3, from_hz // 10 + 1):
        given_back += len(resampler.process(bytes(2 * size))) // 2
        received += size
        assert given_back == -(-(received - held_back) * to_hz // from_hz)


@EVERY_PAIR
def test_once_begun_each_frame_gives_a_frame(from_hz: int, to_hz: int) -> None:
    resampler = Resampler(from_hz, to_hz)
    resampler.process(bytes(2 * resampler.lookahead_samples))
    sizes = {len(resampler.process(bytes(from_hz // 50 * 2))) for _ in range(20)}
    assert sizes == {to_hz // 50 * 2}


NOISE = to_pcm(np.random.default_rng(3).uniform(-20000, 20000, 1500))


@given(pair=st.sampled_from(PAIRS), cuts=st.lists(st.integers(0, len(NOISE)), max_size=12))
def test_any_split_gives_the_same(pair: tuple[int, int], cuts: list[int]) -> None:
    whole, pieces = Resampler(*pair), Resampler(*pair)
    edges = [0, *sorted(cuts), len(NOISE)]
    expected = to_samples(whole.process(NOISE) + whole.flush())
    chunks = [pieces.process(NOISE[start:end]) for start, end in itertools.pairwise(edges)]
    got = to_samples(b"".join([*chunks, pieces.flush()]))
    assert len(got) == len(expected)
    # Sums are taken in another order, which may round the last bit the other way.
    assert np.max(np.abs(got - expected)) <= 1


@given(pair=st.sampled_from(PAIRS), samples=st.integers(0, 5000))
def test_a_flushed_stream_is_as_long_as_its_input(pair: tuple[int, int], samples: int) -> None:
    from_hz, to_hz = pair
    resampler = Resampler(from_hz, to_hz)
    output = resampler.process(bytes(2 * samples)) + resampler.flush()
    assert abs(len(output) // 2 - samples * to_hz / from_hz) <= 0.5


@pytest.mark.parametrize(("from_hz", "to_hz"), [(8000, 16000), (22050, 8000)])
def test_an_hour_does_not_drift(from_hz: int, to_hz: int) -> None:
    second = tone(1000, from_hz, 1)
    resampler = Resampler(from_hz, to_hz)
    resampler.process(second)
    expected = resampler.process(second)
    assert len(expected) == 2 * to_hz
    assert all(resampler.process(second) == expected for _ in range(3600))


def test_a_step_up_from_silence_to_the_loudest_saturates() -> None:
    output = to_samples(live(to_pcm([0] * 200 + [32767] * 400 + [-32768] * 400), 8000, 16000))
    assert output.max() == 32767
    assert output.min() == -32768
    assert output[500:1100].min() > 30000
    assert output[1300:1900].max() < -30000


@EVERY_PAIR
@pytest.mark.parametrize("level", [1, -3, 32767, -32768])
def test_a_steady_level_stays(from_hz: int, to_hz: int, level: int) -> None:
    output = to_samples(live(to_pcm([level] * (from_hz // 10)), from_hz, to_hz))
    assert set(inner(output, to_hz)) == {level}


@pytest.mark.parametrize("end", ["flush", "reset"])
def test_a_new_stream_knows_nothing_of_the_last(end: str) -> None:
    used = Resampler(16000, 8000)
    used.process(tone(440, 16000, 0.033))
    if end == "flush":
        assert len(used.flush()) == 2 * 24
    else:
        used.reset()
    assert used.process(NOISE) + used.flush() == live_at_once(NOISE)
    assert used.flush() == b""


def live_at_once(pcm: bytes) -> bytes:
    resampler = Resampler(16000, 8000)
    return resampler.process(pcm) + resampler.flush()


def test_half_a_sample_outlives_a_flush_but_not_a_reset() -> None:
    resampler = Resampler(16000, 8000)
    resampler.process(NOISE[:1])
    assert resampler.flush() == b""
    assert resampler.process(NOISE[1:]) + resampler.flush() == live_at_once(NOISE)
    resampler.process(b"\x55")
    resampler.reset()
    assert resampler.process(NOISE) + resampler.flush() == live_at_once(NOISE)


@pytest.mark.parametrize(
    ("from_hz", "to_hz"), [(8000, 8000), (0, 8000), (8000, 11021), (-8000, 8000)]
)
def test_rates_that_cannot_be_served_are_refused(from_hz: int, to_hz: int) -> None:
    with pytest.raises(ValueError, match="Hz"):
        Resampler(from_hz, to_hz)
