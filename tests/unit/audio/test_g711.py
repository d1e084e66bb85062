"""Values of the tables of ITU-T G.711, as 16-bit samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.audio.g711 import alaw_to_pcm, pcm_to_alaw, pcm_to_ulaw, ulaw_to_pcm

Codec = Callable[[bytes], bytes]

ALL_CODES = bytes(range(256))
ALL_SAMPLES = np.arange(-32768, 32768).astype("<i2").tobytes()
LAWS = pytest.mark.parametrize(
    ("decode", "encode"),
    [
        pytest.param(ulaw_to_pcm, pcm_to_ulaw, id="ulaw"),
        pytest.param(alaw_to_pcm, pcm_to_alaw, id="alaw"),
    ],
)


def one(sample: int) -> bytes:
    return sample.to_bytes(2, "little", signed=True)


def values(pcm: bytes) -> list[int]:
    return [int(value) for value in np.frombuffer(pcm, "<i2")]


@pytest.mark.parametrize(
    ("code", "sample"),
    [
        (0xFF, 0),
        (0x7F, 0),
        (0xFE, 8),
        (0x7E, -8),
        (0xEF, 132),
        (0x8F, 16764),
        (0x9F, 8316),
        (0x80, 32124),
        (0x00, -32124),
    ],
)
def test_ulaw_values(code: int, sample: int) -> None:
    assert values(ulaw_to_pcm(bytes([code]))) == [sample]


@pytest.mark.parametrize(
    ("code", "sample"),
    [(0xD5, 8), (0x55, -8), (0xD4, 24), (0xC5, 264), (0xAA, 32256), (0x2A, -32256)],
)
def test_alaw_values(code: int, sample: int) -> None:
    assert values(alaw_to_pcm(bytes([code]))) == [sample]


@pytest.mark.parametrize(
    ("sample", "code"),
    [
        (0, 0xFF),
        (3, 0xFF),
        (4, 0xFE),
        (-1, 0x7F),
        (-5, 0x7E),
        (16251, 0x90),
        (16252, 0x8F),
        (32767, 0x80),
        (-32768, 0x00),
    ],
)
def test_ulaw_decision_values(sample: int, code: int) -> None:
    assert pcm_to_ulaw(one(sample)) == bytes([code])


@pytest.mark.parametrize(
    ("sample", "code"),
    [
        (0, 0xD5),
        (15, 0xD5),
        (16, 0xD4),
        (-1, 0x55),
        (-16, 0x55),
        (-17, 0x54),
        (255, 0xDA),
        (256, 0xC5),
        (32767, 0xAA),
        (-32768, 0x2A),
    ],
)
def test_alaw_decision_values(sample: int, code: int) -> None:
    assert pcm_to_alaw(one(sample)) == bytes([code])


@LAWS
def test_a_code_survives_the_way_there_and_back(decode: Codec, encode: Codec) -> None:
    again = encode(decode(ALL_CODES))
    assert decode(again) == decode(ALL_CODES)
    # µ-law has two zeros; the negative one comes back as the positive one.
    differing = [code for code in range(256) if again[code] != code]
    assert differing in ([], [0x7F])


@LAWS
def test_encoding_is_close_and_never_turns_the_wave_around(decode: Codec, encode: Codec) -> None:
    before = np.frombuffer(ALL_SAMPLES, "<i2").astype(int)
    after = np.frombuffer(decode(encode(ALL_SAMPLES)), "<i2").astype(int)
    assert np.all(np.diff(after) >= 0)
    # Half a step: 1/32 of the value, or half of the smallest step, or the clipped top.
    assert np.all(np.abs(after - before) <= np.maximum(np.abs(before) / 30, 8) + 4)


@LAWS
@given(data=st.binary(max_size=64))
def test_one_byte_a_sample(decode: Codec, encode: Codec, data: bytes) -> None:
    assert len(decode(data)) == 2 * len(data)
    assert len(encode(decode(data))) == len(data)


@LAWS
def test_half_a_sample_is_refused(decode: Codec, encode: Codec) -> None:
    with pytest.raises(ValueError, match="buffer size"):
        encode(b"\x00\x00\x00")
