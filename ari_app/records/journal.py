"""The journal: what happens in each call, numbered, for everybody who watches.

Every call has one bounded history. A follower is a place in it, so a slow one costs no memory:
when the history has moved past its place, it gets an `Overflowed` and goes on with the oldest entry
that is kept. Listeners are told of each entry at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Final
from weakref import WeakKeyDictionary

import structlog

from ari_app.errors import AppError
from ari_app.records.bounded import Bounded
from ari_app.records.events import (
    AgentClosed,
    AgentNotReached,
    CallEnded,
    CallEvent,
    Overflowed,
    StepTook,
    size_of,
)
from ari_app.records.record import CallRecord

log = structlog.get_logger(__name__)

_MAX_ENTRIES: Final = 1000
_MAX_FOLLOWERS: Final = 16
# What a follower is not told: operators read it in the metrics and the log.
UNTOLD: Final = (AgentNotReached, AgentClosed, StepTook)


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that has happened in a call.

    Attributes:
        seq: Its number in the call, from 1.
        at: When, by the time of day.
    """

    seq: int
    at: datetime
    event: CallEvent


Listener = Callable[[CallRecord, CallEvent], None]


class TooManyFollowers(AppError):
    """So many follow this call already that one more is refused."""

    default_code = "too_many_streams"


class _History:
    """The entries of one call, the oldest of which are forgotten."""

    def __init__(self, max_entries: int) -> None:
        self.entries: Bounded[Entry] = Bounded(max_entries)
        self.over = False
        self.followers: set[Follower] = set()

    @property
    def first_seq(self) -> int:
        return self.entries.forgotten + 1

    @property
    def last_seq(self) -> int:
        return self.entries.forgotten + len(self.entries)

    def wake(self) -> None:
        for follower in self.followers:
            follower.wake()


class Follower(AsyncIterator[Entry]):
    """One that follows a call: `with journal.follow(...) as entries: async for entry in entries`.

    It ends after the `CallEnded`, or when the journal is closed.
    """

    def __init__(self, history: _History, after: int, now: Callable[[], datetime]) -> None:
        self._history = history
        self._next_seq = min(after, history.last_seq) + 1
        self._now = now
        self._news = asyncio.Event()

    def __enter__(self) -> Follower:
        self._history.followers.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._history.followers.discard(self)

    def wake(self) -> None:
        """Look again: something has happened."""
        self._news.set()

    @property
    def has_more(self) -> bool:
        """Whether the next entry is there, or may still come."""
        return self._next_seq <= self._history.last_seq or not self._history.over

    async def __anext__(self) -> Entry:
        history = self._history
        while self._next_seq > history.last_seq:
            if history.over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        first = history.first_seq
        if self._next_seq < first:
            missed, self._next_seq = first - self._next_seq, first
            return Entry(first - 1, self._now(), Overflowed(missed))
        entry = history.entries[self._next_seq - first]
        self._next_seq += 1
        return entry


class Journal:
    """The histories of all calls; each is kept for as long as its call's record is.

    Args:
        max_entries: Kept of each call, with 256 KiB of text in all; older ones are forgotten.
        max_followers: Of each call; one more is refused.
        now: The time of day, for the entries.
    """

    def __init__(
        self,
        *,
        max_entries: int = _MAX_ENTRIES,
        max_followers: int = _MAX_FOLLOWERS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._max_entries = max_entries
        self._max_followers = max_followers
        self._now = now
        self._closed = False
        self._listeners: list[Listener] = []
        self._histories: WeakKeyDictionary[CallRecord, _History] = WeakKeyDictionary()

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of everything from now on. One that raises disturbs nobody."""
        self._listeners.append(listener)

    def note(self, record: CallRecord, event: CallEvent) -> None:
        """Take down what has happened in a call; never waits, never raises."""
        self.restore(record, event, self._now())
        self.tell(record, event)

    def restore(self, record: CallRecord, event: CallEvent, at: datetime) -> None:
        """Take down what has happened in a call, and tell nobody but its followers: another
        process's journal has told it."""
        history = self._history(record)
        if not history.over and not isinstance(event, UNTOLD):
            entry = Entry(history.last_seq + 1, at, event)
            history.entries.append(entry, size_of(event))
            history.over = isinstance(event, CallEnded)
            history.wake()

    def tell(self, record: CallRecord, event: CallEvent) -> None:
        """Tell the listeners what has happened in a call, without taking it down."""
        for listener in self._listeners:
            try:
                listener(record, event)
            except Exception:
                log.exception("journal_listener_failed", event_kind=event.kind)

    def follow(self, record: CallRecord, after: int = 0) -> Follower:
        """Follow a call from the entry after the one numbered `after`.

        Raises:
            TooManyFollowers: The call has as many followers as it may have.
        """
        history = self._history(record)
        if len(history.followers) >= self._max_followers:
            raise TooManyFollowers(
                f"{len(history.followers)} streams of this session are open, which is the limit."
            )
        return Follower(history, after, self._now)

    def close(self) -> None:
        """End all following: nothing more will come."""
        self._closed = True
        for history in self._histories.values():
            history.over = True
            history.wake()

    def _history(self, record: CallRecord) -> _History:
        history = self._histories.get(record)
        if history is None:
            history = self._histories[record] = _History(self._max_entries)
            history.over = self._closed
        return history
