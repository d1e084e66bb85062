"""The tables, from each released schema to today's, on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from ari_app.records.store import database as module
from ari_app.records.store.address import read_address
from ari_app.records.store.database import Database, revisions
from ari_app.records.store.log import CallLog
from ari_app.records.store.schema import metadata
from ari_app.records.store.sqlite_probe import REVISION
from ari_app.records.store.upgrade import upgrade
from tests.unit.records.store.documents import call
from tests.unit.records.store.test_log import ids, kept

_RELEASED = ["0001"]
"""Each schema that somebody may have; a new migration is added here once it is released."""


def test_the_newest_is_the_one_that_is_written_for() -> None:
    assert list(revisions())[-1] == REVISION
    assert set(_RELEASED) <= set(revisions())


@pytest.mark.parametrize("released", _RELEASED)
async def test_from_each_released_schema(url: str, tmp_path: Path, released: str) -> None:
    database = Database(read_address(url))
    async with database.writing() as connection:
        await connection.run_sync(module._migrate, released)
    assert await database.upgrade() == (released, REVISION)
    await database.require_version()
    await database.close()
    async with CallLog(url, journal=tmp_path / "journal") as log:
        await kept(log, call())
        assert await ids(log) == ["s1"]


async def test_the_tables_are_those_of_the_schema(url: str) -> None:
    database = Database(read_address(url))
    await database.upgrade()

    def tables(connection: sa.Connection) -> dict[str, tuple[dict[str, bool], set[str | None]]]:
        inspector = sa.inspect(connection)
        return {
            table.name: (
                {
                    column["name"]: column["nullable"]
                    for column in inspector.get_columns(table.name)
                },
                {index["name"] for index in inspector.get_indexes(table.name)},
            )
            for table in metadata.tables.values()
        }

    async with database.reading() as connection:
        made = await connection.run_sync(tables)
    await database.close()
    for table in metadata.tables.values():
        columns, indexes = made[table.name]
        columns.pop("search", None)
        assert columns == {column.name: bool(column.nullable) for column in table.columns}
        indexes -= {"calls_by_words", "calls_session_id_key"}
        assert indexes == {index.name for index in table.indexes}


async def test_two_at_once_make_them_once(url: str) -> None:
    said = await asyncio.gather(*(upgrade(read_address(url)) for _ in range(3)))
    assert sorted("it had no tables" in each for each in said) == [False, False, True]
    assert "is up to date" in await upgrade(read_address(url))


async def test_an_upgrade_that_fails_changes_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE calls (id INTEGER)"))
        raise ValueError("no such column")

    database = Database(read_address(url))
    with monkeypatch.context() as changed:
        changed.setattr(module, "_migrate", fail)
        with pytest.raises(ValueError, match="no such column"):
            await database.upgrade()
    assert await database.upgrade() == (None, REVISION)
    await database.close()


async def test_a_file_that_others_made_is_only_for_its_owner(tmp_path: Path) -> None:
    database = Database(read_address(f"sqlite:///{tmp_path}/calls.db"))
    await database.upgrade()
    modes = _modes(tmp_path)
    await database.close()
    assert modes == {0o600}
    with contextlib.closing(sqlite3.connect(tmp_path / "calls.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_copy_that_was_put_back_is_taken_from_others(tmp_path: Path) -> None:
    (tmp_path / "calls.db").touch()
    (tmp_path / "calls.db").chmod(0o644)
    database = Database(read_address(f"sqlite:///{tmp_path}/calls.db"))
    await database.upgrade()
    modes = _modes(tmp_path)
    await database.close()
    assert modes == {0o640}


def _modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.iterdir()}
