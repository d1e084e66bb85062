"""The call log over both databases: what is told and what is asked."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ari_app.records.store import tables
from ari_app.records.store.address import read_address
from ari_app.records.store.database import Database
from ari_app.records.store.log import CallLog, CallLogUnavailable
from ari_app.records.store.query import BadCursor, CallFilter
from tests.unit.records.store.documents import NOON, call, turns


async def upgraded(url: str) -> str:
    database = Database(read_address(url))
    try:
        await database.upgrade()
    finally:
        await database.close()
    return url


@pytest.fixture
async def log(url: str, tmp_path: Path) -> AsyncIterator[CallLog]:
    async with CallLog(await upgraded(url), journal=tmp_path / "journal") as call_log:
        yield call_log


async def kept(log: CallLog, *documents: dict[str, Any]) -> None:
    for document in documents:
        log.keep(document)
    await log.settle()


async def ids(log: CallLog, wanted: CallFilter | None = None) -> list[str]:
    return [each["session_id"] async for each in log.export(wanted or CallFilter())]


async def test_a_kept_call_is_found(log: CallLog) -> None:
    document = call(turns=turns("Zwölf Boxkämpfer", "🙂"), metadata={"b": 1, "a": [None, 0.5]})
    await kept(log, document)
    assert await log.find("s1") == document
    assert list((await log.find("s1") or {})["metadata"]) == ["b", "a"]
    assert await log.find_conversation("conv_s1") == document
    assert await log.find("s2") is None
    assert await log.find_conversation("conv_s2") is None
    assert (log.counts.written, log.counts.backlog, log.problems()) == (1, 0, [])


def of_statements() -> int:
    """How many parts of statements there are."""
    return sum(issubclass(type(each), sa.ClauseElement) for each in gc.get_objects())


async def test_what_is_written_leaves_nothing_for_a_collector(tmp_path: Path) -> None:
    database = Database(read_address(f"sqlite:///{tmp_path}/calls.db"))
    await database.upgrade()

    async def write(session_id: str) -> None:
        told = [
            tables.Amendment(tables.SESSION, session_id, "recordings", []),
            tables.Amendment(tables.SESSION, f"{session_id} later", "recordings", []),
            tables.Amendment(tables.CONVERSATION, f"conv_{session_id}", "part", 1),
        ]
        batch = tables.Batch(
            documents={session_id: call(session_id)},
            amendments={(each.of, each.key, each.part): each for each in told},
        )
        async with database.writing() as connection:
            await tables.write(connection, batch, NOON)

    try:
        await write("s1")
        await write("s2")
        gc.collect()
        before = of_statements()
        gc.disable()
        for number in range(3, 8):
            await write(f"s{number}")
        assert of_statements() == before
    finally:
        gc.enable()
        await database.close()


async def test_nothing_is_looked_for_among_all_that_was_told_of_other_calls(tmp_path: Path) -> None:
    database = Database(read_address(f"sqlite:///{tmp_path}/calls.db"))
    await database.upgrade()
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        if statement.startswith(("SELECT", "DELETE", "UPDATE")):
            asked.append((statement, values))

    try:
        async with database.writing() as connection:
            sa.event.listen(connection.sync_connection, "before_cursor_execute", note)
            early = tables.Amendment(tables.CONVERSATION, "conv_s1", "agent_report", {})
            told = {(early.of, early.key, early.part): early}
            await tables.write(connection, tables.Batch(amendments=told), NOON)
            await tables.write(connection, tables.Batch(documents={"s1": call()}), NOON)
            assert (await tables.find(connection, "s1") or {})["agent_report"] == {}
            assert await tables.delete(connection, "s1", NOON)
    finally:
        await database.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "calls.db")) as db:
        plans = {
            step[3]
            for statement, values in asked
            for step in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)
        }
    assert [step for step in plans if step.startswith("SEARCH early_parts")]
    assert [step for step in plans if step.startswith("SCAN")] == []


async def test_old_calls_are_not_looked_for_among_all_others(tmp_path: Path) -> None:
    """There may be millions, and they are looked for each hour."""
    database = Database(read_address(f"sqlite:///{tmp_path}/calls.db"))
    await database.upgrade()
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        asked.append((statement, values))

    ahead = call("ahead", 0, started_at="2099-01-01T00:00:00Z", ended_at=None)
    try:
        async with database.writing() as connection:
            await tables.write(connection, tables.Batch(documents={"ahead": ahead}), NOON)
            sa.event.listen(connection.sync_connection, "before_cursor_execute", note)
            assert await tables.older_than(connection, NOON, None, 50) == ([], None)
            assert await tables.older_than_dated(connection, NOON, NOON) == []
    finally:
        await database.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "calls.db")) as db:
        plans = [
            step[3]
            for statement, values in asked
            for step in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            if step[3].startswith(("SEARCH", "SCAN"))
        ]
    assert len(plans) == 3
    assert [step for step in plans if "calls_by_start (started_at" not in step] == []


async def test_sessions_by_their_beginning(log: CallLog) -> None:
    names = ("5d0c2", "5d0c1", "5D0C3", "5%0c")
    await kept(log, *(call(session_id=name) for name in names))
    assert await log.sessions("5d0c", 6) == ["5d0c1", "5d0c2"]
    assert await log.sessions("5d0c", 1) == ["5d0c1"]
    assert await log.sessions("5%0", 6) == ["5%0c"]
    assert await log.sessions("6", 6) == []


async def test_the_same_call_again_replaces_it_and_what_was_told_later_stays(log: CallLog) -> None:
    await kept(log, call(turns=turns("before")))
    log.amend("s1", "recordings", [{"path": "a.wav"}])
    await kept(
        log, call(turns=turns("after"), conversation_ids=["conv_2"], conversation_id="conv_2")
    )
    found = await log.find("s1") or {}
    assert (found["turns"][0]["text"], found["recordings"]) == ("after", [{"path": "a.wav"}])
    assert await ids(log) == ["s1"]
    assert await ids(log, CallFilter(text="before")) == []
    assert await ids(log, CallFilter(text="after")) == ["s1"]
    assert await log.find_conversation("conv_s1") is None
    assert await log.find_conversation("conv_2") == found
    assert log.counts.written == 1


async def test_what_is_told_before_its_call_waits_for_it(log: CallLog) -> None:
    log.amend("s1", "recordings", [])
    log.amend_conversation("conv_s1", "agent_report", {"cost": 1})
    log.amend_conversation("conv_s1", "agent_report", {"cost": 2})
    log.amend_conversation("conv_other", "agent_report", {"cost": 3})
    await log.settle()
    await kept(log, call())
    assert await log.find("s1") == call() | {"recordings": [], "agent_report": {"cost": 2}}
    log.amend_conversation("conv_s1", "agent_report", {"cost": 4})
    log.amend("s1", "webhook", None)
    await log.settle()
    found = await log.find("s1")
    assert found == call() | {"recordings": [], "agent_report": {"cost": 4}, "webhook": None}


async def test_secret_keys_are_not_in_what_is_told_of_their_call_later(log: CallLog) -> None:
    told = {"cost": 4711, "transcript_summary": "The PIN is 4711."}
    hidden = {"cost": 4711, "transcript_summary": "The PIN is [digits]."}
    log.amend_conversation("conv_early", "agent_report", told)
    await log.settle()
    pressed = [{"at": 1.0, "digits": "1"}, {"at": 2.0, "digits": "[digits]"}]
    await kept(
        log, call("early", keys=pressed), call("s1", keys=pressed), call("s2", keys=pressed[:1])
    )
    for session_id in ("s1", "s2"):
        log.amend_conversation(f"conv_{session_id}", "agent_report", told)
    await log.settle()
    for session_id, expected in (("early", hidden), ("s1", hidden), ("s2", told)):
        found = await log.find(session_id) or {}
        assert found["agent_report"] == expected, session_id


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (CallFilter(), ["s3", "s2", "s1"]),
        (CallFilter(from_=NOON.replace(minute=1)), ["s3", "s2"]),
        (CallFilter(to=NOON.replace(minute=1)), ["s1"]),
        (CallFilter(status="FAILED"), ["s2"]),
        (CallFilter(result="busy"), ["s3"]),
        (CallFilter(agent_id="agent_2"), ["s2"]),
        (CallFilter(direction="out"), ["s3"]),
        (CallFilter(campaign_id="spring"), ["s3"]),
        (CallFilter(direction="in", status="COMPLETED"), ["s1"]),
        (CallFilter(number="030 / 23125-0"), ["s3", "s2", "s1"]),
        (CallFilter(number="0049 30 23125000"), ["s3", "s2", "s1"]),
        (CallFilter(number="sip:Alice"), []),
        (CallFilter(number="ALICE"), ["s2"]),
        (CallFilter(number="_"), []),
        (CallFilter(text="strasse MULLER"), ["s1"]),
        (CallFilter(text='"muller strasse"'), []),
        (CallFilter(text='"der müller'), ["s1"]),
        (CallFilter(text="don't"), ["s2"]),
        (CallFilter(text='x" OR words : y* NEAR('), []),
        (CallFilter(text="!?"), []),
        (CallFilter(text=""), []),
        (CallFilter(text="invoice"), ["s3"]),
        (CallFilter(text="a\0b"), []),
        (CallFilter(status="a\0b"), []),
    ],
)
async def test_filters(log: CallLog, wanted: CallFilter, found: list[str]) -> None:
    await kept(
        log,
        call("s1", 0, turns=turns("Straße, sagt der Müller")),
        call(
            "s2",
            1,
            status="FAILED",
            agent_id="agent_2",
            turns=turns("Please don't."),
            legs=[{"number": "alice"}],
        ),
        call(
            "s3",
            2,
            direction="out",
            result="busy",
            campaign_id="spring",
            notes=[{"text": "Asked about an invoice"}],
        ),
    )
    assert await ids(log, wanted) == found


async def test_pages_stay_right_while_calls_are_added_replaced_and_deleted(log: CallLog) -> None:
    # Two began at the same moment.
    await kept(log, *(call(f"s{n}", n // 2) for n in range(10)))
    seen: list[str] = []
    cursor: str | None = None
    for turn in range(20):
        page = await log.page(CallFilter(), 3, cursor)
        seen += [each["session_id"] for each in page.calls]
        await kept(log, call(f"new{turn}", 100 + turn), call("s0", 0, status="FAILED"))
        await log.delete(seen[0])
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [f"s{n}" for n in reversed(range(10))]


@pytest.mark.parametrize(
    "cursor", ["", "x", "AAAA", "MTIzLjQ=", "MTIzLi00", "ä", "MC45OTk5OTk5OTk5OTk5OTk5OTk5OTk5"]
)
async def test_a_cursor_that_no_page_has_given(log: CallLog, cursor: str) -> None:
    with pytest.raises(BadCursor, match="Begin without one"):
        await log.page(CallFilter(), 3, cursor)


async def test_a_deleted_call_leaves_nothing_and_nothing_comes_back(log: CallLog) -> None:
    told: list[tuple[str, Any]] = []

    async def forget(session_id: str, document: Any) -> None:
        told.append((session_id, document["recordings"]))

    log.on_delete.append(forget)
    log.keep(call(turns=turns("confidential")))
    log.amend("s1", "recordings", ["a.wav"])
    assert await log.delete("s1")
    assert told == [("s1", ["a.wav"])]
    assert not await log.delete("s1")
    log.amend_conversation("conv_s1", "agent_report", {"late": True})
    log.keep(call())
    await log.settle()
    assert await ids(log) == []
    assert await log.find_conversation("conv_s1") is None


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/recordings/+493023125001.wav"),
            "Permission denied",
        ),
        (ConnectionError("the front is not there"), "the front is not there"),
    ],
)
async def test_a_call_stays_when_what_others_have_cannot_be_deleted(
    log: CallLog, error: Exception, why: str
) -> None:
    async def fail(session_id: str, document: Any) -> None:
        raise error

    await kept(log, call())
    log.on_delete.append(fail)
    with pytest.raises(CallLogUnavailable, match=rf"the call stays.*Why: {why}\.$"):
        await log.delete("s1")
    assert await ids(log) == ["s1"]


async def test_whatever_stands_in_a_document_is_kept(log: CallLog) -> None:
    deep: Any = "end"
    for _ in range(1000):
        deep = [deep]
    odd = {
        "nul": "a\0b",
        "half": "\ud800",
        "nan": float("nan"),
        "big": 10**40,
        "deep": deep,
        "object": object,
        1: "number",
    }
    await kept(log, call("odd", metadata=odd), call("next", 1))
    await kept(
        log, {"session_id": "bare"}, call("bent", turns=[1], legs="x", started_at=7, status=4)
    )
    log.keep({"no": "session"})
    await kept(log, call("last", 2))
    assert set(await ids(log)) == {"next", "odd", "bare", "bent", "last"}
    metadata = (await log.find("odd") or {})["metadata"]
    assert (metadata["nul"], metadata["half"], metadata["nan"]) == ("a\ufffdb", "\ufffd", None)
    assert (log.counts.lost, log.counts.lost_unusable, log.counts.backlog) == (1, 1, 0)


async def test_a_call_of_10_000_turns_is_kept_and_found_by_what_was_said(log: CallLog) -> None:
    words = [f"turn{n} " + " ".join(f"w{n}x{m}" for m in range(20)) for n in range(10_000)]
    await kept(log, call(turns=turns(*words)))
    assert len((await log.find("s1") or {})["turns"]) == 10_000
    assert await ids(log, CallFilter(text="turn7")) == ["s1"]


async def test_many_ask_and_tell_at_once(log: CallLog) -> None:
    async def one(n: int) -> None:
        log.began(call(f"s{n}"))
        log.keep(call(f"s{n}", n))
        await log.page(CallFilter(), 5)

    await asyncio.gather(*(one(n) for n in range(100)))
    await log.settle()
    assert await ids(log) == [f"s{n}" for n in reversed(range(100))]


async def test_an_export_holds_a_few_calls_at_a_time(
    log: CallLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept(log, *(call(f"s{n}", n) for n in range(450)))
    asked, some = [], tables.some

    async def counted(*arguments: Any) -> Any:
        found = await some(*arguments)
        asked.append(len(found[0]))
        return found

    monkeypatch.setattr(tables, "some", counted)
    export = log.export(CallFilter())
    first = [(await anext(export))["session_id"] for _ in range(3)]
    assert (first, asked) == (["s449", "s448", "s447"], [200])
    # What is added meanwhile moves nothing.
    await kept(log, call("new", 1000))
    rest = [each["session_id"] async for each in export]
    assert rest == [f"s{n}" for n in reversed(range(447))]
    assert asked == [200, 200, 50]


async def test_what_was_spent_is_added_up_by_agent_and_time(log: CallLog) -> None:
    await kept(
        log,
        call("before", -1, agent_seconds=100.0),
        call("first", 0, agent_seconds=10.5),
        call("second", 1, agent_seconds=20.0),
        call("other", 2, agent_id="agent_2", agent_seconds=1.0),
        call("nobody", 3, agent_seconds=0.0),
        call("old", 4),
        call("after", 60, agent_seconds=100.0),
    )
    end = NOON + timedelta(minutes=60)
    assert await log.spent(NOON, end) == {"agent_1": (2, 30.5), "agent_2": (1, 1.0)}
    many = [f"s{number}" for number in range(1200)]
    assert await log.spent(NOON, end, [*many, "first", "other"]) == {"agent_1": (1, 20.0)}
    assert await ids(log, CallFilter(trunk="PJSIP/a")) == []
    await kept(log, call("first", 0, trunk="PJSIP/a"))
    assert await ids(log, CallFilter(trunk="PJSIP/a")) == ["first"]
