from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.unit.agent.elevenlabs.recording_handler import RecordingHandler


@pytest.fixture
async def handler() -> AsyncIterator[RecordingHandler]:
    """A recording handler, in a loop in which no task may be left over."""
    before = asyncio.all_tasks()
    yield RecordingHandler()
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
