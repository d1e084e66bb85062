"""The voices of the demonstration: the scene's sentences, as espeak-ng has read them once, so that
they are words also where it is not installed. `python -m scripts.demo_voices` makes them anew.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import soxr

from ari_app.audio.g711 import ulaw_to_pcm
from lab.demo.analysis import Samples, speech_spans
from lab.practice_agent.syllables import speak_syllables
from lab.practice_agent.voice import ESPEAK, EspeakVoice, Voice, find_voice, finish
from lab.softphone.codec import RATE_HZ

FOLDER = Path(__file__).parent / "spoken"
"""µ-law at 8 kHz without a header: what a telephone line leaves of a voice. Nobody owns what
espeak-ng reads out; its licence is about the program."""

AGENT_VOICE, CALLER_VOICE = "en", "en-us+f3"
"""Of espeak-ng's."""
_HIGHER = 1.45
_NAME_LENGTH = 40


class HigherVoice:
    """The practice agent's built-in syllables, played faster: another, younger person."""

    def speak(self, text: str, rate_hz: int) -> Samples:
        """Return mono samples at `rate_hz`."""
        samples, native_hz = speak_syllables(text)
        return finish(samples, round(native_hz * _HIGHER), rate_hz)


class KeptVoice:
    """Sentences that are kept in `FOLDER`; `otherwise` speaks all others."""

    def __init__(self, otherwise: Voice) -> None:
        self._otherwise = otherwise

    def speak(self, text: str, rate_hz: int) -> Samples:
        """Return mono samples at `rate_hz`."""
        try:
            ulaw = (FOLDER / file_name(text)).read_bytes()
        except OSError:
            return self._otherwise.speak(text, rate_hz)
        samples = np.frombuffer(ulaw_to_pcm(ulaw), "<i2")
        if rate_hz != RATE_HZ:
            samples = soxr.resample(samples, RATE_HZ, rate_hz, quality="HQ")
        return np.asarray(samples, np.int16)


def file_name(text: str) -> str:
    """Where a sentence is kept: the beginning of its letters."""
    return re.sub("[^a-z]+", "-", text.lower())[:_NAME_LENGTH].strip("-") + ".ulaw"


def agent_voice() -> Voice:
    """The agent's voice; what the scene does not have is spoken as the practice agent does."""
    return KeptVoice(find_voice())


def caller_voice() -> Voice:
    """The caller's voice, which must not be taken for the agent's."""
    program = shutil.which(ESPEAK)
    return KeptVoice(EspeakVoice(program, voice=CALLER_VOICE) if program else HigherVoice())


def spoken(voice: Voice, text: str) -> bytes:
    """Return `text` as 16-bit PCM at 8 kHz, without the silence before and behind it."""
    samples = np.asarray(voice.speak(text, RATE_HZ), np.int16)
    spans = speech_spans(samples, RATE_HZ)
    if not spans:
        return b""
    start, end = (round(at_s * RATE_HZ) for at_s in (spans[0].start_s, spans[-1].end_s))
    return samples[start:end].astype("<i2").tobytes()
