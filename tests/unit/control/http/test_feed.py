from __future__ import annotations

import asyncio
import gc
from dataclasses import asdict
from datetime import UTC, datetime

import pytest

from ari_app.call.hearing import ResponseTime
from ari_app.call.states import State
from ari_app.line.interface import Status
from ari_app.records.events import TranscriptLine
from ari_app.records.journal import EndedEvent, FeedEvent, Follower, SessionFeed, TooManyFollowers
from tests.unit.control.http.fake_service import FakeSession, as_session

AT = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def feed() -> SessionFeed:
    return SessionFeed(max_events=4, max_followers=2, now=lambda: AT)


@pytest.fixture
async def fake() -> FakeSession:
    return FakeSession("s1")


def say(feed: SessionFeed, fake: FakeSession, *texts: str) -> None:
    for text in texts:
        feed.call_said(as_session(fake), TranscriptLine(0.0, "caller", text))


async def all_of(follower: Follower) -> list[FeedEvent]:
    with follower:
        return [event async for event in follower]


def short(event: FeedEvent) -> dict[str, object]:
    fields = asdict(event)
    assert fields.pop("at") == AT
    return fields


async def test_everything_that_happens_becomes_an_event(fake: FakeSession) -> None:
    feed, session = SessionFeed(now=lambda: AT), as_session(fake)
    feed.call_changed(session, State.TALKING)
    feed.agent_connected(session, 0.12345)
    feed.agent_lost(session)
    feed.agent_resumed(session, 1.23456)
    for who in ("agent", "caller", "correction", "interruption", "tool", "dtmf", "note"):
        feed.call_said(session, TranscriptLine(0.0, who, who))
    feed.call_responded(session, ResponseTime(9.0, 0.81234))
    fake.end(Status.TRANSFER, "agent_transfer")
    feed.call_changed(session, State.ENDED)
    events = [short(event) for event in await all_of(feed.follow(session))]
    assert events == [
        {"seq": 1, "type": "state", "state": "talking", "status": "active"},
        {"seq": 2, "type": "agent", "conversation_id": "conv_1", "connect_seconds": 0.123},
        {"seq": 3, "type": "agent_lost", "conversation_id": "conv_1"},
        {"seq": 4, "type": "agent_resumed", "conversation_id": "conv_1", "gap_seconds": 1.235},
        {"seq": 5, "type": "transcript", "who": "agent", "text": "agent"},
        {"seq": 6, "type": "transcript", "who": "caller", "text": "caller"},
        {"seq": 7, "type": "transcript", "who": "correction", "text": "correction"},
        {"seq": 8, "type": "interruption", "text": "interruption"},
        {"seq": 9, "type": "tool", "text": "tool"},
        {"seq": 10, "type": "dtmf", "text": "dtmf"},
        {"seq": 11, "type": "note", "text": "note"},
        {"seq": 12, "type": "response_time", "seconds": 0.812},
        {"seq": 13, "type": "state", "state": "ended", "status": "ended"},
        {
            "seq": 14,
            "type": "ended",
            "agent_status": "TRANSFER",
            "end_reason": "agent_transfer",
            "duration": 12.346,
        },
    ]


async def test_a_follower_gets_events_as_they_happen(feed: SessionFeed, fake: FakeSession) -> None:
    say(feed, fake, "before")
    with feed.follow(as_session(fake)) as events:
        assert short(await anext(events))["text"] == "before"
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        assert not waiting.done()
        say(feed, fake, "after")
        assert short(await waiting)["text"] == "after"


@pytest.mark.parametrize(("after", "seen"), [(0, [1, 2, 3]), (2, [3]), (3, []), (99, [])])
async def test_following_is_taken_up_again(
    feed: SessionFeed, fake: FakeSession, after: int, seen: list[int]
) -> None:
    say(feed, fake, "a", "b", "c")
    follower = feed.follow(as_session(fake), after)
    feed.close()
    assert [event.seq for event in await all_of(follower)] == seen


async def test_one_who_is_too_late_is_told_what_is_missing(
    feed: SessionFeed, fake: FakeSession
) -> None:
    with feed.follow(as_session(fake)) as events:
        say(feed, fake, "a", "b", "c")
        assert (await anext(events)).seq == 1
        say(feed, fake, "d", "e", "f", "g")
        assert short(await anext(events)) == {"seq": 3, "type": "overflow", "missed": 2}
        assert [(await anext(events)).seq for _ in range(4)] == [4, 5, 6, 7]
    # Who comes back with the number of that event misses nothing more.
    with feed.follow(as_session(fake), 3) as events:
        assert (await anext(events)).seq == 4


async def test_nothing_comes_after_the_end(feed: SessionFeed, fake: FakeSession) -> None:
    feed.call_changed(as_session(fake), State.ENDED)
    say(feed, fake, "late")
    events = await all_of(feed.follow(as_session(fake)))
    assert isinstance(events[-1], EndedEvent)
    assert events[-1].agent_status is None
    assert not feed.follow(as_session(fake), 2).has_more
    assert feed.follow(as_session(fake), 1).has_more


async def test_followers_are_limited(feed: SessionFeed, fake: FakeSession) -> None:
    session = as_session(fake)
    with feed.follow(session):
        with feed.follow(session), pytest.raises(TooManyFollowers, match="2 streams"):
            feed.follow(session)
        feed.follow(session)


async def test_a_closed_feed_ends_all_following(feed: SessionFeed, fake: FakeSession) -> None:
    waiting = asyncio.ensure_future(all_of(feed.follow(as_session(fake))))
    await asyncio.sleep(0)
    feed.close()
    assert await waiting == []
    assert await all_of(feed.follow(as_session(FakeSession("s2")))) == []


async def test_a_history_goes_with_its_session(feed: SessionFeed) -> None:
    fake = FakeSession("s3")
    say(feed, fake, "a")
    assert len(feed._histories) == 1
    del fake
    gc.collect()
    assert len(feed._histories) == 0
