"""Listens for the end of an answering machine's greeting. Pure.

A greeting is speech with pauses, and often a beep behind it. After a beep a short silence is
enough; after speech the silence must be longer than a pause. TALK_DETECT() would know the silence
as well, but not every Asterisk has its module loaded.
"""

from __future__ import annotations

from typing import Final

import numpy as np

# Telephone speech and beeps lie around -20 dBFS, line noise below -50 dBFS.
_LOUD_DBFS: Final = -42.0
_LOUD_POWER: Final = 10 ** (_LOUD_DBFS / 10) * 32768**2 / 2
_AFTER_SPEECH_SECONDS: Final = 1.5
_AFTER_BEEP_SECONDS: Final = 0.25
# A click is neither.
_MIN_SPEECH_SECONDS: Final = 0.1
_MIN_BEEP_SECONDS: Final = 0.15
_BEEP_HZ: Final = (350.0, 2500.0)
# How much of its power a beep has around one frequency, and how far that may move meanwhile. With a
# Hann window a tone covers four bins.
_BEEP_SHARE: Final = 0.95
_BEEP_DRIFT_HZ: Final = 60.0


class GreetingEar:
    """Hears one greeting.

    Args:
        rate_hz: Of the 16-bit PCM that it hears.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._loud_seconds = 0.0
        self._last_loud: float | None = None
        self._tone_hz: float | None = None
        self._tone_seconds = 0.0

    @property
    def spoke(self) -> bool:
        """Whether anything has been said yet."""
        return self._loud_seconds >= _MIN_SPEECH_SECONDS

    def heard(self, pcm: bytes, now: float) -> None:
        """Take a frame that ends at `now` (seconds, monotonic)."""
        samples = np.frombuffer(pcm, "<i2").astype(np.float64)
        if not samples.size or float(samples @ samples) / samples.size < _LOUD_POWER:
            return
        seconds = samples.size / self._rate_hz
        self._loud_seconds += seconds
        self._last_loud = now
        tone_hz = self._tone(samples)
        if tone_hz is None:
            self._tone_hz, self._tone_seconds = None, 0.0
        elif self._tone_hz is not None and abs(tone_hz - self._tone_hz) <= _BEEP_DRIFT_HZ:
            self._tone_seconds += seconds
        else:
            self._tone_hz, self._tone_seconds = tone_hz, seconds

    def over(self, now: float) -> bool:
        """Whether the greeting has ended at `now`."""
        if not self.spoke or self._last_loud is None:
            return False
        beeped = self._tone_seconds >= _MIN_BEEP_SECONDS
        return now - self._last_loud >= (_AFTER_BEEP_SECONDS if beeped else _AFTER_SPEECH_SECONDS)

    def _tone(self, samples: np.ndarray) -> float | None:
        """The frequency of a frame that is one tone."""
        power = np.abs(np.fft.rfft(samples * np.hanning(samples.size))) ** 2
        top = int(np.argmax(power))
        hz = top * self._rate_hz / samples.size
        share = float(power[max(0, top - 2) : top + 3].sum() / power.sum())
        return hz if share >= _BEEP_SHARE and _BEEP_HZ[0] <= hz <= _BEEP_HZ[1] else None
