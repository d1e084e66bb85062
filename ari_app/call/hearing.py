"""Detects speech, noise and beeps on a line, and measures the wait for an answer. Pure.

This is the one place that tells speech from noise. Speech is what stands out from the line's own
noise for longer than a click, and does not stay as it is: noise that begins in mid-call stands out
as well, but a voice rises and falls several times a second. So sound is taken for speech at once,
and for noise in retrospect, when it has not changed for a second and a half; what it had moved is
then put back. Hum, hiss, comfort noise and a held tone are all noise by this measure.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ari_app.audio.formats import SAMPLE_BYTES

if TYPE_CHECKING:
    import numpy as np

_native_swing: Callable[[bytes, int, int], int] | None = None
with contextlib.suppress(ImportError):
    from linekit._native import swing as _native_swing

_FRAME_SECONDS: Final = 0.02

_STANDS_OUT: Final = 2.7
"""Speech begins so far above the noise: 8.6 dB."""
_HOLDS: Final = 1.8
"""And goes on while it is so far above it: 5 dB; that keeps it from flickering."""
_WITHIN_REACH: Final = 0.1
"""Nor is it speech 20 dB below its own loudest part: the echo of a room, or noise not known yet."""
_RECENT_FRAMES: Final = 0b1111
_BEGIN_FRAMES: Final = 3
"""So many of the last four must stand out."""
_SPEECH_FRAMES: Final = 4
"""What ends after fewer was a click."""
_MAX_PAUSE_SECONDS: Final = 0.3
"""A pause within a sentence; shorter than what any agent takes for the end of a turn."""
_TURN_PAUSE_SECONDS: Final = 3.0
"""Whoever says something after a longer pause begins another turn."""
_UTTERANCE_SECONDS: Final = 0.5
"""Shorter speech than this asks for no answer: a cough, a slammed door."""

_STEADY_SECONDS: Final = 1.5
"""What stays within `_STEADY` of its mean for so long is no voice."""
_STEADY: Final = 2.0
_VARIES: Final = 0.32
"""A fall to this part of the loudest, 10 dB, is more than noise does. A rise alone says nothing: a
fan gathers speed."""
_MEAN_OF: Final = 0.2

_FOLLOWS: Final = 0.05
"""How much of its way to the present level the floor goes with each frame: half of it in 0.3 s."""
_FAR_BELOW: Final = 0.25
"""Less than this part of the floor is another floor, not a dip of the old one."""
_DIGITAL_SILENCE: Final = 16
"""The smallest step of G.711 up and down; where a phone sends it, that is not the line's noise."""

_ANSWER_GAP_SECONDS: Final = 0.1
_ECHO_SECONDS: Final = 0.4
"""So long after the agent's sound its echo may still come back."""
_KEPT: Final = 500


def _swing_at(dbfs: float) -> float:
    """Return the swing, from the lowest to the highest sample, of a sine of this level."""
    return float(2 * 32768 * 10 ** (dbfs / 20))


_LOWEST_FLOOR: Final = _swing_at(-60.0)
_ECHO_SWING: Final = _swing_at(-34.0)
"""What is quieter than this while the agent sounds may be its echo."""
_SOUND_SWING: Final = _swing_at(-50.0)
_LOUD: Final = _LOWEST_FLOOR * _STANDS_OUT
"""Nothing below it is ever taken for speech."""


@dataclass(frozen=True, slots=True)
class ResponseTime:
    """One turn.

    Attributes:
        at: When the answer began; seconds on the clock of `now`.
        seconds: From the end of the caller's speech to then.
    """

    at: float
    seconds: float


