"""Async tests here run twice: on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock
from tests.unit.audiosocket.doubles import Bench, ManualLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def manual() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
async def bench(manual: ManualLoop) -> AsyncIterator[Bench]:
    """A server on loopback whose clock ticks when the test says so."""
    clock = FrameClock(loop=manual)
    clock.start()
    refused: list[str] = []
    server = AudioSocketServer(clock, on_refused=lambda reason, peer: refused.append(reason))
    host, port = await server.start("127.0.0.1", 0)
    bench = Bench(server, clock, manual, host, port, refused)
    yield bench
    await bench.close()
