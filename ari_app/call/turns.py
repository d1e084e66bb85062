"""How long the caller waits for an answer, as a person feels it. Pure.

From the end of the caller's speech, told by its energy on the line, to the first sound of the
answer on the line. The end of speech is only known some time after it, when the silence has lasted;
what counts is the moment at which it began.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ari_app.audio.formats import SAMPLE_BYTES

# Telephone speech lies around -20 dBFS, line noise below -50 dBFS.
_SPEECH_DBFS: Final = -40.0
_SOUND_DBFS: Final = -50.0
_MIN_SPEECH_SECONDS: Final = 0.1
"""A click is no speech."""
_UTTERANCE_SECONDS: Final = 0.5
"""Shorter speech than this asks for no answer: a cough, a slammed door."""
_MAX_PAUSE_SECONDS: Final = 0.3
"""A pause within a sentence; shorter than what any agent takes for the end of a turn."""
_KEPT: Final = 500


@dataclass(frozen=True, slots=True)
class ResponseTime:
    """One turn.

    Attributes:
        at: When the answer began; seconds on the clock of `now`.
        seconds: From the end of the caller's speech to then.
    """

    at: float
    seconds: float


def _swing(dbfs: float) -> float:
    """From the lowest to the highest sample of a sine of this level."""
    return float(2 * 32768 * 10 ** (dbfs / 20))


_SPEECH_SWING: Final = _swing(_SPEECH_DBFS)
_SOUND_SWING: Final = _swing(_SOUND_DBFS)


@lru_cache(maxsize=32)
def _some_of(size: int) -> struct.Struct:
    """Reads one sample in eight or so from PCM of `size` bytes.

    That tells speech from silence as well as all of them. The distances differ, or else a tone
    could stand still under them.
    """
    layout, left = "<", size // SAMPLE_BYTES
    distances = itertools.cycle((5, 7, 11))
    while left > 0:
        distance = min(next(distances), left)
        layout += f"h{(distance - 1) * SAMPLE_BYTES}x"
        left -= distance
    return struct.Struct(layout)


def _swing_of(pcm: bytes) -> int:
    """From the lowest to the highest of some samples."""
    some = _some_of(len(pcm)).unpack_from(pcm)
    return max(some) - min(some) if some else 0


class TurnMeter:
    """Measures the response time of every turn of one call.

    Attributes:
        responses: The turns so far, the last 500 of them.
        last_utterance_at: When the caller was last heard to speak for more than half a second; 0
            before the first time.
    """

    def __init__(self) -> None:
        self.responses: list[ResponseTime] = []
        self.last_utterance_at = 0.0
        self._speech_began: float | None = None
        self._speech_ended = 0.0
        self._waiting_since: float | None = None

    def heard(self, pcm: bytes, seconds: float, now: float) -> None:
        """Take what the caller said in the last `seconds` (16-bit PCM of that length)."""
        if _swing_of(pcm) >= _SPEECH_SWING:
            if self._speech_began is None:
                self._speech_began = now - seconds
            self._speech_ended = now
            if now - self._speech_began >= _MIN_SPEECH_SECONDS:
                self._waiting_since = now
            if now - self._speech_began >= _UTTERANCE_SECONDS:
                self.last_utterance_at = now
        else:
            self.quiet(now)

    def quiet(self, now: float) -> None:
        """Take note that the caller says nothing at `now`; for a line that carries nothing too."""
        if self._speech_began is not None and now - self._speech_ended > _MAX_PAUSE_SECONDS:
            self._speech_began = None

    def said(self, frame: bytes, now: float) -> ResponseTime | None:
        """Take a frame of the agent's that begins to sound now; the response time, if it is one.

        A frame that comes while the caller still speaks is no answer: they speak at once.
        """
        since = self._waiting_since
        if since is None or _swing_of(frame) < _SOUND_SWING:
            return None
        if self._speech_began is not None and now - self._speech_ended < _MIN_SPEECH_SECONDS:
            return None
        self._waiting_since = None
        response = ResponseTime(now, now - since)
        self.responses.append(response)
        del self.responses[:-_KEPT]
        return response

    def forget(self) -> None:
        """Forget a turn that waits for its answer: whoever answers now is somebody else."""
        self._waiting_since = None

    @property
    def last_speech_at(self) -> float:
        """When the caller was last heard to speak; 0 before the first time."""
        return self._speech_ended
