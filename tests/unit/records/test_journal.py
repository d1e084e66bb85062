from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_app.records.events import (
    AgentClosed,
    AgentNotReached,
    CallEnded,
    CallEvent,
    Overflowed,
    Said,
    StateChanged,
)
from ari_app.records.journal import Entry, Follower, Journal, TooManyFollowers
from ari_app.records.record import CallRecord

AT = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def journal() -> Journal:
    return Journal(max_entries=4, max_followers=2, now=lambda: AT)


@pytest.fixture
def record() -> CallRecord:
    return CallRecord("s1", "sip-1", 0.0)


def say(journal: Journal, record: CallRecord, *texts: str) -> None:
    for text in texts:
        journal.note(record, Said("caller", text))


async def all_of(follower: Follower) -> list[Entry]:
    with follower:
        return [entry async for entry in follower]


async def test_a_follower_gets_events_as_they_happen(journal: Journal, record: CallRecord) -> None:
    say(journal, record, "before")
    with journal.follow(record) as events:
        assert await anext(events) == Entry(1, AT, Said("caller", "before"))
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        assert not waiting.done()
        say(journal, record, "after")
        assert await waiting == Entry(2, AT, Said("caller", "after"))


@pytest.mark.parametrize(("after", "seen"), [(0, [1, 2, 3]), (2, [3]), (3, []), (99, [])])
async def test_following_is_taken_up_again(
    journal: Journal, record: CallRecord, after: int, seen: list[int]
) -> None:
    say(journal, record, "a", "b", "c")
    follower = journal.follow(record, after)
    journal.close()
    assert [event.seq for event in await all_of(follower)] == seen


async def test_one_who_is_too_late_is_told_what_is_missing(
    journal: Journal, record: CallRecord
) -> None:
    with journal.follow(record) as events:
        say(journal, record, "a", "b", "c")
        assert (await anext(events)).seq == 1
        say(journal, record, "d", "e", "f", "g")
        assert await anext(events) == Entry(3, AT, Overflowed(2))
        assert [(await anext(events)).seq for _ in range(4)] == [4, 5, 6, 7]
    # Who comes back with the number of that event misses nothing more.
    with journal.follow(record, 3) as events:
        assert (await anext(events)).seq == 4


async def test_nothing_comes_after_the_end(journal: Journal, record: CallRecord) -> None:
    journal.note(record, StateChanged("ended", "ended"))
    journal.note(record, CallEnded(None, None, 1.0))
    say(journal, record, "late")
    entries = await all_of(journal.follow(record))
    assert [entry.event for entry in entries] == [
        StateChanged("ended", "ended"),
        CallEnded(None, None, 1.0),
    ]
    assert not journal.follow(record, 2).has_more
    assert journal.follow(record, 1).has_more


async def test_followers_are_limited(journal: Journal, record: CallRecord) -> None:
    with journal.follow(record):
        with journal.follow(record), pytest.raises(TooManyFollowers, match="2 streams"):
            journal.follow(record)
        journal.follow(record)


async def test_a_closed_journal_ends_all_following(journal: Journal, record: CallRecord) -> None:
    waiting = asyncio.ensure_future(all_of(journal.follow(record)))
    await asyncio.sleep(0)
    journal.close()
    assert await waiting == []
    assert await all_of(journal.follow(CallRecord("s2", "sip-2", 0.0))) == []


async def test_a_history_goes_with_its_record(journal: Journal) -> None:
    record = CallRecord("s3", "sip-3", 0.0)
    say(journal, record, "a")
    assert len(journal._histories) == 1
    del record
    gc.collect()
    assert len(journal._histories) == 0


# --- listeners


async def test_listeners_are_told_everything_and_followers_what_concerns_them(
    journal: Journal, record: CallRecord
) -> None:
    told: list[tuple[CallRecord, CallEvent]] = []
    events: list[CallEvent] = [
        AgentNotReached("agent_timeout"),
        StateChanged("talking", "active"),
        AgentClosed(1000, "agent_ended"),
        CallEnded("COMPLETED", "agent_ended", 1.0),
    ]
    journal.listen(lambda *event: told.append(event))
    for event in events:
        journal.note(record, event)
    assert told == [(record, event) for event in events]
    followed = [entry.event for entry in await all_of(journal.follow(record))]
    assert followed == [events[1], events[3]]


def test_a_listener_that_fails_disturbs_no_other(journal: Journal, record: CallRecord) -> None:
    told: list[CallEvent] = []

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    journal.listen(broken)
    journal.listen(lambda _, event: told.append(event))
    with capture_logs() as logs:
        say(journal, record, "a", "b")
    assert told == [Said("caller", "a"), Said("caller", "b")]
    assert [(entry["event"], entry["event_kind"]) for entry in logs] == [
        ("journal_listener_failed", "transcript")
    ] * 2
