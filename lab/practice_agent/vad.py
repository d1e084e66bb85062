"""Listening: where in a stream of samples somebody speaks.

Energy with hang-over. The detector counts time in samples, not on a clock: a caller whose phone
stops sending in silence never ends a turn, exactly as with a real agent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lab.practice_agent.formats import Samples

WINDOW_MS = 20
FULL_SCALE = 32768.0
SILENCE_DBFS = -120.0


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Sound has been above the threshold for long enough."""


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Sound has been below the threshold for the hang-over."""

    seconds: float
    """From the first loud window to the last one."""


SpeechEvent = SpeechStarted | SpeechEnded


def level_dbfs(samples: Samples) -> float:
    """RMS level against full scale; -120 for silence and for no samples."""
    if not len(samples):
        return SILENCE_DBFS
    rms = math.sqrt(float(np.mean(np.square(samples, dtype=np.float64)))) / FULL_SCALE
    return max(SILENCE_DBFS, 20 * math.log10(rms)) if rms else SILENCE_DBFS


class SpeechDetector:
    """Turns samples, in pieces of any size, into starts and ends of speech.

    ``rate_hz`` must have a whole number of samples in 20 ms, as all the agent's formats do.
    Speech starts after ``start_ms`` of unbroken sound above ``threshold_dbfs`` and ends after
    ``end_ms`` below it.
    """

    def __init__(
        self,
        rate_hz: int,
        *,
        threshold_dbfs: float = -42.0,
        start_ms: int = 80,
        end_ms: int = 600,
    ) -> None:
        self._window_samples = rate_hz * WINDOW_MS // 1000
        self._threshold_power = (FULL_SCALE * 10 ** (threshold_dbfs / 20)) ** 2
        self._windows_to_start = max(1, math.ceil(start_ms / WINDOW_MS))
        self._windows_to_end = max(1, math.ceil(end_ms / WINDOW_MS))
        self._rest = np.zeros(0, dtype=np.int16)
        self._loud_windows = 0
        self._quiet_windows = 0
        self._spoken_windows = 0
        self._power = 0.0
        self.speaking = False

    @property
    def score(self) -> float:
        """How much the last window looks like speech, 0 to 1; 0.5 at the threshold."""
        return self._power / (self._power + self._threshold_power)

    def feed(self, samples: Samples) -> list[SpeechEvent]:
        """Take mono int16 samples; return what began and ended in them, in order."""
        joined = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        whole = len(joined) - len(joined) % self._window_samples
        self._rest = joined[whole:]
        windows = joined[:whole].reshape(-1, self._window_samples)
        powers = np.mean(np.square(windows, dtype=np.float64), axis=1)
        events: list[SpeechEvent] = []
        for power in powers.tolist():
            self._power = power
            event = self._window(loud=power >= self._threshold_power)
            if event is not None:
                events.append(event)
        return events

    def _window(self, *, loud: bool) -> SpeechEvent | None:
        if not self.speaking:
            self._loud_windows = self._loud_windows + 1 if loud else 0
            if self._loud_windows < self._windows_to_start:
                return None
            self.speaking = True
            self._quiet_windows = 0
            self._spoken_windows = self._loud_windows
            return SpeechStarted()
        if loud:
            self._spoken_windows += self._quiet_windows + 1
            self._quiet_windows = 0
            return None
        self._quiet_windows += 1
        if self._quiet_windows < self._windows_to_end:
            return None
        self.speaking = False
        self._loud_windows = 0
        return SpeechEnded(seconds=self._spoken_windows * WINDOW_MS / 1000)
