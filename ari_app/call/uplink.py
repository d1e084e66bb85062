"""The caller's voice on its way to the agent: gaps filled, converted, cut into chunks. Pure.

A phone with silence suppression sends nothing while nobody speaks, and Asterisk passes on only
what arrives. The agent decides that a turn has ended by hearing silence, so silence has to be made
here, by the wall clock. Whether a packet is late or will never come cannot be known; `slack_ms` is
how long to wait for it. One that comes after all is kept: it puts the stream ahead of the clock,
and that much less is filled later.

A phone may also send more than there is time for: after a hold some send two or three streams at
once, most of it silence. An agent that got all of it would hear the caller at twice the speed. So
what puts the stream ahead of the clock and is not late is surplus: silence is dropped at once,
anything else when it is more than packets that come early. Where one of the streams is silent, as
it mostly is, just the voice is left. Two voices at once cannot be told apart, for nothing says
which packet is whose; the agent then hears pieces of both, in real time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ari_app.audio.convert import Converter
from ari_app.audio.formats import SAMPLE_BYTES

_FILL_MS: Final = 20
"""Silence is made in whole frames. Where a phone's clock is slow this is one short gap every few
minutes, not a click of a few samples every second."""

_QUIET_AHEAD_SECONDS: Final = 0.01
"""Silence that comes when the stream is further ahead of the clock than this is surplus."""
_AHEAD_SECONDS: Final = 0.04
"""And so is anything else from here on. Packets of one voice come early by less."""
_BURST_SPEED: Final = 5
"""What was held up comes so many times faster than speech at least; three streams do not."""
_MAX_LATE_SECONDS: Final = 5.0
_KEPT_AHEAD_SECONDS: Final = 0.3
"""So far a line that holds packets up may stay ahead: then the next hold-up makes no gap."""
_FORGOTTEN_BY_HALF_SECONDS: Final = 30.0


@dataclass(slots=True)
class UplinkStats:
    """What went into the stream, at the line's rate."""

    received_samples: int = 0
    filled_samples: int = 0
    gaps: int = 0
    """Stretches of filling without any audio between."""
    surplus_quiet_samples: int = 0
    surplus_samples: int = 0
    """Dropped, for there was no time for them, silence and anything else; not among those
    received."""

    @property
    def all_surplus_samples(self) -> int:
        """Both kinds."""
        return self.surplus_quiet_samples + self.surplus_samples


