"""Synthetic voices."""

from __future__ import annotations

import numpy as np

from lab.demo.analysis import Samples, Span

RATE_HZ = 8000


def voice(seconds: float, *spans: tuple[float, float], level_dbfs: float = -16.0) -> Samples:
    """A tone of this RMS level in each span, silence elsewhere."""
    at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave = np.sqrt(2) * 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * 300 * at)
    gate = np.zeros(len(at), bool)
    for start_s, end_s in spans:
        gate[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)] = True
    samples: Samples = np.rint(np.where(gate, wave, 0) * 32767).astype(np.int16)
    return samples


def spans(*pairs: tuple[float, float]) -> list[Span]:
    return [Span(start_s, end_s) for start_s, end_s in pairs]
