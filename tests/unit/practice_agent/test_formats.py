"""Formats: bytes and samples, and cutting a response into chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.practice_agent.formats import AudioFormat, split

PCM_FORMATS = [name for name in AudioFormat if name is not AudioFormat.ULAW_8000]


@pytest.mark.parametrize("audio_format", PCM_FORMATS)
@given(values=st.lists(st.integers(-32768, 32767)))
def test_pcm_survives_the_way_there_and_back(audio_format: AudioFormat, values: list[int]) -> None:
    samples = np.array(values, dtype=np.int16)
    payload = audio_format.to_bytes(samples)
    assert len(payload) == len(values) * audio_format.sample_bytes
    assert audio_format.to_samples(payload).tolist() == values


def test_ulaw_is_one_byte_a_sample_and_close_to_the_original() -> None:
    samples = np.array([0, 1000, -1000, 30000, -30000], dtype=np.int16)
    payload = AudioFormat.ULAW_8000.to_bytes(samples)
    assert len(payload) == 5
    assert payload[0] == 0xFF
    back = AudioFormat.ULAW_8000.to_samples(payload).astype(int)
    assert np.all(np.abs(back - samples) <= np.abs(samples.astype(int)) * 0.05 + 8)


@pytest.mark.parametrize(
    ("audio_format", "rate_hz"),
    [(AudioFormat.PCM_22050, 22050), (AudioFormat.PCM_48000, 48000), (AudioFormat.ULAW_8000, 8000)],
)
def test_rate_and_duration(audio_format: AudioFormat, rate_hz: int) -> None:
    assert audio_format.rate_hz == rate_hz
    assert audio_format.seconds(rate_hz * audio_format.sample_bytes) == 1.0


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes of pcm_8000"):
        AudioFormat.PCM_8000.to_samples(b"abc")


def test_chunks_have_the_lengths_asked_for_and_the_last_one_repeats() -> None:
    chunks = split(bytes(2 * 8000 * 2), AudioFormat.PCM_8000, (500, 333))
    assert [len(chunk.payload) for chunk in chunks] == [8000, 5328, 5328, 5328, 5328, 2688]
    assert [round(chunk.starts_at_s, 3) for chunk in chunks[:3]] == [0.0, 0.5, 0.833]


@given(
    length=st.integers(0, 5000),
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    audio_format=st.sampled_from(AudioFormat),
    torn=st.booleans(),
)
def test_chunks_joined_are_the_audio(
    length: int, lengths: list[int], audio_format: AudioFormat, torn: bool
) -> None:
    audio = bytes(value % 256 for value in range(length * audio_format.sample_bytes))
    chunks = split(audio, audio_format, tuple(lengths), torn=torn)
    assert b"".join(chunk.payload for chunk in chunks) == audio
    assert all(chunk.payload for chunk in chunks)


def test_torn_chunks_end_inside_a_sample() -> None:
    chunks = split(bytes(16000), AudioFormat.PCM_8000, (250,), torn=True)
    assert [len(chunk.payload) % 2 for chunk in chunks] == [1, 0, 0, 1]
