"""Async tests here run twice: on asyncio's own loop and on uvloop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock
from tests.unit.audiosocket.doubles import Bench
from tests.unit.linekit.conftest import manual as manual
from tests.unit.linekit.conftest import (
    pytest_asyncio_loop_factories as pytest_asyncio_loop_factories,
)
from tests.unit.linekit.manual_loop import ManualLoop


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
