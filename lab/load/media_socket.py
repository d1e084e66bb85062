"""The far end of chan_websocket: Asterisk's `/media/{id}`, which paces what it is sent by itself.

As Asterisk 22.10.1 was seen to behave: a queue of 1000 frames, XOFF at 900, XON below 800; whole
frames only; a message over 65,500 bytes is fatal; a flush throws marks away without a word.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, cast

import orjson
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from lab.load.events import Json

MEDIA_PATH: Final = "/media/"
MOST_QUEUED: Final = 1000
_XOFF_AT: Final = 900
_XON_BELOW: Final = 800
_LONGEST_BINARY: Final = 65_500
_LONGEST_TEXT: Final = 128
_LONGEST_MARK: Final = 80

CAUSE_NORMAL: Final = 16
CAUSE_BROKEN: Final = 38


class MediaQueue:
    """What Asterisk does with messages, and what it says to them. Pure.

    Args:
        frame_bytes: The size of a frame.
        tell: Takes each event.

    Attributes:
        dropped_bytes: What was over a whole frame, or found no room.
        flushes: How often all was thrown away.
    """

    def __init__(self, frame_bytes: int, tell: Callable[[Json], None]) -> None:
        self.dropped_bytes = 0
        self.flushes = 0
        self._frame_bytes = frame_bytes
        self._tell = tell
        self._queue: deque[bytes | str] = deque()
        self._frames = 0
        self._full = self._paused = self._report_drained = False

    def __len__(self) -> int:
        """Return how many frames wait."""
        return self._frames

    def sound(self, data: bytes) -> None:
        """Take a binary message."""
        size = self._frame_bytes
        whole = len(data) // size
        taken = min(whole, MOST_QUEUED - self._frames)
        self.dropped_bytes += len(data) - taken * size
        self._queue.extend(data[at * size : (at + 1) * size] for at in range(taken))
        self._frames += taken
        if self._frames >= _XOFF_AT and not self._full:
            self._full = True
            self._tell({"event": "MEDIA_XOFF"})

    def command(self, text: bytes) -> str:
        """Take a text message, and return the command in it; empty when it was none."""
        if len(text) > _LONGEST_TEXT:
            return ""
        try:
            said = orjson.loads(text)
            command = str(said["command"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self._tell({"event": "ERROR", "error_text": "Unable to parse JSON command"})
            return ""
        match command:
            case "MARK_MEDIA" if len(mark := str(said.get("correlation_id", ""))) <= _LONGEST_MARK:
                self._queue.append(mark)
            case "FLUSH_MEDIA":
                self._queue.clear()
                self._frames = 0
                self.flushes += 1
            case "PAUSE_MEDIA" | "CONTINUE_MEDIA":
                self._paused = command == "PAUSE_MEDIA"
            case "REPORT_QUEUE_DRAINED":
                self._report_drained = True
            case "GET_STATUS":
                self._tell({"event": "STATUS", "queue_length": self._frames})
        return command

    def tick(self) -> bytes | None:
        """Play the next 20 ms; None: there is nothing, and nothing is sent to the caller."""
        if self._paused:
            return None
        queue, frame = self._queue, None
        while queue:
            first = queue.popleft()
            if isinstance(first, bytes):
                frame = first
                self._frames -= 1
                break
            self._tell({"event": "MEDIA_MARK_PROCESSED", "correlation_id": first})
        if self._full and self._frames < _XON_BELOW:
            self._full = False
            self._tell({"event": "MEDIA_XON"})
        if self._report_drained and not queue:
            self._report_drained = False
            self._tell({"event": "QUEUE_DRAINED"})
        return frame


class MediaChannel:
    """One channel that waits for, or has, its WebSocket.

    Args:
        channel_id, connection_id: Its names, in ARI and in the path.
        format: Asterisk's name of the codec.
        frame_bytes: 20 ms of it.
        connected: Called when its WebSocket is open.
        ended: Called once with the cause of its end.

    Attributes:
        early_bytes: What came before `started` was set: it was played to nobody.
        started: The channel is in a bridge with somebody who hears it.
    """

    def __init__(
        self,
        channel_id: str,
        connection_id: str,
        *,
        format: str,
        frame_bytes: int,
        connected: Callable[[], None],
        ended: Callable[[int], None],
    ) -> None:
        self.channel_id, self.connection_id = channel_id, connection_id
        self.queue = MediaQueue(frame_bytes, self.tell)
        self.started = False
        self.early_bytes = 0
        self._format = format
        self._frame_bytes = frame_bytes
        self._connected, self._ended = connected, ended
        self._over = False
        self.socket: MediaSocket | None = None

    def opened(self, socket: MediaSocket) -> None:
        """Handle its WebSocket having come."""
        self.socket = socket
        self.tell(
            {
                "event": "MEDIA_START",
                "connection_id": self.connection_id,
                "channel": "WebSocket/INCOMING/0x7f8d34002970",
                "channel_id": self.channel_id,
                "format": self._format,
                "optimal_frame_size": self._frame_bytes,
                "ptime": 20,
                "channel_variables": {},
            }
        )
        self._connected()

    def tell(self, event: Json) -> None:
        """Send an event."""
        if self.socket is not None:
            self.socket.send_text(orjson.dumps(event))

    def say(self, frame: bytes) -> None:
        """Send the caller's sound."""
        if self.socket is not None:
            self.socket.send(frame)

    def take(self, data: bytes) -> None:
        """Handle sound from the application."""
        if not self.started:
            self.early_bytes += len(data)
        self.queue.sound(data)

    def order(self, text: bytes) -> None:
        """Handle a command."""
        if self.queue.command(text) == "HANGUP":
            self.hang_up()

    def hang_up(self, code: int = 1000, cause: int = CAUSE_NORMAL) -> None:
        """End it from Asterisk's side. May be called twice."""
        if not self._over:
            self._over = True
            if self.socket is not None:
                self.socket.close(code)
            self._ended(cause)

    def lost(self, *, closed: bool) -> None:
        """Handle the end of its WebSocket.

        Args:
            closed: With a close frame; otherwise the connection broke.
        """
        if not self._over:
            self._over = True
            self._ended(CAUSE_NORMAL if closed else CAUSE_BROKEN)


