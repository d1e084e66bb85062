"""The agent's voice: text in, samples out.

`espeak-ng` where it is installed, otherwise a built-in speaker that hums syllables: as long as
the text, with a melody and with pauses at the stops, but without words.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from typing import Protocol

import numpy as np
import soxr
import structlog

from lab.practice_agent.formats import Samples
from lab.practice_agent.syllables import Floats, speak_syllables
from lab.practice_agent.vad import FULL_SCALE

logger = structlog.get_logger(__name__)

LEVEL_DBFS = -16.0
ESPEAK = "espeak-ng"
ESPEAK_TIMEOUT_S = 20.0
_ACTIVE_DBFS = -50.0
_LEVEL_WINDOW_S = 0.02
_SOFT_LIMIT = 0.5


class Voice(Protocol):
    """Something that can speak. Deterministic; may be called from any thread."""

    def speak(self, text: str, rate_hz: int) -> Samples:
        """Return mono int16 samples at ``rate_hz``, about -16 dBFS where there is sound."""
        ...


class BuiltInVoice:
    """Speech-like syllables; needs nothing installed."""

    def speak(self, text: str, rate_hz: int) -> Samples:
        """Return the syllables of ``text``."""
        samples, native_hz = speak_syllables(text)
        return finish(samples, native_hz, rate_hz)


class EspeakVoice:
    """The `espeak-ng` program; the built-in voice takes over when it fails."""

    def __init__(self, program: str, *, voice: str = "en") -> None:
        self._command = [program, "--stdin", "--stdout", "-v", voice, "-s", "165"]
        self._fallback = BuiltInVoice()

    def speak(self, text: str, rate_hz: int) -> Samples:
        """Return ``text`` as `espeak-ng` reads it. Blocks for some tens of milliseconds."""
        try:
            done = subprocess.run(
                self._command,
                input=text.encode(),
                capture_output=True,
                timeout=ESPEAK_TIMEOUT_S,
                check=True,
            )
            samples, native_hz = _read_wav(done.stdout)
        except (OSError, subprocess.SubprocessError, wave.Error, EOFError, ValueError) as error:
            logger.warning("espeak failed, using the built-in voice", error=str(error))
            return self._fallback.speak(text, rate_hz)
        return finish(samples, native_hz, rate_hz)


def find_voice() -> Voice:
    """Return `espeak-ng`'s voice when the program is on the PATH, else the built-in one."""
    program = shutil.which(ESPEAK)
    return EspeakVoice(program) if program else BuiltInVoice()


def finish(samples: Floats, from_hz: int, to_hz: int) -> Samples:
    """Convert -1..1 floats to int16 at another rate and at the common level.

    Peaks are rounded off rather than cut.
    """
    if from_hz != to_hz and len(samples):
        samples = soxr.resample(samples, from_hz, to_hz, quality="HQ")
    gain = 10 ** ((LEVEL_DBFS - _active_level_dbfs(samples, to_hz)) / 20)
    louder = samples * np.float32(gain)
    excess = np.maximum(np.abs(louder) - _SOFT_LIMIT, 0)
    rounded = _SOFT_LIMIT + (1 - _SOFT_LIMIT) * np.tanh(excess / (1 - _SOFT_LIMIT))
    limited = np.where(excess > 0, np.sign(louder) * rounded, louder)
    return np.round(limited * (FULL_SCALE - 1)).astype(np.int16)


def _active_level_dbfs(samples: Floats, rate_hz: int) -> float:
    """RMS level of the windows that are not silent; the target level when all are."""
    window = int(rate_hz * _LEVEL_WINDOW_S)
    windows = samples[: len(samples) - len(samples) % window].reshape(-1, window)
    powers = np.mean(np.square(windows, dtype=np.float64), axis=1)
    active = powers[powers > 10 ** (_ACTIVE_DBFS / 10)]
    return float(10 * np.log10(np.mean(active))) if len(active) else LEVEL_DBFS


def _read_wav(data: bytes) -> tuple[Floats, int]:
    # The length in a WAV header written to a pipe is a guess; what follows counts.
    with wave.open(io.BytesIO(data)) as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            raise ValueError("espeak-ng's sound is not 16-bit mono")
        pcm = file.readframes(len(data))
        samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], dtype="<i2")
        return samples.astype(np.float32) / np.float32(FULL_SCALE), file.getframerate()
