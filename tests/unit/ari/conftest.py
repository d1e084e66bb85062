from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from ari_app.ari import Client
from tests.unit.ari.fake_ari import APP, PASSWORD, USERNAME, FakeAri


@pytest.fixture
async def ari() -> AsyncIterator[FakeAri]:
    async with FakeAri() as fake:
        yield fake


@pytest.fixture
async def client(ari: FakeAri) -> AsyncIterator[Client]:
    async with Client(ari.url, USERNAME, PASSWORD, APP) as made:
        yield made


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken and refuses every connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
