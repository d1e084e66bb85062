"""A recorded phrase, read once and given out at any line's rate."""

from __future__ import annotations

import wave
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

import numpy as np
import soxr

from ari_app.audio.formats import SAMPLE_BYTES

MAX_SECONDS: Final = 30.0


class SoundFile:
    """A phrase.

    Args:
        pcm: 16-bit mono, little endian.
        rate_hz: Its rate.
    """

    def __init__(self, pcm: bytes, rate_hz: int) -> None:
        self._pcm = pcm
        self._rate_hz = rate_hz
        self.at = lru_cache(maxsize=8)(self._at)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a WAV file of 16-bit PCM, of any rate; of several channels the mean is taken.

        Raises:
            OSError: It cannot be read.
            ValueError: It is no such file, it is empty, or longer than 30 s.
        """
        try:
            with wave.open(str(path), "rb") as file:
                channels, rate_hz = file.getnchannels(), file.getframerate()
                if file.getsampwidth() != SAMPLE_BYTES:
                    raise ValueError("its samples are not of 16 bits")
                if file.getnframes() > MAX_SECONDS * rate_hz:
                    raise ValueError(f"it is longer than {MAX_SECONDS:.0f} s")
                data = file.readframes(file.getnframes())
        except (wave.Error, EOFError) as error:
            raise ValueError(f"it is no WAV file of PCM ({str(error) or 'cut short'})") from None
        samples = np.frombuffer(data, "<i2").reshape(-1, channels)
        if not samples.size:
            raise ValueError("there is no sound in it")
        return cls(np.mean(samples, axis=1).round().astype("<i2").tobytes(), rate_hz)

    @classmethod
    def tone(cls, hz: float, seconds: float, level: float) -> Self:
        """Make a tone that comes and goes softly; `level` is its highest sample, up to 32767."""
        rate_hz = 8000
        count = round(seconds * rate_hz)
        wave_form = np.sin(2 * np.pi * hz * np.arange(count) / rate_hz) * np.hanning(count)
        return cls((level * wave_form).round().astype("<i2").tobytes(), rate_hz)

    def _at(self, rate_hz: int) -> bytes:
        if rate_hz == self._rate_hz:
            return self._pcm
        samples = np.frombuffer(self._pcm, "<i2")
        resampled = soxr.resample(samples, self._rate_hz, rate_hz, quality="HQ")
        return np.asarray(resampled, "<i2").tobytes()
