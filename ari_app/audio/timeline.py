"""Two voices on one time line: the pure core of a recording.

Frames come with the time at which they were heard or played; what comes out is interleaved stereo
without holes, the caller on the left and the agent on the right.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from ari_app.audio.formats import SAMPLE_BYTES

_Samples = npt.NDArray[np.int16]

_SLACK_MS: Final = 60
"""A frame up to this much later than the end of the last one follows it without a hole."""
_HOLD_MS: Final = 200
"""How far behind the newest frame the time line is settled; more than slack and a frame."""
_BLOCK_MS: Final = 1000


class Side(enum.IntEnum):
    """A voice; the value is its channel."""

    CALLER = 0
    AGENT = 1


class StereoTimeline:
    """Places frames by their time and gives out what is settled.

    Within one voice frames never overlap and never change order: one that comes early is played
    after the last. A burst of late packets is therefore complete, and as long as it is.

    Args:
        rate_hz: rate of both voices, 16-bit mono PCM.
        started_at: the time (seconds, monotonic) of the first sample.
    """

    def __init__(self, rate_hz: int, started_at: float) -> None:
        self._rate_hz = rate_hz
        self._started_at = started_at
        self._slack = rate_hz * _SLACK_MS // 1000
        self._hold = rate_hz * _HOLD_MS // 1000
        self._block = rate_hz * _BLOCK_MS // 1000
        self._given = 0
        self._ends = [0, 0]
        self._waiting: tuple[deque[tuple[int, _Samples]], ...] = (deque(), deque())

    def add(self, side: Side, pcm: bytes, now: float) -> None:
        """Places PCM that ended at `now` (the caller's) or begins at `now` (the agent's)."""
        samples = np.frombuffer(pcm, "<i2", len(pcm) // SAMPLE_BYTES)
        position = round((now - self._started_at) * self._rate_hz)
        if side is Side.CALLER:
            position -= len(samples)
        end = self._ends[side]
        start = max(position if position - end > self._slack else end, self._given)
        self._ends[side] = start + len(samples)
        self._waiting[side].append((start, samples))

    def take(self, now: float) -> Iterator[bytes]:
        """Stereo PCM, in blocks of up to a second, as far as no frame after `now` can change it."""
        return self._give(round((now - self._started_at) * self._rate_hz) - self._hold)

    def finish(self) -> Iterator[bytes]:
        """All the rest, up to the end of the last frame."""
        return self._give(max(self._ends))

    def _give(self, until: int) -> Iterator[bytes]:
        while self._given < until:
            start = self._given
            self._given = end = min(until, start + self._block)
            stereo = np.zeros((end - start, len(self._waiting)), "<i2")
            for side, waiting in enumerate(self._waiting):
                _lay(stereo[:, side], waiting, start)
            yield stereo.tobytes()


def _lay(channel: _Samples, waiting: deque[tuple[int, _Samples]], start: int) -> None:
    """Moves samples from `waiting` to their places in a `channel` that begins at `start`."""
    end = start + len(channel)
    while waiting and waiting[0][0] < end:
        position, samples = waiting.popleft()
        fits = samples[: end - position]
        channel[position - start : position - start + len(fits)] = fits
        if len(fits) < len(samples):
            waiting.appendleft((end, samples[len(fits) :]))
