"""What a caller says: speech-like sound and pauses in turn, rendered once for all calls. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiosocket.frames import FRAME_MS, SAMPLE_BYTES, SlinFormat, audio_header
from lab.practice_agent.voice import BuiltInVoice

_TEXT = "I would like to know when my parcel will arrive, it was sent on Monday morning. "
_NOISE_AMPLITUDE = 6
"""A line is never quite silent: about -78 dBFS."""


@dataclass(frozen=True, slots=True)
class TalkPattern:
    """A period of a conversation from the caller's side: first a pause, then speech."""

    talk_seconds: float = 2.5
    pause_seconds: float = 5.5

    @property
    def period_seconds(self) -> float:
        """One turn of each side."""
        return self.talk_seconds + self.pause_seconds


def render_messages(pattern: TalkPattern, fmt: SlinFormat) -> tuple[bytes, ...]:
    """One period as AudioSocket messages of 20 ms, ready to be written."""
    header = audio_header(fmt.kind, fmt.frame_bytes)
    return tuple(header + frame for frame in render_frames(pattern, fmt.rate_hz))


def render_frames(pattern: TalkPattern, rate_hz: int) -> tuple[bytes, ...]:
    """One period as 16-bit PCM, in frames of 20 ms."""
    samples = rate_hz * FRAME_MS // 1000
    generator = np.random.default_rng(1)
    frames = [round(seconds * 1000 / FRAME_MS) for seconds in _parts(pattern)]
    pause = generator.integers(
        -_NOISE_AMPLITUDE, _NOISE_AMPLITUDE, frames[0] * samples, endpoint=True
    ).astype("<i2")
    speech = BuiltInVoice().speak(_TEXT, rate_hz)
    talk = np.resize(speech, frames[1] * samples).astype("<i2")
    pcm = pause.tobytes() + talk.tobytes()
    size = samples * SAMPLE_BYTES
    return tuple(pcm[start : start + size] for start in range(0, len(pcm), size))


def _parts(pattern: TalkPattern) -> tuple[float, float]:
    return pattern.pause_seconds, pattern.talk_seconds
