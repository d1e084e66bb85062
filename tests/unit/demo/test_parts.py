from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from ari_app.control.http.models import Readiness
from lab.asterisk import LabError
from lab.demo import parts
from lab.demo.parts import ready
from lab.demo.run import write_results
from tests.unit.demo.test_result import RESULT


class FakeService:
    """A service that is ready after so many questions."""

    def __init__(self, questions: int) -> None:
        self._questions = questions

    def readiness(self) -> Readiness:
        self._questions -= 1
        problems = ["the line is dead"] if self._questions >= 0 else []
        return Readiness(
            status="not_ready" if problems else "ready",
            problems=problems,
            active_sessions=0,
            asterisk_version=None,
        )


async def serve_for_ever() -> None:
    await asyncio.Event().wait()


async def nothing() -> None:
    pass


async def fail() -> None:
    raise ValueError("broken")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_POLL_SECONDS", 0)


async def test_a_service_that_gets_ready() -> None:
    serving = asyncio.create_task(serve_for_ever())
    await ready(FakeService(3), serving)
    serving.cancel()
    await asyncio.wait([serving])


async def test_a_service_that_does_not_get_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "READY_SECONDS", 0.01)
    serving = asyncio.create_task(serve_for_ever())
    with pytest.raises(LabError, match="not ready: the line is dead"):
        await ready(FakeService(10**9), serving)
    serving.cancel()
    await asyncio.wait([serving])


async def test_a_service_that_stops_at_once() -> None:
    serving = asyncio.create_task(nothing())
    with pytest.raises(LabError, match="another program took its application"):
        await ready(FakeService(10**9), serving)


async def test_a_service_that_fails() -> None:
    serving = asyncio.create_task(fail())
    with pytest.raises(ValueError, match="broken"):
        await ready(FakeService(10**9), serving)


def test_results_that_cannot_be_written() -> None:
    result = replace(RESULT, recording=RESULT.recording.parent / "missing" / "call.wav")
    with pytest.raises(LabError, match=r"missing cannot be written: No such file"):
        write_results(result, np.zeros(8, np.int16), np.zeros(8, np.int16), "softphone")