class Uplink:
    """One call's stream to the agent.

    At every `tick`, what was received and filled is at most `slack_ms` behind the wall clock.

    Args:
        line_rate_hz: rate of the caller's 16-bit PCM.
        converter: from the line's format to the agent's; this stream's own.
        chunk_ms: length of each chunk that is handed out.
        slack_ms: how far the audio may lag behind the wall clock before silence is filled in.

    Attributes:
        ends_at: the moment that the stream has come to; while it lies ahead there may be surplus.
    """

    def __init__(
        self, line_rate_hz: int, converter: Converter, chunk_ms: int, slack_ms: int = 60
    ) -> None:
        self._rate_hz = line_rate_hz
        self._converter = converter
        self._chunk_bytes = line_rate_hz * chunk_ms // 1000 * SAMPLE_BYTES
        self._slack_seconds = slack_ms / 1000
        self._bytes_per_second = line_rate_hz * SAMPLE_BYTES
        self._fill_samples = line_rate_hz * _FILL_MS // 1000
        self._pending = bytearray()
        self._started: float | None = None
        self._ticked = 0.0
        self._reading_until = 0.0
        self.ends_at = 0.0
        self._in_gap = False
        self._gap_samples = 0
        self._late_samples = 0
        self._burst_began = 0.0
        self._burst_from = 0
        self._late_seconds = 0.0
        self._late_at = 0.0
        self.stats = UplinkStats()

    def start(self, now: float) -> None:
        """Begins the stream: from `now` (seconds, monotonic) on every moment is heard by the agent.

        The converter is primed, so that the first chunk is as long as every other.
        """
        self._started = self._ticked = self.ends_at = now
        self._converter.prime()

    def convert_with(self, converter: Converter) -> None:
        """Goes on in another format; what has not been handed out yet comes in that one."""
        converter.prime()
        self._converter = converter

    def is_surplus(self, pcm: bytes, now: float, is_quiet: Callable[[bytes], bool]) -> bool:
        """Whether there is no time for this audio: it is counted, and not to be pushed.

        Args:
            pcm: The caller's audio, whole samples of any number.
            now: When it came.
            is_quiet: Tells whether there is nothing in it; rarely asked.
        """
        ahead = self.ends_at - now
        return ahead > _QUIET_AHEAD_SECONDS and self._has_no_room(pcm, now, ahead, is_quiet)

    def _has_no_room(
        self, pcm: bytes, now: float, ahead: float, is_quiet: Callable[[bytes], bool]
    ) -> bool:
        # What late audio has put the stream ahead is no surplus, and is worked off in silence.
        samples = len(pcm) // SAMPLE_BYTES
        if is_quiet(pcm):
            kept = min(self._late_seconds, _KEPT_AHEAD_SECONDS)
            kept *= 0.5 ** ((now - self._late_at) / _FORGOTTEN_BY_HALF_SECONDS)
            if ahead <= _QUIET_AHEAD_SECONDS + kept:
                return False
            self._late_seconds = min(self._late_seconds, ahead)
            self.stats.surplus_quiet_samples += samples
            return True
        if ahead <= _AHEAD_SECONDS + self._late_seconds:
            return False
        if self._comes_late(samples, now):
            self._late_samples -= samples
            self._late_seconds += samples / self._rate_hz
            self._late_at = now
            return False
        self.stats.surplus_samples += samples
        return True

    def _comes_late(self, samples: int, now: float) -> bool:
        """Whether audio is part of a burst, in the place of which silence was filled in."""
        if self._in_gap:
            return self._gap_samples >= samples
        came = (self.stats.received_samples - self._burst_from) / self._rate_hz
        fast = came >= _BURST_SPEED * (now - self._burst_began)
        return fast and self._late_samples >= samples

    def push(self, pcm: bytes, now: float) -> list[bytes]:
        """Takes the caller's audio, whole samples of any number; returns the chunks it completes.

        The first audio begins the stream if `start` has not.
        """
        if self._started is None:
            self.start(now)
        stats = self.stats
        stats.received_samples += len(pcm) // SAMPLE_BYTES
        self.ends_at += len(pcm) / self._bytes_per_second
        if self._in_gap:
            self._in_gap = False
            self._late_samples = min(self._gap_samples, round(_MAX_LATE_SECONDS * self._rate_hz))
            self._burst_began, self._burst_from = now, stats.received_samples
        self._pending += pcm
        return self._chunks()

    def tick(self, now: float) -> list[bytes]:
        """Fills what is missing at `now`; returns the chunks it completes. Called every 20 ms.

        A tick that is itself late tells that this process was held up, and what came meanwhile is
        still to be read. It goes by the time of the tick before. The next tick may come at once,
        before anything has been read: it waits, too.
        """
        if self._started is None:
            return []
        wall = now
        if now - self._ticked > self._slack_seconds:
            wall = self._ticked
            self._reading_until = now + _FILL_MS / 1000
        elif now < self._reading_until:
            return []
        self._ticked = now
        missing = round((wall - self.ends_at - self._slack_seconds) * self._rate_hz)
        if missing <= 0:
            return []
        stats = self.stats
        filled = -(-missing // self._fill_samples) * self._fill_samples
        stats.filled_samples += filled
        self.ends_at += filled / self._rate_hz
        if not self._in_gap:
            self._in_gap = True
            self._gap_samples = 0
            self._late_seconds = 0.0
            stats.gaps += 1
        self._gap_samples += filled
        self._pending += bytes(filled * SAMPLE_BYTES)
        return self._chunks()

    def finish(self) -> list[bytes]:
        """Ends the stream: the rest, shorter than a chunk, if there is any. May be called twice."""
        if self._started is None:
            return []
        self._started = None
        rest = self._converter.process(bytes(self._pending)) + self._converter.flush()
        self._pending.clear()
        return [rest] if rest else []

    def _chunks(self) -> list[bytes]:
        chunks = []
        while len(self._pending) >= self._chunk_bytes:
            chunks.append(self._converter.process(bytes(self._pending[: self._chunk_bytes])))
            del self._pending[: self._chunk_bytes]
        return chunks
