from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ari_app.checks.call_log import check_call_log, check_open_log
from ari_app.checks.finding import Verdict
from ari_app.records.store.address import read_address
from ari_app.records.store.log import CallLog
from ari_app.records.store.upgrade import upgrade
from ari_app.settings import Settings, load_settings


def at(file: Path, **changes: object) -> Settings:
    return load_settings(None, database_url=f"sqlite+aiosqlite:///{file}", **changes)


async def said(settings: Settings) -> list[tuple[Verdict, str]]:
    return [(each.verdict, each.detail) for each in await check_call_log(settings)]


async def test_none_and_one_that_will_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await said(load_settings(None, database_url="")) == []
    assert await said(at(tmp_path / "new" / "calls.db")) == [
        (Verdict.OK, f"{tmp_path}/new/calls.db will be made")
    ]
    monkeypatch.chdir(tmp_path)
    assert await said(at(Path("calls.db"))) == [(Verdict.OK, f"{tmp_path}/calls.db will be made")]
    assert not os.listdir(tmp_path), "nothing is made"


async def test_what_cannot_be_looked_into(tmp_path: Path, unseen: str) -> None:
    (_, database), (_, journal) = await said(at(tmp_path / unseen / "calls.db"))
    assert "cannot be used: [Errno 36] File name too long" in database
    assert "cannot be written: File name too long. " in journal
    here = at(tmp_path / "calls.db")
    async with CallLog(here.database_url, journal=tmp_path / unseen) as call_log:
        *_, finding = await check_open_log(call_log)
    assert "cannot be written: File name too long. " in finding.detail


async def test_one_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "calls.db"
    await upgrade(read_address(f"sqlite:///{file}"))
    assert await said(at(file)) == [(Verdict.OK, f"{file} has 0 calls")]


def _letter(file: Path) -> None:
    file.write_bytes(b"To the tax office" * 100)


def _newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
        connection.commit()


def _empty(file: Path) -> None:
    sqlite3.connect(file).close()


@pytest.mark.parametrize(
    ("make", "verdict", "words"),
    [
        (_letter, Verdict.FAILED, "is no SQLite database"),
        (_newer, Verdict.FAILED, "is of a newer ari-app"),
        (_empty, Verdict.OK, "will be brought up to date"),
    ],
)
async def test_one_of_another_kind(
    tmp_path: Path, make: Callable[[Path], None], verdict: Verdict, words: str
) -> None:
    file = tmp_path / "calls.db"
    make(file)
    ((found, text),) = await said(at(file))
    assert found is verdict and words in text
    async with CallLog(f"sqlite:///{file}") as log:
        opened = await check_open_log(log)
    assert [each.verdict for each in opened] == ([verdict] if verdict is Verdict.FAILED else [])


async def test_postgresql_that_does_not_answer() -> None:
    url = "postgresql://u:secret@127.0.0.1:1/calls"
    ((verdict, text), *_) = await said(load_settings(None, database_url=url))
    assert verdict is Verdict.FAILED and "cannot be reached" in text
    assert "secret" not in text


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    _letter(file)
    found = await said(at(tmp_path / "calls.db", records_journal_dir=file / "journal"))
    assert [verdict for verdict, _ in found] == [Verdict.OK, Verdict.FAILED]
    assert "name another in RECORDS_JOURNAL_DIR" in found[1][1]
    ((verdict, text), *_) = await said(at(file / "calls.db"))
    assert verdict is Verdict.FAILED and "cannot be made: Not a directory" in text
    async with CallLog(f"sqlite:///{file}/calls.db") as log:
        opened = await check_open_log(log)
    assert [each.may_pass for each in opened] == [True, True]
    assert "Calls are in memory alone" in opened[0].detail
    assert "name another in RECORDS_JOURNAL_DIR" in opened[1].detail
