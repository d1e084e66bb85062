"""A database that is away, locked, full, slow, read-only or another's: no call is lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from ari_app.errors import ConfigError
from ari_app.records.store import database as database_module
from ari_app.records.store import keeper as keeper_module
from ari_app.records.store import log as log_module
from ari_app.records.store import tables
from ari_app.records.store.log import CallLog, CallLogUnavailable
from ari_app.records.store.query import CallFilter
from ari_app.records.store.spool import KEEP, Counts, Segment, Share, Spool, is_left
from ari_app.records.store.sqlite_probe import REVISION
from tests.unit.records.store.documents import call, turns
from tests.unit.records.store.postgres import Cluster
from tests.unit.records.store.test_log import ids, kept, upgraded
from tests.unit.records.store.test_spool import Disk
from tests.waiting import until


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(keeper_module, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(keeper_module, "_LOOK_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(keeper_module, "_QUIET_SECONDS", 0.05)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


def log_of(file: Path) -> CallLog:
    return CallLog(f"sqlite+aiosqlite:///{file}")


def pragmas(monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.setattr(
        database_module, "_PRAGMAS", (*database_module._PRAGMAS, "busy_timeout=50", *more)
    )


async def test_entries_come_together_unless_somebody_waits_for_them(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "_GATHER_SECONDS", 3600.0)
    keeper = keeper_module.Keeper(Any, Any, Counts(given=1))  # type: ignore[arg-type]
    gathering = asyncio.create_task(keeper._gather())
    await asyncio.sleep(0)
    keeper.wake()
    await asyncio.sleep(0)
    assert not gathering.done()
    waiting = asyncio.create_task(keeper.settled(1))
    await gathering
    await keeper._gather()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    keeper.stop()
    await keeper._gather()

    async with log_of(file) as log:
        for name in ("a", "b"):
            log.keep(call(name))
            settling = asyncio.create_task(log.settle())
            await until(lambda: log.counts.written == log.counts.given)
            await settling


async def comes_back(log: CallLog, sentence: str, mend: Callable[[], Any]) -> None:
    """A call that ends during a fault is told of, and there when the fault is over."""
    log.keep(call("during"))
    await until(lambda: log.warnings())
    assert sentence in log.warnings()[0]
    await until(lambda: "The journal keeps 1 entries meanwhile." in log.warnings()[0])
    assert log.problems() == []
    mend()
    await until(lambda: not log.counts.backlog and not log.warnings())
    assert "during" in await ids(log)


async def test_locked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pragmas(monkeypatch)
    async with log_of(file) as log:
        await kept(log, call("before"))
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await comes_back(log, "is held locked by another program", lambda: other.execute("COMMIT"))
        other.close()


async def test_what_the_database_does_not_have_yet_is_not_said_to_be_unknown(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pragmas(monkeypatch)
    async with log_of(file) as log, log_of(file) as other_worker:
        await kept(log, call("before"))
        locked = sqlite3.connect(file, isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
        log.keep(call("own"))
        other_worker.keep(call("other"))
        other_worker.began(call("running"))
        await until(lambda: log.warnings() and other_worker.warnings())
        with monkeypatch.context() as changed:
            changed.setattr(log_module, "_SETTLE_SECONDS", 0.05)
            for session_id in ("own", "other", "running"):
                with pytest.raises(CallLogUnavailable, match=r"not written .* yet: ask again\.$"):
                    await log.delete(session_id)
            assert not await log.delete("nobody"), "there is no call of that name"
        locked.execute("COMMIT")
        locked.close()
        await until(lambda: not log.counts.backlog and not other_worker.counts.backlog)
        assert await log.delete("own") and await log.delete("other")
        assert not await log.delete("own"), "also while the journal still has it"
        assert await ids(log) == ["before"]


async def test_removed_while_it_runs(file: Path) -> None:
    """What comes then is in files that others can find."""
    async with log_of(file) as log:
        log.began(call("running"))
        await kept(log, call("before"))
        for each in ("", "-wal", "-shm"):
            os.unlink(f"{file}{each}")
        shutil.rmtree(log.folder)
        log.keep(call("running"))
        await log.settle()
        assert await ids(log) == ["running"]
        assert not log.counts.backlog and not log.warnings() and not log.problems()
        os.rename(file, file.with_name("moved.db"))
        await kept(log, call("after"))
    async with log_of(file) as log:
        assert await ids(log) == ["after"]


@pytest.mark.parametrize(
    ("pragma", "sentence"),
    [("query_only=ON", "is read-only"), ("max_page_count=1", "cannot grow: the disk is full")],
)
async def test_read_only_and_full(
    file: Path, monkeypatch: pytest.MonkeyPatch, pragma: str, sentence: str
) -> None:
    async with log_of(file) as log:
        await kept(log, call("before"))
    with monkeypatch.context() as changed:
        pragmas(changed, pragma)
        log = log_of(file)
        await log.__aenter__()
        for n in range(50):  # more than the free pages hold
            log.keep(call(f"long{n}", turns=turns(*(f"{n} {m}" for m in range(100)))))
        await until(lambda: log.warnings())
        assert sentence in log.warnings()[0]
        assert await log.find("before") is not None
        await log.close()
    async with log_of(file) as log:
        await until(lambda: not log.counts.backlog and log.counts.written)
        assert len(await ids(log)) == 51


@pytest.fixture
def letter(file: Path) -> Path:
    file.write_bytes(b"This is a letter to the tax office. " * 100)
    return file


async def test_no_database_at_all(letter: Path) -> None:
    file = letter
    async with log_of(file) as log:
        assert "is no SQLite database" in str(await log.looked())
        with pytest.raises(CallLogUnavailable, match="is no SQLite database"):
            await log.find("s1")
        await comes_back(log, "is no SQLite database", file.unlink)


async def test_the_folder_is_made_and_a_name_that_is_a_folder_is_told(tmp_path: Path) -> None:
    async with log_of(tmp_path / "a" / "b" / "calls.db") as log:
        assert await log.looked() is None
    (tmp_path / "folder").mkdir()
    async with log_of(tmp_path / "folder") as log:
        assert "cannot be opened" in str(await log.looked())


async def test_of_another_version(url: str, tmp_path: Path, postgres: Cluster) -> None:
    def revision(name: str) -> None:
        statement = f"UPDATE alembic_version SET version_num = '{name}'"
        if url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(tmp_path / "calls.db")) as connection:
                connection.execute(statement)
                connection.commit()
        else:
            postgres.sql(statement, url.partition("@/")[2].partition("?")[0])

    await upgraded(url)
    revision("9999")
    async with CallLog(url, journal=tmp_path / "journal") as log:
        error = await log.looked()
        assert isinstance(error, ConfigError)
        assert "is of a newer ari-app" in str(error)
        await comes_back(log, "is of a newer ari-app", lambda: revision(REVISION))


async def test_tables_are_made_by_hand_in_postgresql(postgres: Cluster, tmp_path: Path) -> None:
    url = postgres.new_database()
    async with CallLog(url, journal=tmp_path / "journal") as log:
        error = await log.looked()
        assert isinstance(error, ConfigError)
        assert "Run `ari-app db upgrade` once" in str(error)
        log.keep(call())
        await upgraded(url)
        await until(lambda: log.counts.written)


async def test_a_database_that_lacks_letters_gets_no_tables(postgres: Cluster) -> None:
    with pytest.raises(ConfigError, match=r"is in LATIN1.*createdb --encoding=UTF8"):
        await upgraded(postgres.new_database("LATIN1"))


async def test_postgresql_goes_and_comes_back(postgres: Cluster, tmp_path: Path) -> None:
    url = await upgraded(postgres.new_database())
    try:
        async with CallLog(url, journal=tmp_path / "journal") as log:
            await kept(log, call("before"))
            postgres.stop()
            with pytest.raises(CallLogUnavailable, match="cannot be reached"):
                for _ in range(3):  # a connection of the pool may end in its own way
                    with contextlib.suppress(CallLogUnavailable):
                        await log.find("before")
                await log.find("before")
            await comes_back(log, "cannot be reached", postgres.start)
    finally:
        with contextlib.suppress(Exception):
            postgres.start()


async def test_postgresql_that_is_read_only_or_not_ours(postgres: Cluster, tmp_path: Path) -> None:
    url = await upgraded(postgres.new_database())
    name = url.partition("@/")[2].partition("?")[0]
    postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with CallLog(url, journal=tmp_path / "journal") as log:
        log.keep(call("during"))
        await until(lambda: log.warnings())
        assert "is read-only, as a standby is" in log.warnings()[0]
    for wrong, sentence in (
        (url.replace(name, "nowhere"), "has no such database"),
        ("postgresql://u:p@127.0.0.1:1/calls", "refused; compare its address in DATABASE_URL"),
    ):
        async with CallLog(wrong, journal=tmp_path / "other") as log:
            assert sentence in str(await log.looked())


async def test_postgresql_that_has_become_a_standby_is_left_for_the_primary(
    postgres: Cluster, tmp_path: Path
) -> None:
    """As where a fail-over leaves a connection to the old primary, or to a name's old address."""
    url = await upgraded(postgres.new_database())
    name = url.partition("@/")[2].partition("?")[0]
    postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with CallLog(url, journal=tmp_path / "journal") as log:
        log.keep(call("during"))
        await until(lambda: log.warnings())
        # Sessions that there are stay as they are.
        postgres.sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await until(lambda: not log.counts.backlog, 20)
        assert await ids(log) == ["during"]


