"""An event loop whose time jumps to the next timer when nothing else is to be done.

A call of ten minutes takes no time, and what takes ten minutes takes exactly that, however slow the
machine is. Connections exist in memory only, for the time that a packet needs is not ours to jump
over. Where a thread works (a recording's writer), the loop waits for it and time stands still. When
nothing is left that could ever happen, it raises: a test fails and does not hang.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar, cast
from uuid import UUID

import pytest

from audiosocket.server import Admit, Entrance, Refused, TcpEntrance

_Result = TypeVar("_Result")
_ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class NothingLeft(RuntimeError):
    """Whatever is waited for will never come."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above.

    Attributes:
        now: The time, in seconds.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self._threads = 0
        self._servers: dict[tuple[str, int], MemoryServer] = {}
        self._ports = iter(range(20_000, 65_536))
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now

    @property
    def waits_for_threads(self) -> bool:
        """Whether something is being done outside of the loop."""
        return self._threads > 0

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., _Result], *args: Any
    ) -> asyncio.Future[_Result]:
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, future: asyncio.Future[Any]) -> None:
        self._threads -= 1

    async def shutdown_default_executor(self, *args: Any) -> None:
        self._threads += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._threads -= 1

    # --- connections

    async def create_server(  # type: ignore[override]
        self, factory: _ProtocolFactory, host: str, port: int = 0
    ) -> asyncio.Server:
        address = (host, port or next(self._ports))
        if address in self._servers:
            raise OSError(98, "address already in use")
        server = self._servers[address] = MemoryServer(self, factory, address)
        return cast(asyncio.Server, server)

    async def create_connection(  # type: ignore[override]
        self, factory: _ProtocolFactory, host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        await asyncio.sleep(0)
        server = self._servers.get((host, port))
        if server is None:
            raise ConnectionRefusedError(111, "connection refused")
        here, there = factory(), server.factory()
        near = MemoryTransport(self, here, (host, port))
        far = MemoryTransport(self, there, ("127.0.0.1", next(self._ports)))
        near.peer, far.peer = far, near
        there.connection_made(far)
        here.connection_made(near)
        return near, here

    def forget_server(self, address: tuple[str, int]) -> None:
        """Refuse new connections to it."""
        self._servers.pop(address, None)


def make_entrance(admit: Admit, refused: Refused, **options: Any) -> Entrance:
    """The entrance for an AudioSocketServer on the running loop, virtual or not."""
    if isinstance(asyncio.get_running_loop(), VirtualLoop):
        return MemoryEntrance(admit, refused)
    return TcpEntrance(admit, refused, **options)


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            # A thread has put its callback among those that are due; its byte can wait.
            return []
        ready = super().select(None if self._loop.waits_for_threads else 0)
        if not ready:
            if timeout is None:
                raise NothingLeft("nothing is left to do, and something is waited for")
            self._loop.now += timeout
        return ready


class MemoryServer:
    """What `create_server` returns."""

    def __init__(
        self, loop: VirtualLoop, factory: _ProtocolFactory, address: tuple[str, int]
    ) -> None:
        self.factory = factory
        self.sockets = (_Socket(address),)
        self._loop = loop
        self._address = address

    def close(self) -> None:
        self._loop.forget_server(self._address)

    async def wait_closed(self) -> None:
        """Nothing lingers in memory."""


class _Socket:
    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    def getsockname(self) -> tuple[str, int]:
        return self._address

    def setsockopt(self, *options: int) -> None:
        """There is no kernel to tell."""


class MemoryTransport(asyncio.Transport):
    """One end of a connection. What is written arrives in the loop's next turn, in order.

    Attributes:
        peer: The other end.
        unread_bytes: What `get_write_buffer_size` says: set it to let the peer look stuck.
    """

    peer: MemoryTransport

    def __init__(
        self, loop: VirtualLoop, protocol: asyncio.BaseProtocol, peername: tuple[str, int]
    ) -> None:
        extra: Mapping[str, object] = {"socket": _Socket(peername), "peername": peername}
        super().__init__(extra)
        self.unread_bytes = 0
        self._loop = loop
        self._protocol = protocol
        self._closing = False
        self._eof_written = False

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not (self._closing or self._eof_written):
            self._loop.call_soon(self.peer._receive, bytes(data))

    def write_eof(self) -> None:
        if not (self._closing or self._eof_written):
            self._eof_written = True
            self._loop.call_soon(self.peer._receive_eof)

    def close(self) -> None:
        if not self._closing:
            self.write_eof()
            self._end(None)

    def abort(self) -> None:
        if not self._closing:
            self._end(None)
            self._loop.call_soon(self.peer._reset)

    def _end(self, error: Exception | None) -> None:
        self._closing = True
        self._loop.call_soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        # As the transports of asyncio do, it lets go of its protocol; and of the other end.
        protocol, self._protocol = self._protocol_now(), asyncio.Protocol()
        protocol.connection_lost(error)
        del self.peer

    def _protocol_now(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, self._protocol)

    def _receive(self, data: bytes) -> None:
        if not self._closing:
            self._protocol_now().data_received(data)

    def _receive_eof(self) -> None:
        if not self._closing and not self._protocol_now().eof_received():
            self.close()

    def _reset(self) -> None:
        if not self._closing:
            self._end(ConnectionResetError(104, "connection reset by peer"))


class MemoryEntrance:
    """An audiosocket.Entrance for connections in memory, without limits."""

    half_open = 0

    def __init__(self, admit: Admit, refused: Refused) -> None:
        self._admit = admit
        self._refused = refused
        self._server: asyncio.Server | None = None

    @property
    def listening(self) -> bool:
        return self._server is not None

    async def open(self, host: str, port: int) -> tuple[str, int]:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Guest(self._admit, self._refused), host, port
        )
        bound: tuple[str, int] = self._server.sockets[0].getsockname()
        return bound

    def stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        self.stop_listening()


class _Guest(asyncio.Protocol):
    """Reads the UUID, then hands the connection over."""

    def __init__(self, admit: Admit, refused: Refused) -> None:
        self._admit = admit
        self._refused = refused
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, MemoryTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        if len(self._data) < 19:
            return
        admitted = self._admit(UUID(bytes=self._data[3:19]), lambda: None)
        if isinstance(admitted, str):
            self._transport.write(b"\0\0\0")
            self._transport.close()
            self._refused(admitted, "memory")
            return
        self._transport.set_protocol(cast(asyncio.BaseProtocol, admitted))
        admitted.connection_made(self._transport)
        if self._data[19:]:
            admitted.data_received(self._data[19:])


def virtual_loops(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """For the conftest of a folder whose tests run in virtual time."""
    return {"virtual": VirtualLoop}
