from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from ari_app.control.http.handlers import build_web_app
from ari_app.control.http.keys import Keys
from tests.unit.control.http.fake_service import FakeService, Http

KEY = "key-of-the-tests"


@pytest.fixture
async def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def http(service: FakeService) -> AsyncIterator[Http]:
    """A client that brings the key."""
    app = build_web_app(service, keys=Keys.of(KEY))
    async with TestClient(TestServer(app), headers={"X-API-Key": KEY}) as client:
        yield client


@pytest.fixture
async def stranger(service: FakeService) -> AsyncIterator[Http]:
    """A client that brings no key, where one is asked for."""
    async with TestClient(TestServer(build_web_app(service, keys=Keys.of(KEY)))) as client:
        yield client


@pytest.fixture
async def keyless(service: FakeService) -> AsyncIterator[Http]:
    """A client of a service that asks for no key."""
    async with TestClient(TestServer(build_web_app(service, keys=Keys()))) as client:
        yield client
