"""Sound that says where it comes from: a tone that rises, so that its pitch tells the time. Pure.

An utterance of `T` seconds sweeps from 400 to 3000 Hz. Whoever hears 20 ms of it knows, from the
pitch alone and to a fraction of a millisecond, which part of the utterance they are. What is lost,
repeated or late shows, whatever resampled or compressed it on the way.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

LOW_HZ = 400.0
HIGH_HZ = 3000.0
_AMPLITUDE = 0.25 * 32767
_NUMBER = re.compile(r"\d+(?:\.\d+)?")

Samples = npt.NDArray[np.int16]


class MarkedVoice:
    """A `lab.practice_agent.Voice`: a text with a number in it is a sweep of so many seconds."""

    def speak(self, text: str, rate_hz: int) -> Samples:
        """Return the sweep; nothing for a text without a number."""
        found = _NUMBER.search(text)
        return sweep(float(found[0]) if found else 0.0, rate_hz)


def sweep(seconds: float, rate_hz: int) -> Samples:
    """A sweep, about -15 dBFS."""
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * (LOW_HZ * at + (HIGH_HZ - LOW_HZ) * at**2 / (2 * max(seconds, 1e-9)))
    return np.round(_AMPLITUDE * np.sin(phase)).astype(np.int16)


def position_seconds(frame: Samples, rate_hz: int, sweep_seconds: float) -> float | None:
    """Where in a sweep the middle of a frame lies, or None when it is not all tone.

    The pitch comes from the phase between neighbours of the analytic signal, weighted by level.
    """
    level = np.sqrt(np.mean(np.square(frame, dtype=np.float64)))
    if level < _AMPLITUDE / 4:
        return None
    spectrum = np.fft.fft(frame * np.hanning(len(frame)))
    spectrum[len(frame) // 2 :] = 0
    analytic = np.fft.ifft(spectrum)
    turn = np.angle(np.sum(analytic[1:] * np.conj(analytic[:-1])))
    pitch_hz = turn * rate_hz / (2 * np.pi)
    return float((pitch_hz - LOW_HZ) / (HIGH_HZ - LOW_HZ) * sweep_seconds)
