"""The resamplers that are compared: ours, and what others use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import soxr

from ari_app.audio.resample import Resampler
from benchmarks.quality import Engine

NewEngine = Callable[[int, int], Engine]


def ours(from_hz: int, to_hz: int) -> Engine:
    """`ari_app.audio.resample`."""
    return Resampler(from_hz, to_hz).process


def soxr_hq(from_hz: int, to_hz: int) -> Engine:
    """soxr's stream, as everybody calls it."""
    stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="int16", quality="HQ")
    return _soxr_engine(stream)


def soxr_vr(from_hz: int, to_hz: int) -> Engine:
    """soxr's stream of variable rate, which gives out evenly."""
    stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="int16", quality="HQ", vr=True)
    return _soxr_engine(stream)


def linear(from_hz: int, to_hz: int) -> Engine:
    """Straight lines between samples and no filter, as in many bridges."""
    last = 0.0
    done = 0
    taken = 0

    def process(pcm: bytes) -> bytes:
        nonlocal last, done, taken
        samples = np.frombuffer(pcm, "<i2").astype(np.float64)
        known = np.concatenate(([last], samples))
        until = (taken + len(samples)) * to_hz // from_hz
        at = np.arange(done, until) * from_hz / to_hz - (taken - 1)
        out = np.interp(at, np.arange(len(known)), known)
        last, done, taken = float(known[-1]), until, taken + len(samples)
        shaped: bytes = np.round(out).astype("<i2").tobytes()
        return shaped

    return process


ENGINES: Final[dict[str, NewEngine]] = {
    "ours": ours,
    "soxr HQ stream": soxr_hq,
    "soxr HQ vr": soxr_vr,
    "linear": linear,
}


def _soxr_engine(stream: soxr.ResampleStream) -> Engine:
    def process(pcm: bytes) -> bytes:
        out: bytes = stream.resample_chunk(np.frombuffer(pcm, "<i2")).tobytes()
        return out

    return process
