from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from ari_app.line.asterisk.ari.client import Client
from tests.unit.line.asterisk.ari.fake_ari import APP, PASSWORD, USERNAME, FakeAri
from tests.unit.virtual_loop import VirtualLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Waiting is tested in virtual time, sockets are real, and transports those of the service,
    too."""
    if item.path.name == "test_link.py":
        return {"virtual": VirtualLoop}
    if item.path.name in ("test_http.py", "test_rest.py", "test_tls.py"):
        return {"real": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture
async def ari() -> AsyncIterator[FakeAri]:
    async with FakeAri() as fake:
        yield fake


@pytest.fixture
async def client(ari: FakeAri) -> AsyncIterator[Client]:
    async with Client(ari.url, USERNAME, PASSWORD, APP) as made:
        yield made
