"""One call's media, as Asterisk's AudioSocket channel carries it, made for hundreds at once.

It works on the bare socket, so that the kernel can say when each frame arrived: a generator that is
busy must not look like a server that is late.
"""

from __future__ import annotations

import asyncio
import socket
from array import array
from collections.abc import Callable, Sequence
from uuid import UUID

from audiosocket.frames import (
    Audio,
    Decoder,
    Hangup,
    Identify,
    ProtocolError,
    SlinFormat,
    audio_header,
    encode,
)
from lab.kernel_time import arrival_ns, ask_for_times

CONNECT_SECONDS = 2.0
_PAYLOAD_GAP_NS = 5_000_000
"""Asterisk hangs up when the pieces of a message come further apart (`res_audiosocket.c`)."""
_READ_BYTES = 65536


class LoadLine:
    """Connects, sends its UUID, and from `talk` on a message at each `tick`.

    It closes where Asterisk would: at 0x00, at the end of the stream, at a message that is not
    audio, at a message that comes in pieces, at a write that does not go through whole.
    """

    def __init__(
        self,
        uuid: UUID,
        fmt: SlinFormat,
        messages: Sequence[bytes],
        *,
        offset: int = 0,
        on_closed: Callable[[str], None],
    ) -> None:
        """`messages` are said in turn, from the one at `offset` on, again and again."""
        self.uuid = uuid
        self.arrivals = array("q")
        """When each frame came, in ns on the wall clock."""
        self.voiced_frames = 0
        """Frames that were not silence."""
        self.frames_sent = 0
        self.talking = False
        self._header = audio_header(fmt.kind, fmt.frame_bytes)
        self._silence = self._header + bytes(fmt.frame_bytes)
        self._messages = messages
        self._pause = messages[0]
        self._next = offset % len(messages)
        self._quiet = False
        self._on_closed = on_closed
        self._decoder = Decoder(expect_identify=False)
        self._piece_at_ns = 0
        self._reason: str | None = None
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask_for_times(self._socket)

    @property
    def close_reason(self) -> str | None:
        """Why the line ended; None before."""
        return self._reason

    async def connect(self, host: str, port: int) -> None:
        """Connect and send the UUID. Raises OSError or TimeoutError."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._loop.sock_connect(self._socket, (host, port))
            self._socket.send(encode(Identify(self.uuid)))
        except BaseException:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def talk(self) -> None:
        """The channel is in a bridge with the caller: frames flow from now on."""
        self.talking = True

    def be_quiet(self) -> None:
        """Send the pause only, from the next frame on."""
        self._quiet = True

    def begin_window(self) -> None:
        """Forget what was heard so far: what counts begins now."""
        self.arrivals = array("q")

    def tick(self) -> None:
        """Send one frame."""
        if self._reason is not None or not self.talking:
            return
        message = self._pause if self._quiet else self._messages[self._next]
        self._next = (self._next + 1) % len(self._messages)
        try:
            sent = self._socket.send(message)
        except OSError:
            sent = 0
        if sent == len(message):
            self.frames_sent += 1
        else:
            # ast_write_stream takes a short write for a hang-up.
            self._end("not_reading")

    def close(self) -> None:
        """End the call without a word, as Asterisk does. May be called twice."""
        self._end("closed")

    def _readable(self) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_READ_BYTES, 64)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end("reset")
            return
        if not data:
            self._end("eof")
            return
        at = arrival_ns(ancillary)
        whole = len(data) == len(self._silence) and not self._decoder.buffered
        if whole and data.startswith(self._header):
            self.arrivals.append(at)
            self.voiced_frames += data != self._silence
        else:
            self._take_apart(data, at)

    def _take_apart(self, data: bytes, at: int) -> None:
        """Read what is not exactly one frame."""
        if self._decoder.buffered and at - self._piece_at_ns > _PAYLOAD_GAP_NS:
            self._end("payload_gap")
            return
        self._piece_at_ns = at
        try:
            for message in self._decoder.feed(data):
                match message:
                    case Audio(_, payload):
                        self.arrivals.append(at)
                        self.voiced_frames += any(payload)
                    case Hangup():
                        self._end("hangup")
                    case _:
                        self._end("unexpected_kind")
        except ProtocolError as error:
            self._end(error.reason)

    def _end(self, reason: str) -> None:
        if self._reason is not None:
            return
        self._reason = reason
        self.talking = False
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._on_closed(reason)
