"""The audit file: what is on the disk, whatever happens to the file or the disk."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_app.errors import ConfigError
from ari_app.records import audit as module
from ari_app.records.audit import AuditFile
from tests.waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def file(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AuditFile]:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    file = AuditFile(path, max_waiting=20)
    file.open()
    yield file
    file.close()


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def entries(path: Path) -> list[Any]:
    return [line["n"] for line in lines(path)]


async def test_each_entry_is_a_line_with_the_time_for_our_user_alone(
    file: AuditFile, path: Path
) -> None:
    for n in range(3):
        file.write({"n": n, "text": "two\nlines"})
    await until(lambda: file.written == 3)
    assert entries(path) == [0, 1, 2]
    assert lines(path)[0]["time"].endswith("Z")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert (file.waiting, file.lost, file.warnings()) == (0, 0, [])


def test_a_file_that_is_there_is_gone_on_with_and_the_last_entries_are_not_lost(
    path: Path,
) -> None:
    path.write_text('{"n": 0}\n')
    path.chmod(0o644)
    file = AuditFile(path)
    file.open()
    for n in range(1, 100):
        file.write({"n": n})
    file.close()
    file.close()
    assert entries(path) == list(range(100))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640, "it was for every user"


@pytest.mark.parametrize("rotate", ["rename", "remove", "truncate"])
async def test_whoever_rotates_it_has_all_that_was_before(
    file: AuditFile, path: Path, rotate: str
) -> None:
    file.write({"n": 1})
    await until(lambda: file.written == 1)
    match rotate:
        case "rename":
            os.rename(path, path.with_suffix(".1"))
        case "remove":
            os.unlink(path)
        case _:
            os.truncate(path, 0)
    file.write({"n": 2})
    await until(lambda: file.written == 2)
    assert entries(path) == [2]
    if rotate == "rename":
        assert entries(path.with_suffix(".1")) == [1]


async def test_two_processes_share_a_file(path: Path) -> None:
    files = [AuditFile(path), AuditFile(path)]
    for file in files:
        file.open()
    for n in range(200):
        for file in files:
            file.write({"n": n})
    for file in files:
        file.close()
    assert sorted(entries(path)) == sorted([*range(200), *range(200)])


def breaks(real: Callable[..., int], error: int, times: list[int]) -> Callable[..., int]:
    """Write half of what is to be written, and fail, as long as `times` has something in it."""

    def write(file: int, data: Any) -> int:
        if times and len(data) > 10:
            times.pop()
            real(file, bytes(data)[: len(data) // 2])
            raise OSError(error, os.strerror(error))
        return real(file, data)

    return write


async def test_what_a_full_disk_does_not_take_waits_and_leaves_no_half_line(
    file: AuditFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = [1] * 1_000_000
    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(os, "write", breaks(os.write, errno.ENOSPC, full))
        for n in range(20):
            file.write({"n": n})
        await until(lambda: file.warnings() != [])
        assert "20 lines wait: No space left on device." in file.warnings()[0]
        # There is a bound to what waits.
        file.write({"n": "lost"})
        assert (file.lost, file.waiting) == (1, 20)
        assert "Lines are lost, 1 so far." in file.warnings()[0]
        full.clear()
        await until(lambda: file.waiting == 0)
    assert entries(path) == list(range(20))
    assert [line["event"] for line in logs] == ["audit_fails", "audit_written_again"]


async def test_a_slow_disk_keeps_nobody_waiting_and_is_told(
    file: AuditFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(module, "_SLOW_SECONDS", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", lambda file: gate.wait())
        for n in range(5):
            file.write({"n": n})
        await until(lambda: any("the disk takes" in text for text in file.warnings()))
        gate.set()
        await until(lambda: file.waiting == 0)
    assert entries(path) == list(range(5))


async def test_what_is_no_json_costs_nothing_but_itself(file: AuditFile, path: Path) -> None:
    with capture_logs() as logs:
        file.write({"n": object()})
    assert (file.lost, logs[0]["event"]) == (1, "audit_lost")
    file.write({"n": 1})
    await until(lambda: file.written == 1)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"AUDIT_FILE .* cannot be written: No such file"):
        AuditFile(tmp_path / "none" / "audit.jsonl").open()


async def test_after_a_restart_lines_wait_for_a_file_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    away = AuditFile(tmp_path / "away" / "audit.jsonl")
    away.open(again=True)
    away.write({"n": 1})
    assert "No such file or directory" in away.warnings()[0]
    away.path.parent.mkdir()
    await until(lambda: away.written == 1)
    assert away.warnings() == []
    away.close()


async def test_at_the_first_start_lines_wait_for_a_disk_that_has_no_room_for_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    file = AuditFile(tmp_path / "audit.jsonl")
    with monkeypatch.context() as full:
        full.setattr(AuditFile, "_reopen", raising(OSError(errno.ENOSPC, "No space left")))
        file.open()
        file.write({"n": 1})
        assert "No space left" in file.warnings()[0]
    await until(lambda: file.written == 1)
    file.close()


def raising(error: Exception) -> Callable[[object], None]:
    def fail(_: object) -> None:
        raise error

    return fail


async def test_a_disk_that_is_really_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    full = AuditFile(Path("/dev/full"))
    full.open()
    full.write({"n": 1})
    await until(lambda: full.warnings() != [])
    assert "1 lines wait: No space left on device." in full.warnings()[0]
    with capture_logs() as logs:
        full.close()
    assert [line["event"] for line in logs] == ["audit_not_written"]
