from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from typing import Any

from structlog.testing import capture_logs

from ari_app.records.forgetting import Forgetting
from tests.unit.virtual_loop import VirtualLoop


class Disk:
    """Removes what it is told, but for what is stuck.

    Attributes:
        stuck: How often each fails still.
        tried: What was tried, and when.
    """

    def __init__(self, **stuck: int) -> None:
        self.stuck = stuck
        self.tried: list[tuple[str, float]] = []

    async def forget(self, session_id: str, document: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        assert document["recordings"] == [{"path": session_id}]
        self.tried.append((session_id, asyncio.get_running_loop().time()))
        if self.stuck.get(session_id, 0):
            self.stuck[session_id] -= 1
            raise OSError(errno.EROFS, "Read-only file system", f"+493023125001-{session_id}.wav")


def forgotten(disk: Disk, *calls: str, seconds: float) -> list[tuple[str, float]]:
    """Return what was tried, and after how long."""

    async def work() -> list[tuple[str, float]]:
        began = asyncio.get_running_loop().time()
        forgetting = Forgetting([disk.forget])
        running = asyncio.create_task(forgetting.run())
        for call in calls:
            forgetting.put(call, [call])
        await asyncio.sleep(seconds)
        running.cancel()
        return [(call, at - began) for call, at in disk.tried]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work())


def test_what_cannot_be_removed_holds_up_nothing_and_is_tried_again() -> None:
    with capture_logs() as logs:
        tried = forgotten(Disk(b=2), "a", "b", "c", seconds=60)
    assert tried == [("a", 0), ("b", 0), ("c", 0), ("b", 5), ("b", 15)]
    assert [(each["session"], each["error"]) for each in logs] == [("b", "Read-only file system")]


def test_what_never_goes_is_tried_seldom() -> None:
    tried = forgotten(Disk(a=1000), "a", seconds=3600)
    assert [at for _, at in tried] == [0, 5, 15, 35, 75, 155, 315, 635, 1235, 1835, 2435, 3035]
