from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.unit.virtual_loop import NothingLeft, VirtualLoop


def run(work: Callable[[VirtualLoop], object]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        result = work(loop)
        assert asyncio.iscoroutine(result)
        await result

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def test_ten_minutes_pass_at_once_and_exactly() -> None:
    async def work(loop: VirtualLoop) -> None:
        began, seen = loop.time(), list[float]()
        loop.call_later(0.02, lambda: seen.append(loop.time() - began))
        await asyncio.sleep(600)
        assert seen == [pytest.approx(0.02)]
        assert loop.time() - began == pytest.approx(600)

    run(work)


def test_time_stands_still_while_a_thread_works() -> None:
    async def work(loop: VirtualLoop) -> None:
        began = loop.time()
        timer = loop.call_later(0.001, lambda: pytest.fail("time has passed"))
        await asyncio.to_thread(time.sleep, 0.01)
        timer.cancel()
        assert loop.time() == began

    run(work)


def test_waiting_for_nothing_fails_instead_of_hanging() -> None:
    async def work(loop: VirtualLoop) -> None:
        await loop.create_future()

    with pytest.raises(NothingLeft):
        run(work)


def test_connections_in_memory() -> None:
    async def work(loop: VirtualLoop) -> None:
        closed = asyncio.Event()

        class Echo(asyncio.Protocol):
            transport: asyncio.BaseTransport

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

            def data_received(self, data: bytes) -> None:
                assert isinstance(self.transport, asyncio.Transport)
                self.transport.write(data.upper())

            def connection_lost(self, error: Exception | None) -> None:
                closed.set()

        server = await loop.create_server(Echo, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        reader = asyncio.StreamReader()
        transport, _ = await loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader), host, port
        )
        transport.write(b"one")
        transport.write(b"two")
        assert await reader.readexactly(6) == b"ONETWO"
        transport.close()
        await closed.wait()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(asyncio.Protocol, host, port)

    run(work)
