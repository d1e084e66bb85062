"""Sounds for a phone to say, and measures of what it heard: 16-bit PCM, mono, 8 kHz by default."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lab.softphone.codec import RATE_HZ, SAMPLE_BYTES

FLOOR_DBFS = -100.0
"""What digital silence measures."""

_FULL_SCALE = 32767.0
_FloatArray = npt.NDArray[np.float64]


def silence(ms: float, rate_hz: int = RATE_HZ) -> bytes:
    """Digital silence."""
    return bytes(_samples(ms, rate_hz) * SAMPLE_BYTES)


def tone(freq_hz: float, ms: float, dbfs: float = -10.0, rate_hz: int = RATE_HZ) -> bytes:
    """A sine. `dbfs` is its RMS level below a full-scale sine's."""
    at = np.arange(_samples(ms, rate_hz)) / rate_hz
    return _to_pcm(np.sin(2 * np.pi * freq_hz * at) * 10 ** (dbfs / 20))


def babble(ms: float, dbfs: float = -20.0, *, seed: int = 0, rate_hz: int = RATE_HZ) -> bytes:
    """Sound with the shape of speech: a gliding voice, some breath, four syllables a second.

    The dips between syllables are short, so that a voice activity detector hears one turn.
    `dbfs` is the RMS level of the whole; the same seed gives the same sound.
    """
    count = _samples(ms, rate_hz)
    if count == 0:
        return b""
    rng = np.random.default_rng(seed)
    at = np.arange(count) / rate_hz
    pitch_hz = 120 + 15 * np.sin(2 * np.pi * 0.7 * at + rng.uniform(0, 2 * np.pi))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
    voice = np.zeros(count)
    for harmonic in range(1, 25):
        freq_hz = 120 * harmonic
        # Two broad formants over the natural fall of the glottis.
        gain = np.exp(-(((freq_hz - 600) / 350) ** 2)) + 0.5 * np.exp(
            -(((freq_hz - 1700) / 450) ** 2)
        )
        voice += (gain + 0.05) / harmonic**0.3 * np.sin(harmonic * phase)
    breath = rng.standard_normal(count) * 0.15
    syllables = 0.6 - 0.4 * np.cos(2 * np.pi * 4 * at)
    sound = (voice + breath) * syllables
    return _to_pcm(sound * 10 ** (dbfs / 20) / (np.sqrt(np.mean(sound**2)) * np.sqrt(2)))


def level_dbfs(pcm: bytes) -> float:
    """The RMS level; 0 is a full-scale sine, FLOOR_DBFS is silence or nothing at all."""
    samples = _from_pcm(pcm)
    if not samples.size:
        return FLOOR_DBFS
    return _decibels(float(np.sqrt(np.mean(samples**2))) * np.sqrt(2))


def tone_dbfs(pcm: bytes, freq_hz: float, rate_hz: int = RATE_HZ) -> float:
    """How much of one frequency there is, measured like `level_dbfs`."""
    samples = _from_pcm(pcm)
    if not samples.size:
        return FLOOR_DBFS
    window = np.hanning(samples.size + 2)[1:-1]
    turning = np.exp(-2j * np.pi * freq_hz * np.arange(samples.size) / rate_hz)
    return _decibels(2 * float(abs(np.sum(samples * window * turning)) / np.sum(window)))


def resample(pcm: bytes, from_hz: int, to_hz: int) -> bytes:
    """Bring a whole recording to another rate, by way of its spectrum. Not for a live stream."""
    samples = _from_pcm(pcm)
    if from_hz == to_hz or not samples.size:
        return pcm
    count = max(1, round(samples.size * to_hz / from_hz))
    spectrum = np.fft.rfft(samples)
    bins = count // 2 + 1
    kept = np.zeros(bins, dtype=complex)
    shared = min(bins, spectrum.size)
    kept[:shared] = spectrum[:shared]
    return _to_pcm(np.fft.irfft(kept, count) * count / samples.size)


def read_wav(path: Path | str, rate_hz: int = RATE_HZ) -> bytes:
    """Read a PCM WAV file of 8, 16, 24 or 32 bits, mixed to mono and brought to `rate_hz`.

    Raises:
        wave.Error: not a WAV file that holds PCM.
        OSError: the file cannot be read.
    """
    with wave.open(str(path), "rb") as file:
        data = file.readframes(file.getnframes())
        width, channels, from_hz = file.getsampwidth(), file.getnchannels(), file.getframerate()
    raw = np.frombuffer(data, np.uint8).reshape(-1, width)
    if width == 1:
        samples = (raw[:, 0].astype(np.float64) - 128) / 128
    else:
        padded = np.zeros((len(raw), 4), np.uint8)
        padded[:, 4 - width :] = raw
        samples = padded.reshape(-1).view("<i4").astype(np.float64) / 2**31
    mono = samples.reshape(-1, channels).mean(axis=1)
    return resample(_to_pcm(mono * 32768 / _FULL_SCALE), from_hz, rate_hz)


def write_wav(path: Path | str, pcm: bytes, rate_hz: int = RATE_HZ) -> None:
    """Write 16-bit mono PCM as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(rate_hz)
        file.writeframes(pcm)


def _samples(ms: float, rate_hz: int) -> int:
    return round(ms * rate_hz / 1000)


def _decibels(amplitude: float) -> float:
    return max(FLOOR_DBFS, 20 * float(np.log10(max(amplitude, 1e-9))))


def _to_pcm(samples: _FloatArray) -> bytes:
    scaled = np.clip(np.rint(samples * _FULL_SCALE), -32768, 32767)
    return scaled.astype("<i2").tobytes()


def _from_pcm(pcm: bytes) -> _FloatArray:
    return np.frombuffer(pcm, "<i2").astype(np.float64) / _FULL_SCALE
