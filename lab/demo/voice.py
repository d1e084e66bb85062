"""The caller's voice, which must not be taken for the agent's."""

from __future__ import annotations

import shutil

import numpy as np

from lab.demo.analysis import Samples, speech_spans
from lab.practice_agent.syllables import speak_syllables
from lab.practice_agent.voice import ESPEAK, EspeakVoice, Voice, finish
from lab.softphone.codec import RATE_HZ

_ESPEAK_VOICE = "en-us+f3"
_HIGHER = 1.45


class HigherVoice:
    """The practice agent's built-in syllables, played faster: another, younger person."""

    def speak(self, text: str, rate_hz: int) -> Samples:
        """Return mono samples at `rate_hz`."""
        samples, native_hz = speak_syllables(text)
        return finish(samples, round(native_hz * _HIGHER), rate_hz)


def caller_voice() -> Voice:
    """`espeak-ng` with a woman's voice where it is installed, otherwise syllables."""
    program = shutil.which(ESPEAK)
    return EspeakVoice(program, voice=_ESPEAK_VOICE) if program else HigherVoice()


def spoken(voice: Voice, text: str) -> bytes:
    """Return `text` as 16-bit PCM at 8 kHz, without the silence before and behind it."""
    samples = np.asarray(voice.speak(text, RATE_HZ), np.int16)
    spans = speech_spans(samples, RATE_HZ)
    if not spans:
        return b""
    start, end = (round(at_s * RATE_HZ) for at_s in (spans[0].start_s, spans[-1].end_s))
    return samples[start:end].astype("<i2").tobytes()
