"""HTTP/1.1 as ARI needs it: short requests, each on a connection of its own while it lasts.

A general client spends five times as long on such a request as all that is done here, and a call
needs eight of them. `AnswerReader` is pure; `Connections` is the pool.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import Final, cast

from linekit.transport import connected_socket

_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_BODY_BYTES: Final = 64 * 1024 * 1024
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: ([^\r\n]*))?")
_DIGITS: Final = re.compile(rb"\d{1,10}")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
# One of several addresses that does not answer must not use up the deadline.
_ADDRESS_SECONDS: Final = 1.0


class NotReached(Exception):
    """No connection came about; `__cause__`, an OSError, says why."""


class Lost(Exception):
    """A connection ended before the answer did, or brought what is no answer.

    Attributes:
        began: Some of the answer had come.
    """

    def __init__(self, why: str, *, began: bool) -> None:
        super().__init__(why)
        self.began = began


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        reason: What stands beside the status.
        keeps: The connection may be used again.
    """

    status: int
    reason: str
    body: bytes
    keeps: bool


class AnswerReader:
    """Turns the bytes of one answer into it. RFC 9112; pure."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._status = 0
        self._reason = ""
        self._keeps = False
        self._length: int | None = None
        self._chunks: bytearray | None = None

    @property
    def began(self) -> bool:
        """Whether some of the answer has come."""
        return bool(self._data or self._status)

    def feed(self, data: bytes) -> Answer | None:
        """Take some bytes, and return the answer once it is whole.

        Raises:
            Lost: It is no answer, or longer than any of Asterisk's.
        """
        self._data += data
        while not self._status:
            if (end := self._data.find(b"\r\n\r\n")) < 0:
                if len(self._data) > _MAX_HEAD_BYTES:
                    raise self._broken("its head does not end")
                return None
            self._read_head(bytes(self._data[:end]))
            del self._data[: end + 4]
        if self._chunks is not None:
            return self._read_chunks(self._chunks)
        size = len(self._data)
        if size > (_MAX_BODY_BYTES if self._length is None else self._length):
            raise self._broken("it is too long")
        return self._whole(self._data) if size == self._length else None

    def end(self) -> Answer | None:
        """Note that the connection has ended; return the answer if that was its end."""
        if self._status and self._length is None and self._chunks is None:
            self._keeps = False
            return self._whole(self._data)
        return None

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        if (found := _STATUS.fullmatch(first)) is None:
            raise self._broken("it is not HTTP")
        status = int(found[1])
        if status < 200:
            return  # another one follows
        self._keeps = first.startswith(b"HTTP/1.1")
        for line in lines:
            name, _, value = line.partition(b":")
            match name.strip().lower():
                case b"content-length":
                    self._length = self._length_of(value.strip())
                case b"transfer-encoding":
                    if value.strip().lower() != b"chunked":
                        raise self._broken("it is packed")
                    self._chunks = bytearray()
                case b"connection":
                    options = {option.strip() for option in value.lower().split(b",")}
                    self._keeps = b"close" not in options and (
                        self._keeps or b"keep-alive" in options
                    )
                case _:
                    pass
        if status in (204, 304):
            self._length, self._chunks = 0, None
        self._status, self._reason = status, (found[2] or b"").decode("latin-1")

    def _length_of(self, value: bytes) -> int:
        if _DIGITS.fullmatch(value) is None or int(value) > _MAX_BODY_BYTES:
            raise self._broken("its length is none")
        if self._length not in (None, int(value)):
            raise self._broken("it has two lengths")
        return int(value)

    def _read_chunks(self, body: bytearray) -> Answer | None:
        data = self._data
        while (end := data.find(b"\r\n")) >= 0:
            if (found := _CHUNK_SIZE.fullmatch(data[:end])) is None:
                raise self._broken("a piece has no length")
            size = int(found[1], 16)
            if len(body) + size > _MAX_BODY_BYTES:
                raise self._broken("it is too long")
            if not size:
                # Lines may follow, up to an empty one.
                if data.startswith(b"\r\n", end + 2):
                    del data[: end + 4]
                elif (last := data.find(b"\r\n\r\n", end + 2)) >= 0:
                    del data[: last + 4]
                else:
                    break
                return self._whole(body)
            if len(data) < end + 2 + size + 2:
                return None
            if data[end + 2 + size : end + 4 + size] != b"\r\n":
                raise self._broken("a piece has another length")
            body += data[end + 2 : end + 2 + size]
            del data[: end + 4 + size]
        if len(data) > _MAX_HEAD_BYTES:
            raise self._broken("a line does not end")
        return None

    def _whole(self, body: bytearray) -> Answer:
        keeps = self._keeps and not (self._chunks is not None and self._data)
        return Answer(self._status, self._reason, bytes(body), keeps)

    def _broken(self, why: str) -> Lost:
        return Lost(f"the answer cannot be read: {why}", began=True)


class _Connection(asyncio.Protocol):
    """A connection: one request at a time."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self.lives = False
        self.idle_since = 0.0
        self._reader = AnswerReader()
        self._answer: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for its answer. Raises Lost."""
        if not self.lives:
            raise Lost("the connection has ended", began=False)
        self._reader = AnswerReader()
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._transport.write(request)
        return await answer

    def drop(self) -> None:
        """Close at once. May be called twice."""
        self.lives = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is a transport by its methods only.
        self._transport, self.lives = cast(asyncio.Transport, transport), True

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            # Nobody has asked: whatever came next would be taken for another answer.
            self.drop()
            return
        try:
            answer = self._reader.feed(data)
        except Lost as error:
            self._settle(error)
            self.drop()
        else:
            if answer is not None:
                self._settle(answer)

    def eof_received(self) -> None:
        self.lives = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lives = False
        ended = self._reader.end()
        why = str(exc) if exc is not None else "Asterisk has closed the connection"
        self._settle(ended or Lost(why, began=self._reader.began))

    def _settle(self, became: Answer | Lost) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return
        if isinstance(became, Answer):
            answer.set_result(became)
        else:
            answer.set_exception(became)


class Connections:
    """A pool of connections to one server.

    Args:
        host, port: The server.
        tls: How it has to prove who it is; None: plain HTTP.
        limit: So many at once; further requests wait.
        keep_seconds: One that was idle for so long is closed.
    """

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, limit: int, keep_seconds: float
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._keep_seconds = keep_seconds
        self._room = asyncio.Semaphore(limit)
        # The one that was used last is the last.
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def idle(self) -> int:
        """How many wait to be used again."""
        return len(self._idle)

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and wait for its answer. There is no deadline; cancelling this also closes
        the connection.

        Raises:
            NotReached: There was nobody to send it to.
            Lost: The server may have got it.
        """
        async with self._room:
            connection = self._take() or await self._connect()
            self._busy.add(connection)
            try:
                answer = await connection.ask(request)
            except BaseException:
                connection.drop()
                raise
            finally:
                self._busy.discard(connection)
            if answer.keeps and connection.lives and not self._closed:
                self._keep(connection)
            else:
                connection.drop()
            return answer

    def close(self) -> None:
        """Close all connections. May be called twice."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in (*self._idle, *self._busy):
            connection.drop()
        self._idle.clear()

    def _take(self) -> _Connection | None:
        while self._idle:
            if (connection := self._idle.pop()).lives:
                return connection
        return None

    def _keep(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._timer is None:
            self._timer = loop.call_later(self._keep_seconds, self._drop_idle)

    def _drop_idle(self) -> None:
        loop = asyncio.get_running_loop()
        oldest_kept = loop.time() - self._keep_seconds
        while self._idle and (not self._idle[0].lives or self._idle[0].idle_since <= oldest_kept):
            self._idle.pop(0).drop()
        self._timer = None
        if self._idle:
            self._timer = loop.call_at(
                self._idle[0].idle_since + self._keep_seconds, self._drop_idle
            )

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            sock = await connected_socket(self._host, self._port, address_seconds=_ADDRESS_SECONDS)
            try:
                connection: _Connection
                _, connection = await loop.create_connection(
                    _Connection,
                    sock=sock,
                    ssl=self._tls,
                    server_hostname=None if self._tls is None else self._host,
                )
            except BaseException:
                sock.close()
                raise
        except (OSError, UnicodeError) as error:
            why = error if isinstance(error, OSError) else OSError("not the name of a host")
            raise NotReached(f"{self._host}:{self._port} cannot be reached") from why
        return connection