async def test_postgresql_whose_numbers_are_behind_loses_no_call(
    postgres: Cluster, tmp_path: Path
) -> None:
    """As after an upgrade by logical replication, which leaves the sequences where they were."""
    url = await upgraded(postgres.new_database())
    name = url.partition("@/")[2].partition("?")[0]
    async with CallLog(url, journal=tmp_path / "journal") as log:
        await kept(log, *(call(f"s{n}", n) for n in range(3)))
        postgres.sql("ALTER SEQUENCE calls_id_seq RESTART", name)
        log.keep(call("after", 5))
        await until(lambda: not log.counts.backlog, 20)
        assert await ids(log) == ["after", "s2", "s1", "s0"]
        assert log.counts.lost == 0


async def test_a_slow_database_holds_up_nobody(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, batches = tables.write, []

    async def slow_write(connection: Any, batch: tables.Batch, now: Any) -> int:
        batches.append(len(batch.documents))
        await asyncio.sleep(0.3)
        return await write(connection, batch, now)

    monkeypatch.setattr(tables, "write", slow_write)
    async with CallLog(await upgraded(url), journal=tmp_path / "journal") as log:
        assert await log.looked() is None
        for n in range(300):
            log.keep(call(f"s{n}", n))
        await log.settle()
        assert len(await ids(log)) == 300
    assert len(batches) < 10


async def test_neither_disk_nor_database(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, write = Disk(os.write), tables.write
    disk.room = 0

    async def away(*_: object) -> int:
        raise ConnectionRefusedError

    async with log_of(file) as log:
        assert await log.looked() is None
        with monkeypatch.context() as changed:
            changed.setattr(os, "write", disk)
            changed.setattr(tables, "write", away)
            log.keep(call())
            await until(lambda: len(log.warnings()) == 2)
            assert log.warnings()[1].endswith(
                "1 entries are in memory alone, and lost if the process ends."
            )
            assert log.problems() == []
            # Either of the two is enough.
            changed.setattr(tables, "write", write)
            await until(lambda: log.counts.written)


async def test_what_does_not_get_through_in_time_goes_in_smaller_steps(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, at_once = tables.write, list[int]()

    async def away(connection: Any, batch: tables.Batch, now: Any) -> int:
        at_once.append(len(batch.documents))
        raise ConnectionRefusedError

    async def write_slowly(connection: Any, batch: tables.Batch, now: Any) -> int:
        await asyncio.sleep(0.03 * len(batch.documents))
        return await write(connection, batch, now)

    monkeypatch.setattr(tables, "write", away)
    monkeypatch.setattr(keeper_module, "_WRITE_SECONDS", 0.4)
    async with log_of(file) as log:
        for n in range(60):
            log.keep(call(f"s{n}", n))
        # A busy machine would write them in small steps by itself.
        await until(lambda: at_once and at_once[-1] == 60)
        monkeypatch.setattr(tables, "write", write_slowly)
        await until(lambda: any("does not answer in time" in each for each in log.warnings()))
        await until(lambda: not log.counts.backlog)
        assert len(await ids(log)) == 60


async def test_what_a_database_refuses_does_not_hold_up_the_rest(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns_of = tables.columns_of

    def refused(document: Any, now: Any) -> Any:
        columns = columns_of(document, now)
        return columns | {"numbers": None} if document["session_id"] == "s7" else columns

    monkeypatch.setattr(tables, "columns_of", refused)
    async with CallLog(await upgraded(url), journal=tmp_path / "journal") as log:
        for n in range(20):
            log.keep(call(f"s{n}", n))
        await log.settle()
        assert await ids(log) == [f"s{n}" for n in reversed(range(20)) if n != 7]
        assert (log.counts.lost, log.counts.backlog) == (1, 0)
        assert log.problems() == ["The call log has lost calls, 1 so far."]


@pytest.mark.parametrize(
    "refused", [{"detail": "12 €"}, {"agent_id": "".join(map(chr, range(0x4E00, 0x5E00)))}]
)
async def test_what_postgresql_has_no_room_or_no_letter_for_does_not_hold_up_the_rest(
    postgres: Cluster, tmp_path: Path, refused: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a log of before is, that was made in a cluster older than UTF-8 in its country.
    encoding = "LATIN1" if "detail" in refused else "UTF8"
    monkeypatch.setattr(database_module, "_ENCODINGS", (encoding,))
    async with CallLog(
        await upgraded(postgres.new_database(encoding)), journal=tmp_path / "journal"
    ) as log:
        for n in range(5):
            log.keep(call(f"s{n}", n, **(refused if n == 2 else {})))
        await log.settle()
        assert await ids(log) == ["s4", "s3", "s1", "s0"]
        assert (log.counts.lost, log.counts.backlog) == (1, 0)


async def test_a_journal_that_cannot_be_read_just_now_is_read_later(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Spool(file.with_name("calls.journal"), Counts(), lambda: None)
    killed.start()
    killed.put(KEEP, call("left"))
    assert await asyncio.to_thread(killed.close, 5)
    assert killed._lock is not None
    os.close(killed._lock)
    tried: list[Path] = []

    def no_more_files(segment: Segment, max_bytes: int, max_lines: int) -> Any:
        tried.append(segment.path)
        raise OSError(errno.EMFILE, "Too many open files")

    async with log_of(file) as log:
        with monkeypatch.context() as changed:
            changed.setattr(Segment, "read", no_more_files)
            log.keep(call("own"))
            await until(lambda: len(set(tried)) == 2)
            log._spool.seal()
            await until(lambda: len(tried) > 6)
            assert (await ids(log), log.counts.backlog) == ([], 2)
        await until(lambda: not log.counts.backlog)
        assert sorted(await ids(log)) == ["left", "own"]
    assert list(log.folder.iterdir()) == []


async def test_a_journal_that_somebody_has_removed_is_waited_for_no_more(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed(segment: Segment, max_bytes: int, max_lines: int) -> Any:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    async with log_of(file) as log:
        await kept(log, call("before"))
        with monkeypatch.context() as changed:
            changed.setattr(Segment, "read", removed)
            log.amend("before", "recordings", [])
            log.keep(call("during"))
            await until(lambda: log.counts.given == 3 and not log.counts.backlog)
        await kept(log, call("after"))
        assert sorted(await ids(log)) == ["after", "before"]
        assert log.counts.lost == 1


@pytest.mark.parametrize(
    ("error", "why"),
    [(OSError(errno.EMFILE, "Too many open files"), "Too many"), (ImportError(), "ImportError")],
)
async def test_one_that_cannot_begin_is_tried_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
) -> None:
    monkeypatch.setattr(log_module, "_AGAIN_SECONDS", 0.01)

    def fail(_: object) -> None:
        raise error

    with monkeypatch.context() as changed, capture_logs() as logs:
        changed.setattr(log_module, "load_for_good", fail)
        async with log_of(file) as log:
            log.keep(call("first"))
            refusal = await log.looked()
            assert isinstance(refusal, CallLogUnavailable)
            assert str(refusal) == log.warnings()[0].partition(" The journal")[0]
            assert f"cannot begin: {why}" in str(refusal)
            with pytest.raises(CallLogUnavailable, match=why):
                await log.find("first")
    events = [entry["event"] for entry in logs]
    assert events.count("call_log_not_begun") == 1
    assert "call_log_left_for_next_start" in events
    async with log_of(file) as log:
        await until(lambda: log.counts.written == 1)
    with monkeypatch.context() as changed:
        changed.setattr(log_module, "load_for_good", fail)
        async with log_of(file) as log:
            log.keep(call("second"))
            await until(lambda: log.warnings())
            changed.undo()
            await until(lambda: log.counts.written == 1)
            assert log.warnings() == []
            assert sorted(await ids(log)) == ["first", "second"]


async def test_one_that_ends_while_the_database_is_away_leaves_it_to_the_next(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upgraded(url)
    with monkeypatch.context() as changed:

        async def away(*_: object) -> int:
            raise ConnectionRefusedError

        changed.setattr(tables, "write", away)
        async with CallLog(url, journal=tmp_path / "journal") as log:
            log.began(call("running"))
            log.keep(call("ended"))
            log.amend("ended", "recordings", [])
    told: list[Any] = []
    async with CallLog(url, journal=tmp_path / "journal", on_lost=[told.append]) as log:
        await until(lambda: log.counts.written == 2)
        assert (await log.find("ended") or {})["recordings"] == []
        lost = await log.find("running") or {}
        assert (lost["status"], lost["reason"]) == ("FAILED", "worker_lost")
        assert lost["ended_at"] >= lost["started_at"]
        assert lost["agent_seconds"] == lost["seconds"], "it had an agent, nobody knows since when"
        assert lost["score"] == {
            "value": None,
            "reasons": ["The process that carried the call was lost."],
        }
        await until(lambda: told)
        assert told == [lost]
        await until(lambda: not list((tmp_path / "journal").iterdir()))


async def test_two_at_one_database_and_each_others_journals(url: str, tmp_path: Path) -> None:
    await upgraded(url)
    async with (
        CallLog(url, journal=tmp_path / "journal") as one,
        CallLog(url, journal=tmp_path / "journal") as two,
    ):
        one.began(call("running"))
        for n in range(50):
            one.keep(call(f"one{n}"))
            two.keep(call(f"two{n}"))
        await one.settle()
        await two.settle()
        assert len(await ids(one)) == 100, "what runs in the other process has not ended"
        one.keep(call("running"))
        await one.settle()
        assert (await two.find("running") or {})["status"] == "COMPLETED"


async def test_the_journal_of_a_lost_process_is_held_while_the_database_is_away(
    file: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    lost = Spool(journal, Counts(), lambda: None)
    lost.start()
    lost.put(KEEP, call("ended"))
    lost.close(60)
    lost.give_back()
    url = "postgresql+asyncpg://nobody@127.0.0.1:1/calls"
    async with CallLog(url, journal=journal) as log:
        await log.looked()
        assert not is_left(journal, tmp_path, Share()), "another service would tell of its calls"
    assert is_left(journal, tmp_path, Share())


async def test_the_journal_is_empty_when_the_database_has_all(file: Path) -> None:
    async with log_of(file) as log:
        for n in range(10):
            log.keep(call(f"s{n}", turns=turns("confidential")))
        log.began(call("running"))
        own = log._spool.own

        def journal() -> bytes:
            return b"".join(path.read_bytes() for path in own.glob("*.calls"))

        await until(lambda: journal() and b"confidential" not in journal())
        assert b"running" in journal()
        log.keep(call("running"))
        await until(lambda: not list(own.glob("*.calls")))
        assert log.counts.written == 11


async def test_what_the_journal_no_longer_holds_outlives_a_loss_of_power(file: Path) -> None:
    async with log_of(file) as log:
        await kept(log, call())
        assert log._database is not None
        async with log._database.writing() as connection:
            # As much as SQLite has: each commit is written through to the disk.
            assert await connection.scalar(sa.text("PRAGMA synchronous")) == 2


async def test_nothing_of_a_deleted_call_is_left_in_the_files(file: Path) -> None:
    async with log_of(file) as log:
        await kept(log, *(call(f"s{n}", turns=turns(f"ordinary words {n}")) for n in range(30)))
        await kept(log, call("secret", turns=turns("xylophonequartz zebrafishjungle")))
        log.amend("secret", "agent_report", {"text": "amendmentwithwords"})
        await log.settle()
        assert await log.delete("secret")
        await until(lambda: not list(log._spool.own.glob("*.calls")))
        left = b"".join(path.read_bytes() for path in file.parent.rglob("*") if path.is_file())
        for word in (b"xylophone", b"zebrafish", b"amendmentwith"):
            assert word not in left
        assert b"ordinary words 7" in left
        assert await ids(log, CallFilter(text="ordinary 7")) == ["s7"]


async def test_what_is_deleted_while_somebody_reads_goes_from_the_files_after_that(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pragmas(monkeypatch)
    monkeypatch.setattr(log_module, "_TIDY_AGAIN_SECONDS", 0.02)
    async with log_of(file) as log:
        await kept(log, call("secret", turns=turns("xylophonequartz")), call())
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM calls").fetchone() == (2,)
            assert await log.delete("secret")
            wal = file.with_name("calls.db-wal")
            assert b"xylophone" in wal.read_bytes()
        await until(lambda: b"xylophone" not in wal.read_bytes())
        assert await ids(log) == ["s1"]


async def test_what_a_process_deleted_that_was_killed_goes_from_the_files_after_the_next_start(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(log: CallLog) -> None:
        pass

    def words_left() -> bool:
        return b"xylophone" in file.read_bytes()

    async with log_of(file) as log:
        await kept(log, call("secret", turns=turns("xylophonequartz")), call())
        with monkeypatch.context() as patch:
            patch.setattr(CallLog, "_tidy", killed)
            assert await log.delete("secret")
    assert words_left()
    async with log_of(file) as log:
        assert await log.forget_old() == 0
        assert not words_left()


async def test_what_cannot_be_forgotten_is_tried_once_and_holds_up_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    tried: list[str] = []
    older_than = tables.older_than

    async def counted(*args: Any, **more: Any) -> Any:
        found = await older_than(*args, **more)
        read.append(len(found[0]))
        return found

    async def away(session_id: str, _: object) -> None:
        tried.append(session_id)
        if session_id < "s35":
            raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(tables, "older_than", counted)
    monkeypatch.setattr(log_module, "_DELETE_AT_ONCE", 10)
    monkeypatch.setattr(log_module, "_BREATH_SECONDS", 0)
    await upgraded(url)
    async with CallLog(url, journal=tmp_path / "journal", keep_days=30, on_delete=[away]) as log:
        # Many began in the same second.
        old = [
            call(f"s{n}", started_at=f"2020-01-01T00:00:{n // 20:02}Z", ended_at=None)
            for n in range(10, 50)
        ]
        await kept(log, *old)
        with capture_logs() as logs:
            assert await log.forget_old() == 15
        assert sorted(tried) == [each["session_id"] for each in old]
        assert await ids(log) == [f"s{n}" for n in reversed(range(10, 35))]
        assert read == [10, 10, 10, 10, 0]
    (said,) = (each for each in logs if each["event"] == "call_log_not_deleted")
    assert (said["session"], said["calls"], said["error"]) == ("s10", 25, "Stale file handle")


async def test_what_was_deleted_goes_from_the_files_though_the_rest_could_not_be(
    file: Path,
) -> None:
    async def fail(session_id: str, _: object) -> None:
        if session_id == "s1":
            raise errors.pop()

    def words_left() -> bool:
        wal = file.with_name(f"{file.name}-wal")
        return b"xylophone" in file.read_bytes() + wal.read_bytes()

    errors = [OSError(errno.ESTALE, "Stale file handle"), CallLogUnavailable("It is locked.")]
    url = f"sqlite:///{file}"
    async with CallLog(url, journal=file.parent / "j", keep_days=30, on_delete=[fail]) as log:
        old = {"started_at": "2020-01-01T00:00:00Z", "ended_at": None}
        await kept(log, call("s0", 0, turns=turns("xylophonequartz"), **old), call("s1", 0, **old))
        with pytest.raises(CallLogUnavailable):
            await log.forget_old()
        assert words_left()
        assert await log.forget_old() == 0
        assert await ids(log) == ["s1"]
        assert not words_left()


async def test_one_of_several_processes_forgets_old_calls(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_FIRST_RETENTION_SECONDS", 0.0)
    monkeypatch.setattr(log_module, "_CLOCK_SET_SECONDS", 0.0)
    told: list[tuple[int, str]] = []

    def process(number: int) -> CallLog:
        async def forget(session_id: str, _: object) -> None:
            told.append((number, session_id))

        journal, share = tmp_path / "journal", Share(number, 2)
        return CallLog(url, journal=journal, keep_days=30, on_delete=[forget], share=share)

    await upgraded(url)
    async with CallLog(url, journal=tmp_path / "before") as log:
        old = {"started_at": "2020-01-01T00:00:00Z", "ended_at": None}
        await kept(log, *(call(f"s{n}", n, **old) for n in range(20)))
    async with process(2) as second, process(1):
        while await ids(second):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert sorted(told) == sorted((1, f"s{n}") for n in range(20))


async def test_a_call_of_a_clock_that_was_ahead_grows_old_with_those_after_it(
    url: str, tmp_path: Path
) -> None:
    ahead = {"started_at": "2099-01-01T00:00:00Z", "ended_at": "2099-01-01T00:01:00Z"}
    old = {"started_at": "2020-01-01T00:00:00Z", "ended_at": "2020-01-01T00:01:00Z"}
    await upgraded(url)
    async with CallLog(url, journal=tmp_path / "journal", keep_days=30) as log:
        await kept(log, call("ahead", 0, **ahead))
        assert await log.forget_old() == 0
        await kept(log, call("old", 0, **old))
        await kept(log, call("ahead too", 0, **ahead))
        assert await log.forget_old() == 2
        assert await ids(log) == ["ahead too"]


@pytest.mark.parametrize(("since_boot", "pause"), [(60.0, 3540.0), (3500.0, 100.0), (9e5, 60.0)])
async def test_nothing_is_deleted_by_a_clock_that_may_not_be_set_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since_boot: float, pause: float
) -> None:
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr(time, "clock_gettime", lambda clock: since_boot)
    log = CallLog(f"sqlite:///{tmp_path}/calls.db", keep_days=1)
    with monkeypatch.context() as changed, pytest.raises(asyncio.CancelledError):
        changed.setattr(asyncio, "sleep", sleep)
        await log._retain()
    assert paused == [pause]


async def test_old_calls_are_forgotten_in_steps(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    async def forget(session_id: str, _: object) -> None:
        if session_id == "s3":
            raise PermissionError
        told.append(session_id)

    await upgraded(url)
    log = CallLog(url, journal=tmp_path / "journal", keep_days=30, on_delete=[forget])
    async with log:
        await kept(
            log,
            *(
                call(f"s{n}", n, started_at=f"2020-01-01T00:00:{n % 60:02}Z", ended_at=None)
                for n in range(120)
            ),
        )
        long = "2020-01-01T00:00:00Z"
        await kept(log, call("new", started_at="2099-01-01T00:00:00Z", ended_at=None))
        await kept(log, call("lasted", started_at=long, ended_at="2099-01-01T00:00:00Z"))
        assert await log.forget_old() == 119
        assert len(told) == 119
        assert sorted(await ids(log)) == ["lasted", "new", "s3"]
        # The next time it is tried again, unless the clock has jumped.
        log.on_delete.clear()
        jumped = time.time() + 100_000
        with monkeypatch.context() as changed:
            changed.setattr(time, "time", lambda: jumped)
            assert await log.forget_old() == 0
            assert await log.forget_old() == 1
