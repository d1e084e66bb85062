"""Processes that keep calls are killed at random moments; then it is counted."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from ari_app.records.store import keeper as keeper_module
from ari_app.records.store.log import CallLog
from ari_app.records.store.query import CallFilter
from tests.unit.records.store.test_log import upgraded
from tests.waiting import until

ROUNDS = 4


async def keep_until_killed(url: str, journal: Path, name: str, lines: int) -> list[str]:
    """What it has said until it was killed, soon after so many lines."""
    command = (sys.executable, "-m", "tests.unit.records.store.keeping", url, str(journal), name)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    said = [await process.stdout.readline() for _ in range(lines)]
    reading = asyncio.create_task(process.stdout.read())
    await asyncio.sleep(random.random() * 0.1)
    process.kill()
    said += (await reading).splitlines(keepends=True)
    await process.wait()
    # The last line may be torn.
    return [line.decode().strip() for line in said if line.endswith(b"\n")]


async def test_every_call_is_kept_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_LOOK_AGAIN_SECONDS", 0.1)
    journal = tmp_path / "journal"
    journal.mkdir()
    await upgraded(url)
    said: list[str] = []
    for number in range(ROUNDS):
        # Two at a time: they share the database and the folder.
        both = (
            keep_until_killed(url, journal, f"{number}{each}", random.randint(1, 60))
            for each in "ab"
        )
        for lines in await asyncio.gather(*both):
            said += lines
    began = {line.split()[1] for line in said if line.startswith("began")}
    ended = {line.split()[1] for line in said if line.startswith("ended")}
    assert began and ended
    async with CallLog(url, journal=journal) as log:
        await until(lambda: not list(journal.iterdir()))
        kept = [document async for document in log.export(CallFilter())]
    reasons = {document["session_id"]: document["reason"] for document in kept}
    assert len(reasons) == len(kept), "none twice"
    assert began <= set(reasons), "every one"
    assert {reasons[each] for each in ended} == {"agent_ended"}
    recorded = {document["session_id"] for document in kept if "recordings" in document}
    assert ended <= recorded
