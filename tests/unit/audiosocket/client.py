"""The other end of the line: a client that behaves like Asterisk's channel driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, repeat
from typing import cast
from uuid import UUID

from audiosocket.connection import FrameSource, set_no_delay
from audiosocket.frames import (
    SLIN,
    Audio,
    Decoder,
    Dtmf,
    Hangup,
    Identify,
    Kind,
    Message,
    ProtocolError,
    SlinFormat,
    UnexpectedKind,
    encode,
)
from lab.softphone.sounds import tone
from linekit.clock import FrameClock


def tone_source(fmt: SlinFormat, frequency_hz: int = 440) -> FrameSource:
    """A sine for ever, without a seam: whole hertz."""
    second = tone(frequency_hz, 1000, -12, rate_hz=fmt.rate_hz)
    return cycle(_frames(second, fmt.frame_bytes)).__next__


def pcm_source(fmt: SlinFormat, pcm: bytes) -> FrameSource:
    """`pcm` in frames, the last one filled up with silence; then None for ever."""
    return chain(_frames(pcm, fmt.frame_bytes), repeat(None)).__next__


def _frames(pcm: bytes, frame_bytes: int) -> list[bytes]:
    return [
        pcm[start : start + frame_bytes].ljust(frame_bytes, b"\0")
        for start in range(0, len(pcm), frame_bytes)
    ]


@dataclass(frozen=True, slots=True)
class Heard:
    """One frame from the server."""

    kind: Kind
    payload: bytes


class AudioSocketClient(asyncio.Protocol):
    """One call's media, as `chan_audiosocket` carries it.

    It connects, sends its UUID and then a frame per tick, never waits for an answer, and just
    closes at the end: Asterisk never sends 0x00. Of the server it takes 0x00 and audio;
    anything else is fatal, as it is in Asterisk from 22.4 on. So is a server that does not read.

    Attributes:
        source: What is said, frame by frame (None: a gap); silence at first.
        sending: Set to False for a gap: nothing is sent, as when a phone is muted or on hold.
        heard: Every frame from the server.
        close_reason: Why the call ended, None before: `hangup` (0x00 came), `eof`, `reset`,
            `closed` (by `close`), `not_reading` (the server did not), or the slug of a
            `ProtocolError`.
    """

    _transport: asyncio.Transport

    def __init__(self, uuid: UUID, fmt: SlinFormat = SLIN, *, clock: FrameClock) -> None:
        self.uuid = uuid
        self.format = fmt
        self.source: FrameSource = repeat(bytes(fmt.frame_bytes)).__next__
        self.sending = True
        self.heard: list[Heard] = []
        self.close_reason: str | None = None

        self._clock = clock
        self._decoder = Decoder(expect_identify=False)
        self._remove_tick: Callable[[], None] | None = None
        self._lost = asyncio.Event()

    async def connect(self, host: str, port: int) -> None:
        """Connect and send the UUID. Raises OSError or TimeoutError, as Asterisk gives up too."""
        async with asyncio.timeout(2):
            await asyncio.get_running_loop().create_connection(lambda: self, host, port)

    def send_digit(self, digit: str) -> None:
        """A key was released. Raises ValueError when there is no such key."""
        self.send_raw(encode(Dtmf(digit)))

    def send_raw(self, data: bytes) -> None:
        """Send any bytes, to see what a server makes of them."""
        if self._is_up:
            self._transport.write(data)

    def close(self) -> None:
        """End the call as Asterisk does: close, and say nothing. May be called at any time."""
        if self._is_up:
            self._end("closed")

    def abort(self) -> None:
        """End the call with a reset, as Asterisk does with unread data in its socket."""
        self.close()
        self._transport.abort()

    async def wait_closed(self) -> str:
        """Wait until the connection is gone; why it went."""
        await self._lost.wait()
        assert self.close_reason is not None
        return self.close_reason

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        set_no_delay(self._transport)
        self._transport.write(encode(Identify(self.uuid)))
        self._remove_tick = self._clock.add(self._tick)

    def data_received(self, data: bytes) -> None:
        fault: ProtocolError | None = None
        messages: Sequence[Message]
        try:
            messages = self._decoder.feed(data)
        except ProtocolError as error:
            messages, fault = error.before, error
        for message in messages:
            match message:
                case Audio(kind, payload):
                    self.heard.append(Heard(kind, payload))
                case Hangup():
                    self._end("hangup")
                case _:
                    self._end(UnexpectedKind.reason)
        if fault is not None:
            self._end(fault.reason)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("eof" if exc is None else "reset")
        self._lost.set()

    @property
    def _is_up(self) -> bool:
        return self._remove_tick is not None and self.close_reason is None

    def _tick(self, frames_due: int) -> None:
        if self._transport.get_write_buffer_size():
            # A short write is a hang-up in Asterisk's ast_write_stream.
            self._end("not_reading")
            self._transport.abort()
            return
        for _ in range(frames_due):
            frame = self.source() if self.sending else None
            if frame is not None:
                self._transport.write(encode(Audio(self.format.kind, frame)))

    def _end(self, reason: str) -> None:
        if self.close_reason is not None or self._remove_tick is None:
            return
        self.close_reason = reason
        self._remove_tick()
        self._transport.close()
