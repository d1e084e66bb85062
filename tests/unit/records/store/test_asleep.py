"""SQLAlchemy is loaded for the first call, or the first question: each in a process of its own,
for this one has read all of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BEFORE = """
import asyncio, sys

from pathlib import Path
import ari_app.process.plain_structlog
import structlog
from ari_app.records.store.log import CallLog
from ari_app.records.store.query import CallFilter
from ari_app.records.store.spool import encode_line
from tests.unit.records.store.documents import call

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
folder = Path(sys.argv[1])

def opened(**options):
    return CallLog(f"sqlite:///{folder}/calls.db", journal=folder / "journal", **options)

def loaded():
    return "sqlalchemy" in sys.modules

async def main():
"""
AFTER = """
asyncio.run(main())
"""


def run(folder: Path, *lines: str) -> list[str]:
    program = BEFORE + "".join(f"    {line}\n" for line in lines) + AFTER
    told = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    return told.stdout.split()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a call log has been, and has kept a call of November 2026."""
    folder = tmp_path_factory.mktemp("kept")
    told = run(
        folder,
        "async with opened() as log:",
        "    log.keep(call())",
        "    await log.settle()",
        "    print(log.counts.written)",
    )
    assert told == ["1"]
    return folder


def test_a_copy_that_was_put_back_is_taken_from_others_though_it_sleeps(
    kept: Path, tmp_path: Path
) -> None:
    copy = shutil.copyfile(kept / "calls.db", tmp_path / "calls.db")
    copy.chmod(0o644)
    assert run(tmp_path, "async with opened() as log:", "    print(loaded())") == ["False"]
    assert copy.stat().st_mode & 0o777 == 0o640


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """The same for one test alone."""
    return shutil.copytree(kept, tmp_path, dirs_exist_ok=True)


def test_nothing_is_loaded_while_there_is_nothing_to_do(folder: Path) -> None:
    told = run(
        folder,
        "async with opened() as log:",
        "    print(await log.looked(), await log.forget_old(), log.problems(), log.warnings())",
        "async with opened(keep_days=36500) as log:",
        "    print(await log.forget_old(), loaded())",
    )
    assert told == ["None", "0", "[]", "[]", "0", "False"]


@pytest.mark.parametrize(
    "does",
    [
        "print((await log.find('s1'))['session_id'])",
        "print([each['session_id'] async for each in log.export(CallFilter())][0])",
        "log.keep(call('s2')); await log.settle(); print((await log.find('s1'))['session_id'])",
        "log.began(call('s2')); await asyncio.wrap_future(log._ready); print('s1')",
    ],
)
def test_it_is_there_when_something_is_asked_or_told(folder: Path, does: str) -> None:
    told = run(
        folder,
        "async with opened() as log:",
        "    await log.looked()",
        f"    print(loaded()); {does}; print(loaded())",
    )
    assert told == ["False", "s1", "True"]


def test_what_is_told_last_is_written_before_the_end(folder: Path) -> None:
    told = run(
        folder,
        "async with opened() as log:",
        "    await log.looked()",
        "    log.keep(call('s2'))",
        "async with opened() as log:",
        "    print((await log.find('s2'))['session_id'], log.counts.left)",
    )
    assert told == ["s2", "0"]


def test_old_calls_are_forgotten_although_nothing_else_was_to_be_done(folder: Path) -> None:
    told = run(
        folder,
        "async with opened() as log:",
        "    log.keep(call('s0', minute=-5_000_000))",
        "    await log.settle()",
        "    print(log.counts.written)",
    )
    assert told == ["1"]
    told = run(
        folder,
        "async with opened(keep_days=3000) as log:",
        "    await log.looked()",
        "    print(loaded(), await log.forget_old(), await log.find('s0'))",
    )
    assert told == ["False", "1", "None"]


def test_what_a_lost_process_has_left_is_found_at_once(folder: Path) -> None:
    left = folder / "journal" / ("0" * 32)
    left.mkdir(parents=True)
    (left / "lock").touch()
    told = run(
        folder,
        "left = folder / 'journal' / ('0' * 32) / '1.calls'",
        "left.write_bytes(encode_line('keep', call('s2')))",
        "async with opened() as log:",
        "    print(await log.looked(), loaded())",
        "    print((await log.find('s2'))['session_id'])",
    )
    assert told == ["None", "True", "s2"]
