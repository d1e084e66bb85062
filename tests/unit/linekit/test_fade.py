from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from linekit.playout import fade_in, fade_out, glide, last_sample

samples = st.lists(st.integers(-32768, 32767), max_size=60)


def pack(values: list[int]) -> bytes:
    return struct.pack(f"<{len(values)}h", *values)


def unpack(pcm: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(pcm) // 2}h", pcm))


@given(samples)
def test_fading_in_is_fading_out_backwards(values: list[int]) -> None:
    assert unpack(fade_in(pack(values))) == unpack(fade_out(pack(values[::-1])))[::-1]


@given(samples)
def test_a_fade_never_amplifies(values: list[int]) -> None:
    faded = unpack(fade_out(pack(values)))
    assert len(faded) == len(values)
    assert all(abs(after) <= abs(before) for after, before in zip(faded, values, strict=True))


def test_a_fade_out_starts_at_full_gain_and_ends_near_silence() -> None:
    faded = unpack(fade_out(pack([10_000] * 40)))
    assert faded[0] == 10_000
    assert faded[20] == 5_000
    assert 0 < faded[-1] < 20
    assert faded == sorted(faded, reverse=True)


def test_a_glide_is_a_faded_level() -> None:
    assert glide(-9_000, 40) == fade_out(pack([-9_000] * 40))
    assert glide(5, 0) == b""


def test_the_last_sample_is_signed() -> None:
    assert last_sample(pack([1, -2])) == -2
