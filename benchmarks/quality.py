"""How well a resampler sounds, and what it holds back. Pure.

A tone of -10 dBFS goes through in frames of 20 ms, as it would in a call; what comes out is
compared with the tone that fits it best. R is the lower of the two rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Engine = Callable[[bytes], bytes]
"""A fresh stream: takes PCM of any length, returns the PCM that it determines so far."""

LEVEL_DBFS = -10.0
PASS_BAND_EDGE = 0.425
STOP_BAND_EDGE = 0.55
_SECONDS = 1.5
_EDGE_SECONDS = 0.3
_FRAMES_PER_SECOND = 50
_FLOOR_DB = -140.0


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of one resampler."""

    sinad_300_db: float
    sinad_1000_db: float
    pass_band_db: float
    """The largest deviation from 0 dB up to 0.425 R."""
    stop_band_db: float
    """The loudest alias (going down) or image (going up) from 0.55 R on, against the tone."""
    held_back_min_ms: float
    held_back_max_ms: float
    """How much sound is kept back after a frame, once the stream runs."""


def measure_quality(new_engine: Callable[[], Engine], from_hz: int, to_hz: int) -> Quality:
    """Measure a kind of resampler; `new_engine` makes a fresh stream of it."""
    lower = min(from_hz, to_hz)
    gains = [_gain_db(new_engine, from_hz, to_hz, share * lower) for share in _pass_band_shares()]
    least, most = held_back_ms(new_engine(), from_hz, to_hz)
    stop_band = _aliases_db if to_hz < from_hz else _images_db
    return Quality(
        sinad_300_db=round(_sinad_db(new_engine, from_hz, to_hz, 300.0), 1),
        sinad_1000_db=round(_sinad_db(new_engine, from_hz, to_hz, 1000.0), 1),
        pass_band_db=round(max(map(abs, gains)), 3),
        stop_band_db=round(stop_band(new_engine, from_hz, to_hz), 1),
        held_back_min_ms=round(least, 2),
        held_back_max_ms=round(most, 2),
    )


def held_back_ms(engine: Engine, from_hz: int, to_hz: int) -> tuple[float, float]:
    """The least and the most sound that is kept back after a frame, over the last second."""
    frame = bytes(2 * (from_hz // _FRAMES_PER_SECOND))
    given, kept = 0, []
    for number in range(1, 3 * _FRAMES_PER_SECOND + 1):
        given += len(engine(frame)) // 2
        kept.append(number * 1000 / _FRAMES_PER_SECOND - given * 1000 / to_hz)
    steady = kept[-_FRAMES_PER_SECOND:]
    return min(steady), max(steady)


def tone(rate_hz: int, frequency_hz: float, seconds: float = _SECONDS) -> bytes:
    """A tone as 16-bit PCM."""
    at = np.arange(round(rate_hz * seconds)) / rate_hz
    amplitude = 32767 * 10 ** (LEVEL_DBFS / 20)
    pcm: bytes = np.round(amplitude * np.sin(2 * np.pi * frequency_hz * at)).astype("<i2").tobytes()
    return pcm


def stream(engine: Engine, pcm: bytes, rate_hz: int) -> Floats:
    """Send PCM through in frames of 20 ms; what came out."""
    size = 2 * (rate_hz // _FRAMES_PER_SECOND)
    out = b"".join(engine(pcm[start : start + size]) for start in range(0, len(pcm), size))
    return np.frombuffer(out, "<i2").astype(np.float64)


def _pass_band_shares() -> Sequence[float]:
    return [float(share) for share in np.linspace(0.025, PASS_BAND_EDGE, 17)]


def _middle(samples: Floats, rate_hz: int) -> Floats:
    edge = round(rate_hz * _EDGE_SECONDS)
    return samples[edge:-edge]


def _fit(samples: Floats, rate_hz: int, frequency_hz: float) -> tuple[float, float]:
    """Power of the tone that fits best, and of all the rest."""
    at = 2 * np.pi * frequency_hz * np.arange(len(samples)) / rate_hz
    basis = np.stack([np.sin(at), np.cos(at), np.ones_like(at)], axis=1)
    parts = np.linalg.lstsq(basis, samples, rcond=None)[0]
    rest = samples - basis @ parts
    return float((parts[0] ** 2 + parts[1] ** 2) / 2), float(np.mean(rest**2))


def _decibels(power: float, reference: float) -> float:
    return max(_FLOOR_DB, 10 * float(np.log10(max(power, 1e-20) / reference)))


def _reference_power() -> float:
    return (32767 * 10 ** (LEVEL_DBFS / 20)) ** 2 / 2


def _through(new: Callable[[], Engine], from_hz: int, to_hz: int, frequency_hz: float) -> Floats:
    return _middle(stream(new(), tone(from_hz, frequency_hz), from_hz), to_hz)


def _sinad_db(new: Callable[[], Engine], from_hz: int, to_hz: int, frequency_hz: float) -> float:
    signal, rest = _fit(_through(new, from_hz, to_hz, frequency_hz), to_hz, frequency_hz)
    return _decibels(signal, max(rest, 1e-12))


def _gain_db(new: Callable[[], Engine], from_hz: int, to_hz: int, frequency_hz: float) -> float:
    signal, _ = _fit(_through(new, from_hz, to_hz, frequency_hz), to_hz, frequency_hz)
    return _decibels(signal, _reference_power())


def _aliases_db(new: Callable[[], Engine], from_hz: int, to_hz: int) -> float:
    """The loudest remainder of tones that the lower rate cannot carry."""
    loudest = _FLOOR_DB
    for frequency_hz in np.linspace(STOP_BAND_EDGE * to_hz, 0.49 * from_hz, 24):
        out = _through(new, from_hz, to_hz, float(frequency_hz))
        # A DC part or the last bit's noise is no alias: look at the strongest line.
        loudest = max(loudest, _strongest_line_db(out, 0.0, to_hz))
    return loudest


def _images_db(new: Callable[[], Engine], from_hz: int, to_hz: int) -> float:
    """The loudest line from 0.55 R on that a tone of the pass band leaves."""
    loudest = _FLOOR_DB
    for share in _pass_band_shares():
        out = _through(new, from_hz, to_hz, share * from_hz)
        loudest = max(loudest, _strongest_line_db(out, STOP_BAND_EDGE * from_hz, to_hz))
    return loudest


def _strongest_line_db(samples: Floats, above_hz: float, rate_hz: int) -> float:
    window = np.hanning(len(samples))
    spectrum = np.abs(np.fft.rfft(samples * window)) ** 2
    lines_hz = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    power = float(spectrum[lines_hz >= max(above_hz, 50.0)].max()) / (window.sum() / 2) ** 2 / 2
    return _decibels(power, _reference_power())
