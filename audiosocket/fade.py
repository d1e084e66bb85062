"""Raised-cosine fades over a few milliseconds of 16-bit PCM, so that no cut is heard as a click.

They run a few times per response, never per frame; plain arithmetic is quick enough.
"""

from __future__ import annotations

import struct
from math import cos, pi


def fade_out(pcm: bytes) -> bytes:
    """The same samples, from full gain down to almost nothing. `pcm` is whole samples."""
    count = len(pcm) // 2
    samples = struct.unpack(f"<{count}h", pcm)
    return struct.pack(
        f"<{count}h", *(round(sample * _gain(i, count)) for i, sample in enumerate(samples))
    )


def fade_in(pcm: bytes) -> bytes:
    """The same samples, from almost nothing up to full gain. `pcm` is whole samples."""
    count = len(pcm) // 2
    samples = struct.unpack(f"<{count}h", pcm)
    last = count - 1
    return struct.pack(
        f"<{count}h", *(round(sample * _gain(last - i, count)) for i, sample in enumerate(samples))
    )


def glide(level: int, count: int) -> bytes:
    """`count` samples from `level` down to almost nothing: silence after sound, without a step."""
    return struct.pack(f"<{count}h", *(round(level * _gain(i, count)) for i in range(count)))


def last_sample(pcm: bytes) -> int:
    """The value of the last sample."""
    return int.from_bytes(pcm[-2:], "little", signed=True)


def _gain(step: int, count: int) -> float:
    return 0.5 + 0.5 * cos(pi * step / count)
