"""A voice without words: one hummed vowel for each syllable of a text. Pure and deterministic.

Source and filter: the harmonics of a gliding pitch, weighted by the resonances of the vowel that
the letters suggest. Pitch falls along a sentence and rises before a question mark.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RATE_HZ = 22050
HIGHEST_HZ = 3600.0
"""Nothing above it: all of the voice passes through a telephone line."""
PITCH_HZ = 125.0
SYLLABLE_S = 0.17
WORD_GAP_S = 0.035
COMMA_GAP_S = 0.18
STOP_GAP_S = 0.34
ONSET_S = 0.025

# First three resonances in Hz (Peterson and Barney, 1952, rounded).
_FORMANTS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (390, 1990, 2550),
    "o": (570, 840, 2410),
    "u": (440, 1020, 2240),
    "y": (300, 2200, 2900),
}
_BANDWIDTHS_HZ = (90.0, 110.0, 170.0)
_WORD = re.compile(r"[^\s]+")
_VOWELS = re.compile(r"[aeiouy]+")
_SIBILANTS = frozenset("cfhjkpqstxz")


def speak_syllables(text: str) -> tuple[Floats, int]:
    """Return samples in -1..1 and their rate; empty for a text without a letter or digit."""
    words = _WORD.findall(text.lower())
    pieces: list[Floats] = []
    for sentence in _sentences(words):
        rises = sentence[-1].endswith("?")
        for index, word in enumerate(sentence):
            progress = index / len(sentence)
            pitch = PITCH_HZ * (1.15 - 0.3 * progress)
            if rises and index == len(sentence) - 1:
                pitch = PITCH_HZ * 1.3
            pieces.extend(_word(word, pitch))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32), RATE_HZ


def _sentences(words: list[str]) -> list[list[str]]:
    sentences: list[list[str]] = [[]]
    for word in words:
        sentences[-1].append(word)
        if word[-1] in ".!?":
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def _word(word: str, pitch_hz: float) -> list[Floats]:
    letters = "".join(filter(str.isalnum, word))
    if not letters:
        return []
    pieces = [
        _syllable(group[0], pitch_hz, seed=zlib.crc32(f"{letters}/{number}".encode()))
        for number, group in enumerate(_VOWELS.findall(letters) or ["e"])
    ]
    if letters[0] in _SIBILANTS:
        pieces.insert(0, _hiss(zlib.crc32(letters.encode())))
    gap_s = STOP_GAP_S if word[-1] in ".!?" else COMMA_GAP_S if word[-1] in ",;:" else WORD_GAP_S
    return [*pieces, np.zeros(int(gap_s * RATE_HZ), np.float32)]


def _syllable(vowel: str, pitch_hz: float, *, seed: int) -> Floats:
    random = np.random.default_rng(seed)
    length_s = SYLLABLE_S * random.uniform(0.8, 1.2)
    start_hz = pitch_hz * random.uniform(0.96, 1.06)
    count = int(length_s * RATE_HZ)
    pitch = np.linspace(start_hz, start_hz * 0.94, count)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    numbers = np.arange(1, int(HIGHEST_HZ / start_hz) + 1)
    weights = _resonance(numbers * start_hz, _FORMANTS[vowel]) / numbers**0.5
    sound = weights @ np.sin(np.outer(numbers, phase))
    sound = sound * _envelope(count) / np.sqrt(np.sum(np.square(weights)) / 2)
    return np.asarray(sound * 0.1, np.float32)


def _resonance(frequencies_hz: NDArray[np.floating], formants: tuple[int, ...]) -> Floats:
    distances = [
        (frequencies_hz - formant) / bandwidth
        for formant, bandwidth in zip(formants, _BANDWIDTHS_HZ, strict=True)
    ]
    strengths = (1.0, 0.6, 0.3)
    gains = [
        strength / (1 + distance**2)
        for strength, distance in zip(strengths, distances, strict=True)
    ]
    return np.asarray(np.sum(gains, axis=0) + 0.02, np.float32)


def _hiss(seed: int) -> Floats:
    count = int(0.05 * RATE_HZ)
    noise = np.random.default_rng(seed).standard_normal(count)
    return np.asarray(noise * _envelope(count) * 0.02, np.float32)


def _envelope(count: int) -> NDArray[np.float64]:
    ramp = min(int(ONSET_S * RATE_HZ), count // 2)
    rise = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, ramp))
    return np.concatenate([rise, np.ones(count - 2 * ramp), rise[::-1]])
