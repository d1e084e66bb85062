"""The other end: a client that behaves like Asterisk's channel driver, for tests and load."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, repeat
from math import pi, sin
from typing import Final, cast
from uuid import UUID

from audiosocket.connection import FrameSource, set_no_delay
from audiosocket.frames import (
    FRAME_MS,
    HEADER_BYTES,
    SAMPLE_BYTES,
    SLIN,
    Audio,
    Decoder,
    Dtmf,
    Hangup,
    Identify,
    Kind,
    LineFormat,
    Message,
    ProtocolError,
    UnexpectedKind,
    encode,
)
from linekit.clock import FrameClock

"""Gives one frame each time, or None for nothing (on a server's line: silence)."""


def silence_source(fmt: LineFormat, *, ptime_ms: int = FRAME_MS) -> FrameSource:
    """Silent frames for ever."""
    return repeat(bytes(_frame_bytes(fmt, ptime_ms))).__next__


def tone_source(
    fmt: LineFormat,
    frequency_hz: int = 440,
    *,
    level_dbfs: float = -12.0,
    ptime_ms: int = FRAME_MS,
) -> FrameSource:
    """A sine for ever, without a seam: whole hertz and a `ptime_ms` that divides a second."""
    amplitude = 32767 * 10 ** (level_dbfs / 20)
    step = 2 * pi * frequency_hz / fmt.rate_hz
    samples = (round(amplitude * sin(step * i)) for i in range(fmt.rate_hz))
    second = struct.pack(f"<{fmt.rate_hz}h", *samples)
    return cycle(_frames(second, _frame_bytes(fmt, ptime_ms))).__next__


def pcm_source(fmt: LineFormat, pcm: bytes, *, ptime_ms: int = FRAME_MS) -> FrameSource:
    """`pcm` in frames, the last one filled up with silence; then None for ever."""
    frames = _frames(pcm, _frame_bytes(fmt, ptime_ms))
    return chain(frames, repeat(None)).__next__


def _frame_bytes(fmt: LineFormat, ptime_ms: int) -> int:
    return fmt.rate_hz * ptime_ms // 1000 * SAMPLE_BYTES


def _frames(pcm: bytes, frame_bytes: int) -> list[bytes]:
    return [
        pcm[start : start + frame_bytes].ljust(frame_bytes, b"\0")
        for start in range(0, len(pcm), frame_bytes)
    ]


PAYLOAD_GAP_SECONDS: Final = 0.005
"""Asterisk hangs up when the pieces of a payload come further apart (`res_audiosocket.c`)."""
LATE_FRAME_SECONDS: Final = 1.5 * FRAME_MS / 1000


@dataclass(frozen=True, slots=True)
class Heard:
    """One frame from the server."""

    at: float
    """The loop's time when it came."""
    kind: Kind
    payload: bytes


@dataclass(slots=True)
class ClientStats:
    """Counters of one client."""

    frames_sent: int = 0
    bytes_sent: int = 0
    """Audio payload only."""
    gaps_sent: int = 0
    """Ticks at which nothing was sent."""
    digits_sent: int = 0
    frames_heard: int = 0
    bytes_heard: int = 0
    max_gap_ms: float = 0.0
    """The longest time between two frames heard."""
    late_frames: int = 0
    """Frames that came more than 30 ms after the one before."""
    payload_gaps: int = 0
    """Payloads whose pieces came more than 5 ms apart: Asterisk would have hung up."""


class AudioSocketClient(asyncio.Protocol):
    """One call's media, as `chan_audiosocket` carries it.

    It connects, sends its UUID and then a frame per tick, never waits for an answer, and just
    closes at the end: Asterisk never sends 0x00. Of the server it takes 0x00 and audio;
    anything else is fatal, as it is in Asterisk from 22.4 on. So is a server that does not read.
    """

    _transport: asyncio.Transport

    def __init__(
        self,
        uuid: UUID,
        fmt: LineFormat = SLIN,
        *,
        source: FrameSource | None = None,
        clock: FrameClock | None = None,
        ptime_ms: int = FRAME_MS,
        on_audio: Callable[[Heard], None] | None = None,
        record_frames: int = 0,
    ) -> None:
        """`source`: what is said, frame by frame (None: a gap); silence by default.

        `clock`: a shared one, which its owner starts; otherwise the client runs its own, with
        a period of `ptime_ms`. `record_frames`: how many of the frames last heard are kept.
        """
        self.uuid = uuid
        self.format = fmt
        self.source = source or silence_source(fmt, ptime_ms=ptime_ms)
        self.sending = True
        """Set to False for a gap: nothing is sent, as when a phone is muted or on hold."""
        self.heard: deque[Heard] = deque(maxlen=record_frames)
        self.stats = ClientStats()

        self._clock = FrameClock(ptime_ms / 1000) if clock is None else clock
        self._owns_clock = clock is None
        self._on_audio = on_audio
        self._decoder = Decoder(expect_identify=False)
        self._remove_tick: Callable[[], None] | None = None
        self._last_heard_at: float | None = None
        self._last_data_at = 0.0
        self._reason: str | None = None
        self._lost = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the call is up."""
        return self._remove_tick is not None and self._reason is None

    @property
    def close_reason(self) -> str | None:
        """Why the call ended, None before.

        `hangup` (0x00 came), `eof`, `reset`, `closed` (by `close`), `not_reading` (the server
        did not), or the slug of a `ProtocolError`.
        """
        return self._reason

    async def connect(self, host: str, port: int, *, timeout: float = 2.0) -> None:
        """Connect and send the UUID. Raises OSError or TimeoutError, as Asterisk gives up too."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            await loop.create_connection(lambda: self, host, port)

    def send_digit(self, digit: str) -> None:
        """A key was released. Raises ValueError when there is no such key."""
        self.send_raw(encode(Dtmf(digit)))
        self.stats.digits_sent += 1

    def send_raw(self, data: bytes) -> None:
        """Send any bytes, to see what a server makes of them."""
        if self.connected:
            self._transport.write(data)

    def close(self) -> None:
        """End the call as Asterisk does: close, and say nothing. May be called at any time."""
        if self.connected:
            self._end("closed")

    def abort(self) -> None:
        """End the call with a reset, as Asterisk does with unread data in its socket."""
        if self.connected:
            self._end("closed")
            self._transport.abort()

    async def wait_closed(self) -> str:
        """Wait until the connection is gone; why it went."""
        await self._lost.wait()
        assert self._reason is not None
        return self._reason

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        set_no_delay(self._transport)
        self._transport.write(encode(Identify(self.uuid)))
        self._remove_tick = self._clock.add(self._tick)
        if self._owns_clock:
            self._clock.start()

    def data_received(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        in_payload = self._decoder.buffered >= HEADER_BYTES
        if in_payload and now - self._last_data_at > PAYLOAD_GAP_SECONDS:
            self.stats.payload_gaps += 1
        self._last_data_at = now
        fault: ProtocolError | None = None
        messages: Sequence[Message]
        try:
            messages = self._decoder.feed(data)
        except ProtocolError as error:
            messages, fault = error.before, error
        for message in messages:
            match message:
                case Audio(kind, payload):
                    self._hear(Heard(now, kind, payload))
                case Hangup():
                    self._end("hangup")
                case _:
                    self._end(UnexpectedKind.reason)
        if fault is not None:
            self._end(fault.reason)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("eof" if exc is None else "reset")
        self._lost.set()

    def _tick(self, frames_due: int) -> None:
        if self._transport.get_write_buffer_size():
            # A short write is a hang-up in Asterisk's ast_write_stream.
            self._end("not_reading")
            self._transport.abort()
            return
        for _ in range(frames_due):
            frame = self.source() if self.sending else None
            if frame is None:
                self.stats.gaps_sent += 1
            else:
                self._transport.write(encode(Audio(self.format.kind, frame)))
                self.stats.frames_sent += 1
                self.stats.bytes_sent += len(frame)

    def _hear(self, heard: Heard) -> None:
        stats = self.stats
        stats.frames_heard += 1
        stats.bytes_heard += len(heard.payload)
        if self._last_heard_at is not None:
            gap = heard.at - self._last_heard_at
            stats.max_gap_ms = max(stats.max_gap_ms, gap * 1000)
            stats.late_frames += gap > LATE_FRAME_SECONDS
        self._last_heard_at = heard.at
        self.heard.append(heard)
        if self._on_audio is not None:
            self._on_audio(heard)

    def _end(self, reason: str) -> None:
        if self._reason is not None or self._remove_tick is None:
            return
        self._reason = reason
        self._remove_tick()
        if self._owns_clock:
            self._clock.stop()
        self._transport.close()
