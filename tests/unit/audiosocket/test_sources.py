from __future__ import annotations

import struct
from itertools import pairwise

import pytest

from audiosocket.frames import SLIN
from tests.unit.audiosocket.client import pcm_source, tone_source


def test_a_tone_has_its_level_and_no_seam() -> None:
    source = tone_source(SLIN, 400)
    frames = [source() or b"" for _ in range(60)]
    assert {len(frame) for frame in frames} == {320}
    samples = struct.unpack("<9600h", b"".join(frames))
    assert max(samples) == pytest.approx(32767 / 4, rel=0.01)
    assert samples[:20] == samples[8000:8020]
    assert max(abs(a - b) for a, b in pairwise(samples)) < 2650


def test_given_pcm_ends() -> None:
    source = pcm_source(SLIN, b"\x01\x02" * 200)
    assert source() == b"\x01\x02" * 160
    assert source() == b"\x01\x02" * 40 + bytes(240)
    assert [source(), source()] == [None, None]
