"""What a caller says: speech-like sound and pauses in turn, rendered once for all calls. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiosocket.frames import FRAME_MS, LineFormat, audio_header
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


def render_messages(pattern: TalkPattern, fmt: LineFormat) -> tuple[bytes, ...]:
    """One period as AudioSocket messages of 20 ms, ready to be written."""
    header = audio_header(fmt.kind, fmt.frame_bytes)
    generator = np.random.default_rng(1)
    frames = [round(seconds * 1000 / FRAME_MS) for seconds in _parts(pattern)]
    pause = generator.integers(
        -_NOISE_AMPLITUDE, _NOISE_AMPLITUDE, frames[0] * fmt.frame_samples, endpoint=True
    ).astype("<i2")
    speech = BuiltInVoice().speak(_TEXT, fmt.rate_hz)
    talk = np.resize(speech, frames[1] * fmt.frame_samples).astype("<i2")
    pcm = pause.tobytes() + talk.tobytes()
    size = fmt.frame_bytes
    return tuple(header + pcm[start : start + size] for start in range(0, len(pcm), size))


def _parts(pattern: TalkPattern) -> tuple[float, float]:
    return pattern.pause_seconds, pattern.talk_seconds
