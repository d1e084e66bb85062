from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trustme

from linekit.transport import SocketTransport, connect_tls, connected_socket
from tests.tls import client_tls, server_tls
from tests.waiting import PATIENCE_SECONDS, until


class Protocol(asyncio.Protocol):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.told: list[str] = []
        self.error: Exception | None = None
        self.stays_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(SocketTransport, transport)
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.stays_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.error = exc


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
        here.setblocking(False)
        there.settimeout(PATIENCE_SECONDS)
        with here, there:
            yield here, there


Ends = tuple[socket.socket, socket.socket]


async def test_bytes_go_both_ways(ends: Ends) -> None:
    here, there = ends
    protocol = Protocol()
    transport = SocketTransport(here, protocol)
    transport.start()
    assert transport.get_extra_info("peername") == there.getsockname()
    transport.write(b"to there")
    assert there.recv(99) == b"to there"
    there.sendall(b"to here")
    await until(lambda: protocol.data == b"to here")
    there.close()
    await until(lambda: "lost" in protocol.told)
    assert protocol.told == ["made", "eof", "lost"]
    assert (protocol.error, here.fileno()) == (None, -1)
    transport.write(b"nobody takes it")
    transport.read_now()
    transport.resume_reading()
    transport.close()
    transport.abort()
    await asyncio.sleep(0)
    assert protocol.told == ["made", "eof", "lost"]


async def test_reading_can_be_left_to_somebody(ends: Ends) -> None:
    here, there = ends
    protocol = Protocol()
    transport = SocketTransport(here, protocol, read_bytes=4)
    transport.start()
    transport.pause_reading()
    assert not transport.is_reading()
    transport.read_now()
    there.sendall(b"123456")
    await asyncio.sleep(0.02)
    assert protocol.data == b""
    transport.read_now()
    assert protocol.data == b"1234"
    transport.resume_reading()
    await until(lambda: protocol.data == b"123456")
    transport.abort()


async def test_what_the_peer_does_not_read_waits_and_nothing_is_lost(ends: Ends) -> None:
    here, there = ends
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    protocol = Protocol()
    transport = SocketTransport(here, protocol)
    transport.set_write_buffer_limits(high=10_000)
    transport.start()
    sent = bytes(range(256)) * 64
    rounds = 0
    while "pause" not in protocol.told:
        transport.write(sent)
        rounds += 1
    assert transport.get_write_buffer_size() > 10_000
    transport.write_eof()
    transport.write(b"too late")
    transport.close()

    received = b""
    there.setblocking(False)
    while len(received) < rounds * len(sent):
        received += await asyncio.get_running_loop().sock_recv(there, 65536)
    assert received == sent * rounds
    await until(lambda: "lost" in protocol.told)
    assert protocol.told == ["made", "pause", "lost"]


async def test_writing_goes_on_when_there_is_room(ends: Ends) -> None:
    here, there = ends
    protocol = Protocol()
    transport = SocketTransport(here, protocol)
    transport.set_write_buffer_limits(high=1000)
    assert transport.get_write_buffer_limits() == (250, 1000)
    transport.start()
    while "pause" not in protocol.told:
        transport.write(bytes(65536))
    there.setblocking(False)
    while "resume" not in protocol.told:
        await asyncio.get_running_loop().sock_recv(there, 1 << 20)
    transport.abort()


async def test_a_half_closed_connection_can_still_be_written_to(ends: Ends) -> None:
    here, there = ends
    protocol = Protocol()
    protocol.stays_open = True
    transport = SocketTransport(here, protocol)
    transport.start()
    there.shutdown(socket.SHUT_WR)
    await until(lambda: "eof" in protocol.told)
    transport.write(b"still")
    transport.write_eof()
    assert there.recv(99) + there.recv(99) == b"still"
    transport.close()
    await until(lambda: "lost" in protocol.told)


async def test_a_reset_is_told(ends: Ends) -> None:
    here, there = ends
    protocol = Protocol()
    transport = SocketTransport(here, protocol)
    transport.start()
    transport.pause_reading()
    transport.write(b"unread")
    await asyncio.sleep(0.02)
    there.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "lost" not in protocol.told:
            transport.write(b"more")
            await asyncio.sleep(0)
    assert isinstance(protocol.error, OSError)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def talking_to(authority: trustme.CA, serve: Serve) -> AsyncIterator[Protocol]:
    """A protocol that is connected over TLS with somebody who does this."""
    theirs, ours = server_tls(authority, "localhost"), client_tls(authority)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=theirs)
    port = server.sockets[0].getsockname()[1]
    protocol = Protocol()
    made = await connect_tls(lambda: protocol, "127.0.0.1", port, ours, server_hostname="localhost")
    assert made is protocol
    yield protocol
    protocol.transport.abort()
    server.close()


async def test_tls_carries_much_both_ways_and_ends_properly(authority: trustme.CA) -> None:
    much = bytes(range(256)) * 8192
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(b"".join(heard)) < len(much):
            heard.append(await reader.read(1 << 20))
        writer.write(much)
        await writer.drain()
        heard.append(await reader.read(1))

    async with talking_to(authority, serve) as protocol:
        transport = protocol.transport
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        for start in range(0, len(much), 10_000):
            transport.write(much[start : start + 10_000])
        await until(lambda: len(protocol.data) == len(much))
        assert protocol.data == b"".join(heard) == much
        assert not transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        transport.close()
        await until(lambda: heard[-1] == b"" and "lost" in protocol.told)
    assert protocol.error is None
    assert ("pause" in protocol.told) == ("resume" in protocol.told)


async def test_a_tls_peer_that_closes_is_told(authority: trustme.CA) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")

    async with talking_to(authority, serve) as protocol:
        await until(lambda: "lost" in protocol.told)
    assert (protocol.data, protocol.told) == (b"bye", ["made", "eof", "lost"])


async def test_a_tls_peer_that_talks_nonsense_is_told(authority: trustme.CA) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = socket.socket(fileno=socket.dup(writer.get_extra_info("socket").fileno()))
        with sock:
            sock.send(b"this is no record of TLS")
            await reader.read(1)

    async with talking_to(authority, serve) as protocol:
        await until(lambda: "lost" in protocol.told)
    assert isinstance(protocol.error, ssl.SSLError)


async def test_addresses_that_this_machine_does_not_know_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown = (socket.AF_UNIX, socket.SOCK_RAW, socket.IPPROTO_TCP, "", ("127.0.0.1", 1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        good = (socket.AF_INET, socket.SOCK_STREAM, 0, "", server.getsockname())

        loop = asyncio.get_running_loop()

        class Loop:
            sock_connect = staticmethod(loop.sock_connect)

            async def getaddrinfo(self, *_: object, **__: object) -> list[object]:
                return [unknown, good]

        monkeypatch.setattr(asyncio, "get_running_loop", Loop)
        sock = await connected_socket("host.example", 1)
        assert sock.getpeername() == server.getsockname()
        sock.close()


async def test_nobody_is_there_or_it_is_somebody_else(authority: trustme.CA) -> None:
    theirs, ours = server_tls(authority, "other.example"), client_tls(authority)
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=theirs)
    port = server.sockets[0].getsockname()[1]

    async def connect() -> Protocol:
        return await connect_tls(Protocol, "127.0.0.1", port, ours, server_hostname="localhost")

    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await connect()
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await connect()
