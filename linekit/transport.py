"""Transports of bare sockets: they write to the kernel at once, and read when they are told to.

An event loop's own transports ask the kernel whether there is something to read before they read
it, and gather what is written until the end of a turn. For hundreds of lines that send and take
small messages fifty times a second, that costs more than the messages. TLS is spoken on the socket
itself, too, without a copy through memory in between, and without the buffers that this takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar, cast

from linekit.native import receive, send

_READ_BYTES: Final = 64 * 1024
_RECORD_BYTES: Final = 16 * 1024
"""The most that a record of TLS holds."""
_TLS_RECORDS: Final = 16
"""How many records are read in one turn of the event loop."""
_HIGH_WATER: Final = 64 * 1024


class Receiver(Protocol):
    """What a transport calls: the methods of `asyncio.Protocol`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class SocketTransport:
    """A transport for a connected socket that does not block, with the methods of
    `asyncio.Transport`.

    It reads whenever there is something to be read; after `pause_reading` only by `read_now`. The
    protocol's `connection_lost` always comes in a turn of its own.

    Args:
        sock: Is closed by the transport.
        protocol: Is told of everything, first in `start`.
        read_bytes: How much is read in one go.
    """

    def __init__(
        self, sock: socket.socket, protocol: Receiver, *, read_bytes: int = _READ_BYTES
    ) -> None:
        self._extra: dict[str, object] = {"socket": sock}
        with contextlib.suppress(OSError):
            self._extra["peername"] = sock.getpeername()
            self._extra["sockname"] = sock.getsockname()
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._fd = sock.fileno()
        self._protocol = protocol
        self._received = protocol.data_received
        self._read_bytes = read_bytes
        self._waiting = bytearray()
        self._high, self._low = _HIGH_WATER, _HIGH_WATER // 4
        self._reading = self._told_to_pause = False
        self._closing = self._eof_due = self._gone = False

    def start(self) -> None:
        """Tell the protocol that it is connected, and begin to read."""
        self._protocol.connection_made(cast(asyncio.Transport, self))
        self.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""
        return self._extra.get(name, default)

    # --- reading

    def read_now(self) -> None:
        """Read what is there, if anything."""
        if self._gone:
            return
        try:
            data = receive(self._fd, self._read_bytes)
        except OSError as error:
            self._fail(error)
            return
        if data:
            self._received(data)
        elif data is not None:
            self._ended()

    def _ended(self) -> None:
        self.pause_reading()
        if self._closing:
            self._end(None)
        elif not self._protocol.eof_received():
            self.close()

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.add_reader(self._fd, self.read_now)

    # --- writing

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._waiting or self._closing or self._eof_due:
            if not (self._closing or self._eof_due):
                self._keep(data)
            return
        try:
            sent = self._give(data)
        except OSError as error:
            self._fail(error)
            return
        if sent != len(data):
            self._keep(memoryview(data)[sent:])

    def _give(self, data: bytes | bytearray | memoryview[Any]) -> int:
        """Return how many bytes have been taken."""
        return send(self._fd, data)

    def _keep(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._waiting:
            self._loop.add_writer(self._fd, self._write_waiting)
        self._waiting += data
        if len(self._waiting) > self._high and not self._told_to_pause:
            self._told_to_pause = True
            self._protocol.pause_writing()

    def _write_waiting(self) -> None:
        try:
            sent = self._give(bytes(self._waiting))
        except OSError as error:
            self._fail(error)
            return
        del self._waiting[:sent]
        if not self._waiting:
            self._loop.remove_writer(self._fd)
            if self._closing:
                self._finish()
                return
            if self._eof_due:
                self._shut_down()
        if self._told_to_pause and len(self._waiting) <= self._low:
            self._told_to_pause = False
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high if high is not None else _HIGH_WATER if low is None else 4 * low
        self._low = low if low is not None else self._high // 4

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not (self._eof_due or self._closing):
            self._eof_due = True
            if not self._waiting:
                self._shut_down()

    def _shut_down(self) -> None:
        # The peer may be gone already; reading will tell.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    # --- the end

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.pause_reading()
            if not self._waiting:
                self._finish()

    def _finish(self) -> None:
        """End, for all has been written."""
        self._end(None)

    def abort(self) -> None:
        self._end(None)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self._protocol)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(Receiver, protocol)
        self._received = self._protocol.data_received

    def _fail(self, error: OSError) -> None:
        self._end(error)

    def _end(self, error: OSError | None) -> None:
        if self._gone:
            return
        self._closing = self._gone = True
        self.pause_reading()
        if self._waiting:
            self._loop.remove_writer(self._fd)
            self._waiting.clear()
        self._sock.close()
        self._loop.call_soon(self._lost, error)

    def _lost(self, error: OSError | None) -> None:
        # As the transports of asyncio do, it lets go of its protocol.
        protocol, self._protocol = self._protocol, asyncio.Protocol()
        self._received = self._protocol.data_received
        protocol.connection_lost(error)


