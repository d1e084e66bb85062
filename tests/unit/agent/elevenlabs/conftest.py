from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.unit.agent.elevenlabs.told import Told


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    """Takes down what is told, in a loop in which no task may be left over."""
    before = asyncio.all_tasks()
    yield Told()
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
