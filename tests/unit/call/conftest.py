"""Async tests here run in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from tests.unit.call.stage import Stage
from tests.unit.virtual_loop import VirtualLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": VirtualLoop}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A stage on which nothing is left at the end, whatever a test does."""
    async with Stage() as stage:
        yield stage
