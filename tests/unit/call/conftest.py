"""Async tests here run in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.call.stage import Stage
from tests.unit.virtual_loop import virtual_loops as pytest_asyncio_loop_factories  # noqa: F401


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A stage on which nothing is left at the end, whatever a test does."""
    async with Stage() as stage:
        yield stage