class MediaSocket(asyncio.Protocol):
    """One connection to `/media/{id}`.

    Args:
        find: Returns the channel of a connection id; None: there is none.
    """

    def __init__(self, find: Callable[[str], MediaChannel | None]) -> None:
        self._find = find
        self._protocol = ServerProtocol(
            subprotocols=[Subprotocol("media")], select_subprotocol=_may_be_left_out, max_size=None
        )
        self._channel: MediaChannel | None = None
        self._transport: asyncio.Transport | None = None

    def send(self, frame: bytes) -> None:
        """Send a binary message."""
        self._write(_header(Opcode.BINARY, len(frame)) + frame)

    def send_text(self, text: bytes) -> None:
        """Send a text message."""
        self._write(_header(Opcode.TEXT, len(text)) + text)

    def close(self, code: int) -> None:
        """Close as Asterisk does: a close frame, and no waiting."""
        self._protocol.send_close(code)
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Break the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._requested(event)
            elif isinstance(event, Frame) and self._channel is not None:
                self._received(event, self._channel)
        self._flush()

    def eof_received(self) -> None:
        self._protocol.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.socket = None
            channel.lost(closed=self._protocol.close_rcvd is not None)

    def _requested(self, request: Request) -> None:
        channel = self._find(request.path.removeprefix(MEDIA_PATH))
        if channel is None:
            self._protocol.send_response(self._protocol.reject(HTTPStatus.NOT_FOUND, ""))
        elif channel.socket is not None:
            self._protocol.send_response(self._protocol.reject(HTTPStatus.CONFLICT, ""))
        else:
            response = self._protocol.accept(request)
            self._protocol.send_response(response)
            self._flush()
            if not isinstance(self._protocol.handshake_exc, InvalidHandshake):
                self._channel = channel
                channel.opened(self)

    def _received(self, frame: Frame, channel: MediaChannel) -> None:
        if frame.opcode is Opcode.BINARY:
            if len(frame.data) > _LONGEST_BINARY:
                channel.hang_up(1009, CAUSE_BROKEN)
            else:
                channel.take(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:
            channel.order(bytes(frame.data))

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._write(data)
            elif self._transport is not None:
                self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _may_be_left_out(protocol: ServerProtocol, offered: object) -> Subprotocol | None:
    return Subprotocol("media") if "media" in cast(list[str], offered) else None


def _header(opcode: Opcode, size: int) -> bytes:
    if size < 126:
        return bytes((0x80 | opcode, size))
    return bytes((0x80 | opcode, 126)) + size.to_bytes(2)
