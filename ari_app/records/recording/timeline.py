"""Where each frame of a recording belongs. Pure: times come in, stereo PCM comes out."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ari_app.audio.formats import SAMPLE_BYTES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    _Samples = npt.NDArray[np.int16]

_SLACK_MS: Final = 60
"""A frame up to this much later than the end of the last one follows it without a hole."""
_HOLD_MS: Final = 200
"""How far behind the newest frame the time line is settled; more than slack and a frame."""
_BLOCK_MS: Final = 1000
_WATCHED_FRAMES: Final = 25
_OFF_MS: Final = 5
"""A voice of which so many frames in a row come later than this began early, or its clock is slower
than ours; where they come earlier, it began late, its clock is faster, or it was held up. Its next
silence is made as much longer or shorter: speech itself never has a hole."""
_QUIET_LEVEL: Final = 200
_NOISE_FRAMES: Final = 50
_NEAR_QUIETEST: Final = 1.25
_BELOW_SPEECH: Final = 8
"""On a line that is never so quiet, silence is what is nearly as quiet as the quietest of the last
frames, so many at least, and so many times quieter than the loudest: 18 dB."""


class Side(enum.IntEnum):
    """A voice; the value is its channel."""

    CALLER = 0
    AGENT = 1


class StereoTimeline:
    """Places frames by their time and gives out what is settled.

    Within one voice frames never overlap and never change order: one that comes early is played
    after the last. A burst of late packets is therefore complete, and as long as it is; the voice
    comes back to its time in the next silence.

    Args:
        rate_hz: Rate of both voices, 16-bit mono PCM.
        started_at: The time (seconds, monotonic) of the first sample.
    """

    def __init__(self, rate_hz: int, started_at: float) -> None:
        self._rate_hz = rate_hz
        self._started_at = started_at
        self._hold = rate_hz * _HOLD_MS // 1000
        self._block = rate_hz * _BLOCK_MS // 1000
        self._given = 0
        self._voices = (_Voice(rate_hz), _Voice(rate_hz))

    def add(self, side: Side, pcm: bytes, now: float) -> None:
        """Place PCM that ended at `now` (the caller's) or begins at `now` (the agent's)."""
        if len(pcm) % SAMPLE_BYTES:
            pcm = pcm[:-1]
        position = round((now - self._started_at) * self._rate_hz)
        if side is Side.CALLER:
            position -= len(pcm) // SAMPLE_BYTES
        self._voices[side].add(pcm, position, self._given)

    def reach(self, now: float) -> None:
        """Be silent up to `now`, where nothing has been placed so late."""
        self._voices[Side.AGENT].reach(round((now - self._started_at) * self._rate_hz))

    def take(self, now: float) -> Iterator[bytes]:
        """Yield stereo PCM, in blocks of up to a second, as far as no frame after `now` can change
        it."""
        return self._give(round((now - self._started_at) * self._rate_hz) - self._hold)

    def finish(self) -> Iterator[bytes]:
        """Yield all the rest, up to the end of the last frame."""
        return self._give(max(voice.end for voice in self._voices))

    def _give(self, until: int) -> Iterator[bytes]:
        import numpy as np

        while self._given < until:
            start = self._given
            self._given = end = min(until, start + self._block)
            stereo = np.zeros((end - start, len(self._voices)), "<i2")
            for side, voice in enumerate(self._voices):
                voice.lay(stereo[:, side], start)
            yield stereo.tobytes()


def _level(pcm: bytes) -> int:
    """Return the level of the loudest sample."""
    import numpy as np

    samples = np.frombuffer(pcm, "<i2")
    return max(-int(samples.min(initial=0)), int(samples.max(initial=0)))


class _Noise:
    """Tells the silence of a voice that is behind its time, or ahead, from what it says."""

    __slots__ = ("_loudest", "_quietest", "_seen")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._seen, self._quietest, self._loudest = 0, 1 << 15, 0

    def is_all_of(self, pcm: bytes) -> bool:
        level = _level(pcm)
        if level < _QUIET_LEVEL:
            return True
        self._seen += 1
        self._quietest = min(self._quietest, level)
        self._loudest = max(self._loudest, level)
        return (
            self._seen >= _NOISE_FRAMES
            and level <= self._quietest * _NEAR_QUIETEST
            and level * _BELOW_SPEECH <= self._loudest
        )


class _Voice:
    """One voice: what of it has not been given yet, in runs without a hole.

    Attributes:
        end: Behind its last sample.
    """

    def __init__(self, rate_hz: int) -> None:
        self._slack = rate_hz * _SLACK_MS // 1000
        self._off = rate_hz * _OFF_MS // 1000
        self._runs: deque[tuple[int, bytearray]] = deque()
        self._owed = 0
        """Samples of silence to be made longer by, or, below 0, shorter."""
        self._noise = _Noise()
        # What comes first is late against nothing: it belongs where it is.
        self._begins = True
        self._watched = self._least_late = self._most_late = 0
        self._begin_to_watch()
        self.end = 0

    def add(self, pcm: bytes, position: int, given: int) -> None:
        end = start = self.end
        if self._owed and self._noise.is_all_of(pcm):
            if self._owed > 0:
                start += self._owed
                self._owed = 0
            else:
                cut = min(-self._owed, len(pcm) // SAMPLE_BYTES)
                self._owed += cut
                position += cut
                pcm = pcm[cut * SAMPLE_BYTES :]
        start += self._judge(position - start)
        if start < given:
            start = given
        if start == end and self._runs:
            self._runs[-1][1].extend(pcm)
        else:
            self._runs.append((start, bytearray(pcm)))
        self.end = start + len(pcm) // SAMPLE_BYTES

    def _judge(self, late: int) -> int:
        """Return how much silence there is before a frame that comes so much after the last."""
        if late > self._slack or self._begins:
            self._begins = False
            self._begin_to_watch()
            self._owed = 0
            self._noise.forget()
            return max(late, 0)
        self._watched += 1
        if late < self._least_late:
            self._least_late = late
        if late > self._most_late:
            self._most_late = late
        if self._watched < _WATCHED_FRAMES:
            return 0
        self._owed = 0
        if self._least_late > self._off:
            self._owed = self._least_late
        elif self._most_late < -self._off:
            self._owed = self._most_late
        else:
            self._noise.forget()
        self._begin_to_watch()
        return 0

    def _begin_to_watch(self) -> None:
        self._watched, self._least_late, self._most_late = 0, self._slack, -self._slack * 1000

    def reach(self, position: int) -> None:
        if position > self.end:
            self.end = position
            self._begins = True
            self._runs.append((position, bytearray()))

    def lay(self, channel: _Samples, start: int) -> None:
        """Move samples to their places in a `channel` that begins at `start`."""
        import numpy as np

        end = start + len(channel)
        runs = self._runs
        while runs and runs[0][0] < end:
            position, pcm = runs.popleft()
            fits = (end - position) * SAMPLE_BYTES
            samples = np.frombuffer(pcm[:fits], "<i2")
            channel[position - start : position - start + len(samples)] = samples
            if len(pcm) > fits:
                runs.appendleft((end, pcm[fits:]))
