"""Test tones, and what a meter would say about them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]

MINUS_10_DBFS = 32767 * 10 ** (-10 / 20)


def tone(frequency_hz: float, rate_hz: int, seconds: float, peak: float = MINUS_10_DBFS) -> bytes:
    """A sine as 16-bit PCM."""
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    return to_pcm(peak * np.sin(2 * np.pi * frequency_hz * times + 0.3))


def to_pcm(samples: npt.ArrayLike) -> bytes:
    return np.rint(samples).astype("<i2").tobytes()


def to_samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def inner(samples: Samples, rate_hz: int) -> Samples:
    """Without the first and last 20 ms, where a tone that starts at full level is no tone."""
    edge = rate_hz // 50
    return samples[edge:-edge]


def split_tone(samples: Samples, frequency_hz: float, rate_hz: int) -> tuple[float, Samples]:
    """The peak of the best-fitting sine of that frequency, and everything else."""
    phase = 2 * np.pi * frequency_hz * np.arange(len(samples)) / rate_hz
    basis = np.stack([np.cos(phase), np.sin(phase)], axis=1)
    weights, *_ = np.linalg.lstsq(basis, samples, rcond=None)
    return float(np.hypot(*weights)), samples - basis @ weights


def power_db(samples: Samples) -> float:
    return float(10 * np.log10(np.mean(samples**2) + 1e-12))


def sinad_db(samples: Samples, frequency_hz: float, rate_hz: int) -> float:
    """Signal over noise and distortion."""
    peak, rest = split_tone(samples, frequency_hz, rate_hz)
    return float(20 * np.log10(peak / np.sqrt(2))) - power_db(rest)


def highest_peak_db(samples: Samples, rate_hz: int, above_hz: float) -> float:
    """Level of the loudest line of the spectrum from `above_hz` on, as the peak of a sine."""
    window = np.blackman(len(samples))
    spectrum = 2 * np.abs(np.fft.rfft(samples * window)) / window.sum()
    frequencies = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    return float(20 * np.log10(np.max(spectrum[frequencies >= above_hz], initial=1e-6)))
