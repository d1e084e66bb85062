"""The queue between an agent that speaks in bursts and a line that takes one frame per tick.

Pure: no clock, no socket. The agent's audio comes faster than it is spoken, so a whole response
can wait here, minutes of it; `next_frame` gives it out in frames of 20 ms. Every sample that
went in was played, dropped or is pending, and the counters say which.

How a sound ends decides what is done about it:

* The response is complete (`end_response`): the last frame is filled up with silence.
* It ran dry in mid-response: what is left fades out over a few milliseconds. If audio of the
  same response follows, that was an underrun: it is counted, and the audio fades in.
* It was interrupted (`flush`): the rest is dropped, but for two milliseconds that fade out in
  the next frame: too short to be heard as sound, too long to be heard as a click.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from typing import Final


def fade_out(pcm: bytes) -> bytes:
    """Fade samples from full gain down to almost nothing. `pcm` is whole samples."""
    count = len(pcm) // 2
    samples = struct.unpack(f"<{count}h", pcm)
    return struct.pack(
        f"<{count}h", *(round(sample * _gain(i, count)) for i, sample in enumerate(samples))
    )


def fade_in(pcm: bytes) -> bytes:
    """Fade samples from almost nothing up to full gain. `pcm` is whole samples."""
    count = len(pcm) // 2
    samples = struct.unpack(f"<{count}h", pcm)
    last = count - 1
    return struct.pack(
        f"<{count}h", *(round(sample * _gain(last - i, count)) for i, sample in enumerate(samples))
    )


def glide(level: int, count: int) -> bytes:
    """Make `count` samples from `level` down to almost nothing: silence after sound, without a
    step."""
    return struct.pack(f"<{count}h", *(round(level * _gain(i, count)) for i in range(count)))


def last_sample(pcm: bytes) -> int:
    """Return the value of the last sample."""
    return int.from_bytes(pcm[-2:], "little", signed=True)


def _gain(step: int, count: int) -> float:
    return 0.5 + 0.5 * cos(pi * step / count)


SAMPLE_BYTES: Final = 2
_AUDIBLE_STEP: Final = 32
"""A jump from this level to silence is 60 dB below full scale: it needs no fade."""


@dataclass(frozen=True, slots=True)
class FlushResult:
    """The result of an interruption.

    Attributes:
        played_ms: How much of the current response the caller hears, the fade-out included.
        dropped_ms: How much of the current response is thrown away.
        tag: Which response that is: the one due next, or else the one heard last; None before any.
        others_dropped_ms: What later responses were waiting behind it, and are thrown away with it.
    """

    played_ms: float
    dropped_ms: float
    tag: int | None
    others_dropped_ms: float = 0.0


@dataclass(slots=True)
class PlayoutStats:
    """Counters since the buffer was made.

    `samples_in == samples_played + samples_dropped + pending samples`, always.

    Attributes:
        samples_dropped: Flushed or refused.
        samples_padded: Silence, or decay into it, that fills up frames: frames given * samples per
            frame is `samples_played + samples_padded`.
        underruns: How often a response ran dry and then went on.
    """

    samples_in: int = 0
    samples_played: int = 0
    samples_dropped: int = 0
    samples_padded: int = 0
    underruns: int = 0


class _Response:
    __slots__ = ("is_cut", "played_bytes", "tag")

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.played_bytes = 0
        self.is_cut = False


_CUT_MS: Final = 2.0
"""How long sound takes to fade out when it is interrupted, at most."""


class PlayoutBuffer:
    """Holds PCM (16-bit little endian, mono) and gives it out frame by frame.

    Args:
        frame_bytes: The size of a frame.
        rate_hz: Samples a second.
        fade_ms: How long sound takes to fade in or out.
        max_seconds: When that much is queued, the newest audio is refused and counted, and with it
            what follows of its response until all is played: pieces of it would be no words.
        refill: Asked once each time the queue runs short, for PCM of the same response that is
            still on its way (what a resampler holds back).

    Raises:
        ValueError: The frame is no whole number of samples, or the fade is longer than the frame.
    """

    def __init__(
        self,
        frame_bytes: int,
        rate_hz: int,
        *,
        fade_ms: float = 5.0,
        max_seconds: float = 300.0,
        refill: Callable[[], bytes] | None = None,
    ) -> None:
        if frame_bytes <= 0 or frame_bytes % SAMPLE_BYTES:
            raise ValueError(f"a frame of {frame_bytes} bytes")
        self._frame_bytes = frame_bytes
        self._bytes_per_ms = rate_hz * SAMPLE_BYTES / 1000
        self._fade_bytes = int(rate_hz * fade_ms / 1000) * SAMPLE_BYTES
        if not 0 <= self._fade_bytes <= frame_bytes:
            raise ValueError(f"a fade of {fade_ms} ms in a frame of {frame_bytes} bytes")
        self._cut_bytes = int(rate_hz * min(_CUT_MS, fade_ms) / 1000) * SAMPLE_BYTES
        self._max_bytes = int(rate_hz * max_seconds) * SAMPLE_BYTES
        self.refill = refill
        self.stats = PlayoutStats()

        # The queue: whole chunks as they came, the first one read up to `_offset`. They are some
        # hundreds at most; a deque takes 760 bytes for none.
        self._chunks: list[tuple[bytes, _Response]] = []
        self._offset = 0
        self._pending = 0
        self._odd_byte = b""

        self._writing: _Response | None = None
        self._complete = True
        self._playing: _Response | None = None
        self._may_refill = False

        # What the caller's ear is at: `_sounding` is the last frame, if sound filled it to its
        # end; `_dry`: a response ran dry, and has not gone on.
        self._sounding: bytes | None = None
        self._dry = False
        self._fade_in_due = False
        self._closing_frame: bytes | None = None

    @property
    def pending_ms(self) -> float:
        """Queued and not yet given out; a fade-out under way is not counted."""
        return self._pending / self._bytes_per_ms

    @property
    def frames_ready(self) -> int:
        """How many frames of sound there are before it runs dry.

        Of a response that is complete the last one counts too, though it has to be filled up.
        """
        pending = self._pending + self._frame_bytes - 1 if self._complete else self._pending
        return pending // self._frame_bytes + (self._closing_frame is not None)

    @property
    def idle(self) -> bool:
        """Nothing is queued, and nothing is fading."""
        return not self._pending and self._closing_frame is None

    def write(self, pcm: bytes, *, tag: int = 0) -> int:
        """Append PCM of the response `tag`, and return how many bytes found no room.

        An odd byte at the end waits for the next write of the same response.
        """
        response = self._writing
        if response is None or response.tag != tag:
            response = self._writing = _Response(tag)
            self._odd_byte = b""
            # It may be the same that goes on, under another id.
            self._fade_in_due = self._dry
            self._dry = False
        if self._odd_byte:
            pcm = self._odd_byte + pcm
            self._odd_byte = b""
        if len(pcm) % SAMPLE_BYTES:
            self._odd_byte = pcm[-1:]
            pcm = pcm[:-1]
        if not pcm:
            return 0
        if response.is_cut and not self._dry:
            return self._append(pcm, response)
        response.is_cut = False
        self._complete = False
        self._may_refill = True
        if self._dry:
            self.stats.underruns += 1
            self._dry = False
            self._fade_in_due = True
        return self._append(pcm, response)

    def end_response(self) -> None:
        """Complete the response written last: running dry is its end then, and no underrun."""
        self._complete = True
        self._odd_byte = b""
        self._dry = False
        if self._writing is not None and self._writing.is_cut:
            self._writing = None

    def next_frame(self) -> bytes | None:
        """Take exactly one frame, or None when there is nothing but silence."""
        if self._closing_frame is not None:
            frame, self._closing_frame = self._closing_frame, None
            return frame
        if self._pending < self._frame_bytes:
            if self._may_refill and self.refill is not None and self._writing is not None:
                self._may_refill = False
                tail = self.refill()
                self._append(tail[: len(tail) // SAMPLE_BYTES * SAMPLE_BYTES], self._writing)
            if self._pending < self._frame_bytes:
                return self._short_frame()
        frame = self._take(self._frame_bytes)
        if self._fade_in_due:
            frame = self._faded_in(frame)
        self._sounding = frame
        return frame

    def flush(self, taken_back: bytes = b"") -> FlushResult:
        """Drop what is queued, but for the fade-out that the next frame is: an interruption.

        Nothing fades when nothing was being heard: then silence simply goes on.

        Args:
            taken_back: The frame that was to be heard next, where it had been given out already.
        """
        current = self._chunks[0][1] if self._chunks else self._playing
        if taken_back:
            self._closing_frame = self._padded(fade_out(taken_back[: self._cut_bytes]))
            self.stats.samples_padded += self._cut_bytes // SAMPLE_BYTES
        elif self._sounding is not None:
            self._closing_frame = self._faded_to_silence(self._sounding)
        dropped = others_dropped = 0
        for chunk, response in self._chunks:
            rest = len(chunk) - self._offset
            self._offset = 0
            if response is current:
                dropped += rest
            else:
                others_dropped += rest
        self._chunks.clear()
        self._pending = 0
        self._sounding = None
        self._fade_in_due = False
        self._may_refill = False
        self._writing = None
        self.end_response()
        self.stats.samples_dropped += (dropped + others_dropped) // SAMPLE_BYTES
        if current is None:
            return FlushResult(0.0, 0.0, None)
        self._playing = current
        return FlushResult(
            played_ms=current.played_bytes / self._bytes_per_ms,
            dropped_ms=dropped / self._bytes_per_ms,
            tag=current.tag,
            others_dropped_ms=others_dropped / self._bytes_per_ms,
        )

    def _append(self, pcm: bytes, response: _Response) -> int:
        room = 0 if response.is_cut else self._max_bytes - self._pending
        refused = max(0, len(pcm) - room)
        self.stats.samples_in += len(pcm) // SAMPLE_BYTES
        if refused:
            response.is_cut = True
            self.stats.samples_dropped += refused // SAMPLE_BYTES
            pcm = pcm[:-refused]
        if pcm:
            self._chunks.append((pcm, response))
            self._pending += len(pcm)
        return refused

    def _take(self, count: int) -> bytes:
        """Take the next `count` bytes, of those pending: a plain slice unless they span chunks."""
        chunk, response = self._chunks[0]
        start = self._offset
        stop = start + count
        if stop < len(chunk):
            taken = chunk[start:stop]
            self._offset = stop
            response.played_bytes += count
            self._playing = response
        else:
            taken = self._take_across_chunks(count)
        self._pending -= count
        self.stats.samples_played += count // SAMPLE_BYTES
        return taken

    def _take_across_chunks(self, count: int) -> bytes:
        pieces: list[bytes] = []
        while count:
            chunk, response = self._chunks[0]
            piece = chunk[self._offset : self._offset + count]
            self._offset += len(piece)
            if self._offset == len(chunk):
                del self._chunks[0]
                self._offset = 0
            response.played_bytes += len(piece)
            self._playing = response
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def _short_frame(self) -> bytes | None:
        """Take what is left, less than a frame."""
        sounding, self._sounding = self._sounding, None
        if self._pending:
            pcm = self._take(self._pending)
            if self._fade_in_due:
                pcm = self._faded_in(pcm)
            if not self._complete:
                self._dry = True
                whole = max(0, len(pcm) - self._fade_bytes)
                pcm = pcm[:whole] + fade_out(pcm[whole:])
            return self._padded(pcm)
        if not self._dry and not self._complete:
            # The last frame was full and has left at full gain.
            self._dry = True
            if sounding is not None and (tail := self._glide_from(sounding, self._fade_bytes)):
                return self._padded(tail)
        return None

    def _faded_in(self, pcm: bytes) -> bytes:
        self._fade_in_due = False
        return fade_in(pcm[: self._fade_bytes]) + pcm[self._fade_bytes :]

    def _faded_to_silence(self, sounding: bytes) -> bytes | None:
        """Make a last frame: what comes after `sounding`, or else its last level, faded out."""
        count = min(self._cut_bytes, self._pending)
        tail = fade_out(self._take(count)) if count else self._glide_from(sounding, self._cut_bytes)
        return self._padded(tail) if tail else None

    def _glide_from(self, sounding: bytes, count: int) -> bytes:
        level = last_sample(sounding)
        if abs(level) < _AUDIBLE_STEP:
            return b""
        samples = count // SAMPLE_BYTES
        self.stats.samples_padded += samples
        return glide(level, samples)

    def _padded(self, pcm: bytes) -> bytes:
        padding = self._frame_bytes - len(pcm)
        self.stats.samples_padded += padding // SAMPLE_BYTES
        return pcm + bytes(padding)
