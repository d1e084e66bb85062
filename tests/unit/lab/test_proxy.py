"""The proxy that gets in the way, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from lab.faults import TcpProxy
from tests.waiting import until

MARK = b"GET /events"


@dataclass
class Echo:
    """A server that sends everything back."""

    server: asyncio.Server
    port: int


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[Echo]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Echo(server, server.sockets[0].getsockname()[1])


@contextlib.asynccontextmanager
async def proxied() -> AsyncIterator[TcpProxy]:
    async with echo() as target, TcpProxy("127.0.0.1", target.port, mark=MARK) as proxy:
        yield proxy


class Client:
    """Speaks through a proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, proxy: TcpProxy) -> Client:
        return cls(*await asyncio.open_connection(proxy.host, proxy.port))

    async def says(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hears(self, data: bytes) -> None:
        assert await self.reader.readexactly(len(data)) == data

    async def exchanges(self, data: bytes = b"hello") -> None:
        await self.says(data)
        await self.hears(data)

    async def is_reset(self) -> None:
        with pytest.raises(ConnectionResetError):
            while await self.reader.read(1000):
                pass
        await self.closes()

    async def closes(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def test_it_passes_everything_on_and_ends_with_its_sides() -> None:
    async with proxied() as proxy:
        client = await Client.of(proxy)
        much = bytes(range(256)) * 4096
        sending = asyncio.create_task(client.says(much))
        await client.hears(much)
        await sending
        assert proxy.connections == 1
        client.writer.write_eof()
        assert await client.reader.read() == b""
        await client.closes()
        await until(lambda: not proxy.connections)
        assert proxy.accepted == 1


async def test_cut_resets_both_sides_and_lets_new_ones_through() -> None:
    async with proxied() as proxy:
        client = await Client.of(proxy)
        await client.exchanges()
        proxy.cut()
        await client.is_reset()
        again = await Client.of(proxy)
        await again.exchanges()
        await again.closes()


async def test_refused_connections_are_refused_at_the_same_port_until_restored() -> None:
    async with proxied() as proxy:
        client = await Client.of(proxy)
        await client.exchanges()
        await proxy.refuse()
        await client.is_reset()
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await Client.of(proxy)
        await proxy.refuse()
        port = proxy.port
        await proxy.restore()
        assert proxy.port == port
        again = await Client.of(proxy)
        await again.exchanges()
        await again.closes()


async def test_what_falls_into_a_black_hole_comes_late() -> None:
    async with proxied() as proxy:
        old = await Client.of(proxy)
        await old.exchanges()
        await proxy.blackhole()
        new = await Client.of(proxy)
        for client in (old, new):
            await client.says(b"anybody there?")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await old.reader.read(1)
        await proxy.restore()
        for client in (old, new):
            await client.hears(b"anybody there?")
            await client.closes()


async def test_a_delay_holds_in_both_directions() -> None:
    loop = asyncio.get_running_loop()
    async with proxied() as proxy:
        client = await Client.of(proxy)
        await client.exchanges()
        await proxy.delay(0.05)
        before = loop.time()
        await client.exchanges(b"late")
        assert loop.time() - before >= 0.1
        await client.closes()


async def test_a_fault_for_marked_connections_spares_the_others() -> None:
    async with proxied() as proxy:
        plain, marked = await Client.of(proxy), await Client.of(proxy)
        await plain.exchanges(b"GET /channels")
        await marked.exchanges(b"GET /channels")  # used for something else before
        await marked.exchanges(MARK + b"?app=a")
        assert (proxy.connections, proxy.marked) == (2, 1)

        await proxy.blackhole(marked_only=True)
        await marked.says(b"more")
        await plain.exchanges()
        await proxy.restore()
        await marked.hears(b"more")

        await proxy.refuse(marked_only=True)
        await marked.is_reset()
        await plain.exchanges()
        again = await Client.of(proxy)
        await again.exchanges(b"GET /bridges")
        await again.says(MARK)
        await again.is_reset()
        await plain.closes()


async def test_a_target_that_is_down_resets_connections() -> None:
    async with echo() as target:
        pass
    async with TcpProxy("127.0.0.1", target.port) as proxy:
        client = await Client.of(proxy)
        await client.is_reset()
        assert proxy.connections == 0


async def test_closing_ends_all_even_in_a_black_hole_and_twice() -> None:
    async with echo() as target:
        proxy = TcpProxy("127.0.0.1", target.port)
        await proxy.start()
        with pytest.raises(RuntimeError):
            await proxy.start()
        client = await Client.of(proxy)
        await client.exchanges()
        await proxy.blackhole()
        await client.says(b"lost")
        await proxy.close()
        await client.is_reset()
        assert proxy.connections == 0
        await proxy.close()
        with pytest.raises(RuntimeError):
            await proxy.restore()
