from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.audio.formats import AGENT_FORMATS, AudioFormat, Encoding, SampleAligner


@pytest.mark.parametrize("name", AGENT_FORMATS)
def test_parse_and_name_are_inverse(name: str) -> None:
    assert AudioFormat.parse(name).name == name


def test_parse_tells_encoding_and_rate() -> None:
    assert AudioFormat.parse("pcm_22050") == AudioFormat(Encoding.PCM, 22050)
    assert AudioFormat.parse("ulaw_8000") == AudioFormat(Encoding.ULAW, 8000)
    assert AudioFormat.parse("pcm_16000") == AudioFormat.pcm(16000)


@pytest.mark.parametrize(
    "name", ["", "pcm", "pcm_", "pcm_12000", "ulaw_16000", "mp3_44100", "PCM_16000"]
)
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown audio format"):
        AudioFormat.parse(name)


def test_durations() -> None:
    assert AudioFormat.pcm(8000).duration_ms(320) == 20
    assert AudioFormat.parse("ulaw_8000").duration_ms(320) == 40


@given(st.lists(st.binary(max_size=9)))
def test_the_aligner_gives_whole_samples_and_loses_nothing(chunks: list[bytes]) -> None:
    aligner = SampleAligner()
    aligned = [aligner.align(chunk) for chunk in chunks]
    assert all(len(chunk) % 2 == 0 for chunk in aligned)
    whole = b"".join(chunks)
    assert b"".join(aligned) == whole[: len(whole) // 2 * 2]


def test_the_aligner_returns_an_even_chunk_itself() -> None:
    chunk = bytes(640)
    assert SampleAligner().align(chunk) is chunk


def test_a_reset_aligner_forgets_half_a_sample() -> None:
    aligner = SampleAligner()
    aligner.align(b"\x01")
    aligner.reset()
    assert aligner.align(b"\x02\x03") == b"\x02\x03"