@lru_cache(maxsize=32)
def _some_of(size: int) -> struct.Struct:
    """Read a few samples of a frame of `size` bytes.

    They tell loud from quiet nearly as well as all of them, and these distances a tone of any
    frequency as well as hiss: whatever its phase, they see a fifth of its swing at least, and three
    fifths at 19 of 20 frequencies.
    """
    samples = left = size // SAMPLE_BYTES
    distances = itertools.cycle([max(1, samples * part // 160) for part in (9, 8, 6, 12)])
    layout = "<"
    while left > 0:
        distance = min(next(distances), left)
        layout += f"h{(distance - 1) * SAMPLE_BYTES}x"
        left -= distance
    return struct.Struct(layout)


def _swing(pcm: bytes, start: int, size: int) -> int:
    """Return the swing of a frame, from the lowest to the highest of some of its samples."""
    if _native_swing is not None:
        return _native_swing(pcm, start, size)
    some = _some_of(size).unpack_from(pcm, start)
    return max(some) - min(some) if some else 0


def _swing_of(pcm: bytes) -> int:
    return _swing(pcm, 0, len(pcm))


_LOWEST_DBFS: Final = -60


def level_dbfs(pcm: bytes) -> int:
    """Return the level of PCM in dBFS, as that of a sine with the same swing; -60 at least."""
    swing = _swing_of(pcm)
    return max(_LOWEST_DBFS, round(20 * math.log10(swing / 65536))) if swing else _LOWEST_DBFS


class Hearing:
    """Hears one line: when its caller speaks, and how long each answer takes.

    Args:
        rate_hz: Of the 16-bit PCM that it hears.

    Attributes:
        responses: The turns so far, the last 500 of them.
        last_speech_at: When the caller was last heard to speak; 0 before the first time.
        last_utterance_at: The same, of speech of more than half a second.
        noise_at: When sound that had been taken for speech was last found to be noise.
        loud_at: When there was last anything above -51 dBFS, be it noise.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._frame_bytes = round(rate_hz * _FRAME_SECONDS) * SAMPLE_BYTES
        self._rest = b""

        self._floor = _LOWEST_FLOOR
        self._stands_out = _LOWEST_FLOOR * _STANDS_OUT
        self._recent = 0
        self._last = 0
        self._echoes_until = 0.0

        self._speaks = False
        self._began = 0.0
        self._frames = 0
        self._odd = False
        self._mean = self._peak = self._holds = 0.0
        self._steady_since = 0.0
        self._varies = False
        self._before: tuple[float, float, float | None] = (0.0, 0.0, None)

        self.responses: list[ResponseTime] = []
        self.last_speech_at = 0.0
        self.last_utterance_at = 0.0
        self.noise_at = 0.0
        self.loud_at = 0.0
        self._waiting_since: float | None = None
        self._turn_began = self._turn_before = 0.0

    # --- the caller

    def heard(self, pcm: bytes, now: float) -> None:
        """Take PCM of any length, whole samples, that ended at `now`."""
        size, length = self._frame_bytes, len(pcm)
        if self._rest or length % size:
            pcm = self._rest + pcm
            left = len(pcm) % size
            length = len(pcm) - left
            self._rest = pcm[length:]
            now -= left / SAMPLE_BYTES / self._rate_hz
        for at in range(0, length, size):
            self._heard_frame(
                _swing(pcm, at, size), now - (length - at - size) / size * _FRAME_SECONDS
            )

    def _heard_frame(self, swing: int, now: float) -> None:
        if swing >= _LOUD:
            self.loud_at = now
        if self._speaks:
            self._goes_on(swing, now)
        elif swing >= self._stands_out:
            if swing >= _ECHO_SWING or now >= self._echoes_until:
                self._recent = (self._recent << 1 | 1) & _RECENT_FRAMES
                if self._recent.bit_count() >= _BEGIN_FRAMES:
                    self._begins(swing, now)
            self._last = swing
        else:
            if self._recent:
                self._recent = self._recent << 1 & _RECENT_FRAMES
            if now >= self._echoes_until:
                self._noise(swing)

    def take_turn(self, now: float) -> tuple[float, float] | None:
        """Return when the caller's turn, whose words are known now, began and ended.

        None: nothing was heard since the last one. Whoever still speaks has begun the next.
        """
        self.quiet(now)
        began, self._turn_began = self._turn_began, now if self._speaks else 0.0
        return (began, self.last_speech_at) if began else None

    def is_quiet(self, pcm: bytes) -> bool:
        """Return whether PCM is no louder than the line's noise; it is not counted as heard."""
        return _swing_of(pcm) < self._floor * _HOLDS

    def is_unsure(self, now: float) -> bool:
        """Return whether the caller seems to speak, and it may yet turn out to be noise."""
        self.quiet(now)
        return self._speaks and not self._varies

    def _noise(self, swing: float) -> None:
        """Let the noise floor follow a frame that is no speech."""
        floor = self._floor
        if swing > floor * _FAR_BELOW:
            floor += (swing - floor) * _FOLLOWS
        elif swing > _DIGITAL_SILENCE:
            floor = swing / _FAR_BELOW / 2
        else:
            return
        self._floor = floor = floor if floor > _LOWEST_FLOOR else _LOWEST_FLOOR
        self._stands_out = floor * _STANDS_OUT

    def quiet(self, now: float) -> None:
        """Note that nothing has come until `now`."""
        if self._speaks and now - self.last_speech_at > _MAX_PAUSE_SECONDS:
            self._ends()

    def _ends(self) -> None:
        if self._frames < _SPEECH_FRAMES:
            self.last_speech_at, self.last_utterance_at, self._waiting_since = self._before
            self._turn_began = self._turn_before
        self._speaks = False

    def _begins(self, swing: int, now: float) -> None:
        self._before = (self.last_speech_at, self.last_utterance_at, self._waiting_since)
        self._speaks, self._odd = True, False
        self._frames = _BEGIN_FRAMES
        self._began = self._steady_since = now - _BEGIN_FRAMES * _FRAME_SECONDS
        self._turn_before = self._turn_began
        if not self._turn_began or now - self.last_speech_at > _TURN_PAUSE_SECONDS:
            self._turn_began = self._began
        self._mean = self._peak = (swing + self._last) / 2
        self._holds = max(self._floor * _HOLDS, self._peak * _WITHIN_REACH)
        self._varies = False
        self._recent = 0
        self.last_speech_at = self._waiting_since = now

    def _goes_on(self, swing: int, now: float) -> None:
        if swing >= self._holds:
            self.last_speech_at = self._waiting_since = now
            self._frames += 1
            if now - self._began >= _UTTERANCE_SECONDS:
                self.last_utterance_at = now
        elif now - self.last_speech_at > _MAX_PAUSE_SECONDS:
            self._ends()
            return
        else:
            self._noise(swing)
        # How it changes is looked at in pairs of frames.
        if not self._odd:
            self._odd, self._last = True, swing
            return
        self._odd = False
        pair = (swing + self._last) / 2
        if pair > self._peak:
            self._peak = pair
            self._holds = max(self._floor * _HOLDS, pair * _WITHIN_REACH)
        elif pair < self._peak * _VARIES:
            self._varies = True
        mean = self._mean
        if not mean <= pair * _STEADY <= mean * (_STEADY * _STEADY):
            self._steady_since, self._mean = now, pair
            return
        self._mean = mean + (pair - mean) * _MEAN_OF
        if now - self._steady_since >= _STEADY_SECONDS:
            self._was_noise(now)

    def _was_noise(self, now: float) -> None:
        """Take back what was taken for speech and is noise; speech right before the noise stays."""
        spoke, uttered, waits = self._before
        if self._varies and (end := self._steady_since) > self._began:
            spoke, waits = end, None if self._waiting_since is None else end
            if end - self._began >= _UTTERANCE_SECONDS:
                uttered = end
        else:
            self._turn_began = self._turn_before
        self.last_speech_at, self.last_utterance_at, self._waiting_since = spoke, uttered, waits
        self._speaks = False
        self.noise_at = now
        self._floor = max(self._mean, _LOWEST_FLOOR)
        self._stands_out = self._floor * _STANDS_OUT

    # --- the agent

    def said(self, frame: bytes, now: float) -> ResponseTime | None:
        """Take a frame of the agent's that the caller begins to hear at `now`.

        Returns:
            The response time, if the frame begins an answer. One that comes while the caller still
            speaks does not: both speak at once.
        """
        self._echoes_until = now + _ECHO_SECONDS
        since = self._waiting_since
        if since is None or _swing_of(frame) < _SOUND_SWING:
            return None
        if self._speaks and now - self.last_speech_at < _ANSWER_GAP_SECONDS:
            return None
        self.forget()
        response = ResponseTime(now, now - since)
        self.responses.append(response)
        del self.responses[:-_KEPT]
        return response

    def forget(self) -> None:
        """Forget that a turn waits for its answer: it has one, or the agent is not to answer."""
        self._waiting_since = None
        self._before = (*self._before[:2], None)


# Beeps lie around -20 dBFS.
_BEEP_POWER: Final = 10 ** (-42.0 / 10) * 32768**2 / 2
_AFTER_SPEECH_SECONDS: Final = 1.5
_AFTER_BEEP_SECONDS: Final = 0.25
_MIN_BEEP_SECONDS: Final = 0.15
_LOWEST_BEEP_HZ: Final = 350.0
_HIGHEST_BEEP_HZ: Final = 2500.0
# How much of its power a beep has around one frequency, and how far that may move meanwhile. With a
# Hann window a tone covers four bins.
_BEEP_SHARE: Final = 0.95
_BEEP_DRIFT_HZ: Final = 60.0


class GreetingEar:
    """Hears an answering machine's greeting: speech with pauses, and often a beep behind it.

    After a beep a short silence is enough; after speech the silence must be longer than a pause.
    It is heard here, since not every line can tell.

    Args:
        rate_hz: Of the 16-bit PCM that it hears.

    Attributes:
        spoke: Whether anything has been said yet.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._hearing = Hearing(rate_hz)
        self._tone_hz: float | None = None
        self._tone_seconds = 0.0
        self._tone_at = 0.0
        self.spoke = False

    def heard(self, pcm: bytes, now: float) -> None:
        """Take a frame that ends at `now` (seconds, monotonic)."""
        import numpy as np

        self._hearing.heard(pcm, now)
        self.spoke = self.spoke or self._hearing.last_speech_at > 0
        samples = np.frombuffer(pcm, "<i2").astype(np.float64)
        if not samples.size or float(samples @ samples) / samples.size < _BEEP_POWER:
            return
        seconds = samples.size / self._rate_hz
        tone_hz = self._tone(samples)
        if tone_hz is None:
            self._tone_hz, self._tone_seconds = None, 0.0
            return
        if self._tone_hz is not None and abs(tone_hz - self._tone_hz) <= _BEEP_DRIFT_HZ:
            self._tone_seconds += seconds
        else:
            self._tone_hz, self._tone_seconds = tone_hz, seconds
        self._tone_at = now

    def over(self, now: float) -> bool:
        """Return whether the greeting has ended at `now`."""
        if not self.spoke:
            return False
        hearing = self._hearing
        beeped = self._tone_seconds >= _MIN_BEEP_SECONDS
        last = max(hearing.last_speech_at, hearing.noise_at, self._tone_at)
        return now - last >= (_AFTER_BEEP_SECONDS if beeped else _AFTER_SPEECH_SECONDS)

    def _tone(self, samples: np.ndarray) -> float | None:
        """Return the frequency of a frame that is one tone."""
        import numpy as np

        power = np.abs(np.fft.rfft(samples * np.hanning(samples.size))) ** 2
        top = int(np.argmax(power))
        hz = top * self._rate_hz / samples.size
        share = float(power[max(0, top - 2) : top + 3].sum() / power.sum())
        is_beep = share >= _BEEP_SHARE and _LOWEST_BEEP_HZ <= hz <= _HIGHEST_BEEP_HZ
        return hz if is_beep else None
