"""The caller's voice on its way to the agent: gaps filled, converted, cut into chunks. Pure.

A phone with silence suppression sends nothing while nobody speaks, and Asterisk passes on only
what arrives. The agent decides that a turn has ended by hearing silence, so silence has to be made
here, by the wall clock. Whether a packet is late or will never come cannot be known; `slack_ms` is
how long to wait for it. One that comes after all is kept: it puts the stream ahead of the clock,
and that much less is filled later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ari_app.audio.convert import Converter
from ari_app.audio.formats import SAMPLE_BYTES

_FILL_MS: Final = 20
"""Silence is made in whole frames. Where a phone's clock is slow this is one short gap every few
minutes, not a click of a few samples every second."""


@dataclass(slots=True)
class UplinkStats:
    """What went into the stream, at the line's rate."""

    received_samples: int = 0
    filled_samples: int = 0
    gaps: int = 0
    """Stretches of filling without any audio between."""


class Uplink:
    """One call's stream to the agent.

    At every `tick`, what was received and filled is at most `slack_ms` behind the wall clock.

    Args:
        line_rate_hz: rate of the caller's 16-bit PCM.
        converter: from the line's format to the agent's; this stream's own.
        chunk_ms: length of each chunk that is handed out.
        slack_ms: how far the audio may lag behind the wall clock before silence is filled in.
    """

    def __init__(
        self, line_rate_hz: int, converter: Converter, chunk_ms: int, slack_ms: int = 60
    ) -> None:
        self._rate_hz = line_rate_hz
        self._converter = converter
        self._chunk_bytes = line_rate_hz * chunk_ms // 1000 * SAMPLE_BYTES
        self._slack_seconds = slack_ms / 1000
        self._slack_samples = line_rate_hz * slack_ms // 1000
        self._fill_samples = line_rate_hz * _FILL_MS // 1000
        self._pending = bytearray()
        self._started: float | None = None
        self._ticked = 0.0
        self._reading_until = 0.0
        self._offset = 0
        self._in_gap = False
        self.stats = UplinkStats()

    def start(self, now: float) -> None:
        """Begins the stream: from `now` (seconds, monotonic) on every moment is heard by the agent.

        The converter is primed, so that the first chunk is as long as every other.
        """
        self._started = self._ticked = now
        self._offset = self.stats.received_samples + self.stats.filled_samples
        self._converter.prime()

    def convert_with(self, converter: Converter) -> None:
        """Goes on in another format; what has not been handed out yet comes in that one."""
        converter.prime()
        self._converter = converter

    def push(self, pcm: bytes, now: float) -> list[bytes]:
        """Takes the caller's audio, whole samples of any number; returns the chunks it completes.

        The first audio begins the stream if `start` has not.
        """
        if self._started is None:
            self.start(now)
        self.stats.received_samples += len(pcm) // SAMPLE_BYTES
        self._in_gap = False
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
        stats = self.stats
        heard = stats.received_samples + stats.filled_samples - self._offset
        missing = round((wall - self._started) * self._rate_hz) - heard - self._slack_samples
        if missing <= 0:
            return []
        filled = -(-missing // self._fill_samples) * self._fill_samples
        stats.filled_samples += filled
        stats.gaps += not self._in_gap
        self._in_gap = True
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
