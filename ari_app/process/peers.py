"""Messages between processes of one machine: JSON, its length before it, over a Unix socket."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import orjson
import structlog

log = structlog.get_logger(__name__)

Message = dict[str, Any]

_HEAD: Final = struct.Struct(">I")
_MOST_BYTES: Final = 1 << 20
_MOST_UNREAD_BYTES: Final = 4 << 20
"""A peer that is stopped reads nothing; what it has not read by then it need not know."""
_MOST_AT_LEISURE: Final = 10_000
"""So many messages may wait until the other reads: more than all workers of a machine have to tell
at once, even after a day without a database."""


def encode(message: Message) -> bytes:
    """Return a message as it is sent."""
    body = orjson.dumps(message)
    return _HEAD.pack(len(body)) + body


class Decoder:
    """Cuts a stream of bytes into messages. Pure."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are complete with this.

        Raises:
            ValueError: It is no message of ours.
        """
        buffer = self._buffer
        buffer += data
        found: list[Message] = []
        start = 0
        while len(buffer) - start >= _HEAD.size:
            (length,) = _HEAD.unpack_from(buffer, start)
            if length > _MOST_BYTES:
                raise ValueError(f"a message of {length} bytes")
            end = start + _HEAD.size + length
            if len(buffer) < end:
                break
            message = orjson.loads(buffer[start + _HEAD.size : end])
            if not isinstance(message, dict):
                raise ValueError("a message is an object")
            found.append(message)
            start = end
        del buffer[:start]
        return found


class Peer(asyncio.Protocol):
    """One end of a line.

    Args:
        on_message: Called for each message, in order.
        on_open: Called once there is a line.
        on_closed: Called once when it is gone.
    """

    def __init__(
        self,
        on_message: Callable[[Peer, Message], None],
        *,
        on_open: Callable[[Peer], None] = lambda peer: None,
        on_closed: Callable[[Peer], None] = lambda peer: None,
    ) -> None:
        self._on_message = on_message
        self._on_open = on_open
        self._on_closed = on_closed
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._at_leisure: deque[Message] = deque()
        self._is_full = False

    @property
    def is_open(self) -> bool:
        """Whether what is sent can arrive."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: Message) -> bool:
        """Send without waiting; whether it is on its way."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
            self._give_up(transport)
            return False
        transport.write(encode(message))
        return True

    def send_at_leisure(self, message: Message) -> None:
        """Send as fast as the other reads, so that much of it holds up nothing that `send` sends.

        What is sent so arrives in its own order.
        """
        self._at_leisure.append(message)
        self._send_waiting()

    def _send_waiting(self) -> None:
        transport, waiting = self._transport, self._at_leisure
        if transport is None or transport.is_closing():
            waiting.clear()
            return
        while waiting and not self._is_full:
            transport.write(encode(waiting.popleft()))
        if len(waiting) > _MOST_AT_LEISURE:
            waiting.clear()
            self._give_up(transport)

    def _give_up(self, transport: asyncio.Transport) -> None:
        log.error("peer_reads_nothing")
        transport.abort()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._send_waiting()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none of asyncio's, though they are alike.
        self._transport = cast(asyncio.Transport, transport)
        self._on_open(self)

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._decoder.feed(data)
        except ValueError as error:
            log.error("peer_not_understood", error=str(error))
            self.close()
            return
        for message in messages:
            try:
                self._on_message(self, message)
            except Exception:
                log.exception("peer_message_failed", kind=message.get("kind"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._at_leisure.clear()
        self._on_closed(self)


async def listen(path: Path, make: Callable[[], Peer]) -> asyncio.Server:
    """Accept lines at a path, in the place of whoever listened there before."""
    loop = asyncio.get_running_loop()
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    server = await loop.create_unix_server(make, str(fresh))
    # At no moment is there nobody: a rename replaces the other's in one step.
    fresh.rename(path)
    return server
