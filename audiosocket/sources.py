"""Frames to feed a line with: silence, a tone, given PCM. Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import chain, cycle, repeat
from math import pi, sin

from audiosocket.frames import FRAME_MS, SAMPLE_BYTES, LineFormat

FrameSource = Callable[[], bytes | None]
"""Gives one frame each time, or None for nothing (on a server's line: silence)."""


def silence_source(fmt: LineFormat, *, ptime_ms: int = FRAME_MS) -> FrameSource:
    """Silent frames for ever."""
    return repeat(bytes(_frame_bytes(fmt, ptime_ms))).__next__


def tone_source(
    fmt: LineFormat,
    frequency_hz: int = 440,
    *,
    level_dbfs: float = -12.0,
    ptime_ms: int = FRAME_MS,
) -> FrameSource:
    """A sine for ever, without a seam: whole hertz and a `ptime_ms` that divides a second."""
    amplitude = 32767 * 10 ** (level_dbfs / 20)
    step = 2 * pi * frequency_hz / fmt.rate_hz
    samples = (round(amplitude * sin(step * i)) for i in range(fmt.rate_hz))
    second = struct.pack(f"<{fmt.rate_hz}h", *samples)
    return cycle(_frames(second, _frame_bytes(fmt, ptime_ms))).__next__


def pcm_source(fmt: LineFormat, pcm: bytes, *, ptime_ms: int = FRAME_MS) -> FrameSource:
    """`pcm` in frames, the last one filled up with silence; then None for ever."""
    frames = _frames(pcm, _frame_bytes(fmt, ptime_ms))
    return chain(frames, repeat(None)).__next__


def _frame_bytes(fmt: LineFormat, ptime_ms: int) -> int:
    return fmt.rate_hz * ptime_ms // 1000 * SAMPLE_BYTES


def _frames(pcm: bytes, frame_bytes: int) -> list[bytes]:
    return [
        pcm[start : start + frame_bytes].ljust(frame_bytes, b"\0")
        for start in range(0, len(pcm), frame_bytes)
    ]