class TlsTransport(SocketTransport):
    """The same for a socket that speaks TLS; see `connect_tls`."""

    def __init__(self, sock: ssl.SSLSocket, protocol: Receiver) -> None:
        super().__init__(sock, protocol)
        self._tls: Any = sock
        """Its `_sslobj` is used directly: the socket's own methods ask four times for each message
        whether this is TLS at all."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""
        return self._tls if name == "ssl_object" else super().get_extra_info(name, default)

    def read_now(self) -> None:
        """Read what is there, if anything, record by record: the kernel does not know what OpenSSL
        has taken already."""
        if self._gone:
            return
        records: list[bytes] = []
        ended = False
        try:
            while len(records) < _TLS_RECORDS:
                record = self._tls._sslobj.read(_RECORD_BYTES)
                if not record:
                    ended = True
                    break
                records.append(record)
                if len(record) < _RECORD_BYTES and not self._tls._sslobj.pending():
                    # Most likely there is no more; otherwise the loop calls again.
                    break
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except ssl.SSLEOFError:
            ended = True
        except OSError as error:
            if records:
                self._received(b"".join(records))
            self._fail(error)
            return
        if records:
            self._received(records[0] if len(records) == 1 else b"".join(records))
        if ended and not self._gone:
            self._ended()

    def _give(self, data: bytes | bytearray | memoryview[Any]) -> int:
        try:
            return cast(int, self._tls._sslobj.write(data))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def _ended(self) -> None:
        # TLS has no half-closed connections.
        self.pause_reading()
        if not self._closing:
            self._protocol.eof_received()
        self.close()

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError("TLS has no half-closed connections")

    def _finish(self) -> None:
        # Sends close_notify, and does not wait for the peer's.
        if not self._gone:
            with contextlib.suppress(OSError, ValueError):
                self._tls.unwrap()
        self._end(None)


_Protocol = TypeVar("_Protocol", bound=Receiver)


async def connected_socket(
    host: str, port: int, *, address_seconds: float | None = None
) -> socket.socket:
    """Connect to the first of a server's addresses that answers, and return the socket, which does
    not block and sends each message at once.

    Args:
        host, port: The server.
        address_seconds: The deadline of each address but the last; None: no deadline.

    Raises:
        OSError: None of them answers; the reason is that of the first.
        UnicodeError: It is not the name of a host.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    refused: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(found, 1):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            # This machine, or what it lets us do, knows no such addresses.
            refused = refused or error
            continue
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(address_seconds if number < len(found) else None):
                await loop.sock_connect(sock, address)
        except OSError as error:  # TimeoutError is one
            sock.close()
            refused = refused or error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise refused or OSError(f"{host} has no address")


async def connect_tls(
    make: Callable[[], _Protocol],
    host: str,
    port: int,
    context: ssl.SSLContext,
    *,
    server_hostname: str,
) -> _Protocol:
    """Connect to a server over TLS, and return the protocol that talks with it. No deadline.

    Raises:
        OSError: It is not there; `ssl.SSLError` where it is not who it should be.
    """
    sock = await connected_socket(host, port)
    tls = context.wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=False)
    try:
        await _shake_hands(tls)
        protocol = make()
        TlsTransport(tls, protocol).start()
    except BaseException:
        tls.close()
        raise
    return protocol


async def _shake_hands(tls: ssl.SSLSocket) -> None:
    loop, fd = asyncio.get_running_loop(), tls.fileno()
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            watch, unwatch = loop.add_reader, loop.remove_reader
        except ssl.SSLWantWriteError:
            watch, unwatch = loop.add_writer, loop.remove_writer
        else:
            return
        ready = asyncio.Event()
        watch(fd, ready.set)
        try:
            await ready.wait()
        finally:
            unwatch(fd)
