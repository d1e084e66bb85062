"""What happens in each call, as numbered events that others can follow and take up again.

Every call has one bounded history. A follower is a place in it, so a slow one costs no memory:
when the history has moved past its place, it gets an :class:`OverflowEvent` and goes on with the
oldest event that is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal
from weakref import WeakKeyDictionary

from ari_app.call.call import CallSession
from ari_app.call.hearing import ResponseTime
from ari_app.call.states import State
from ari_app.errors import AppError
from ari_app.records.bounded import Bounded
from ari_app.records.events import SessionObserver, TranscriptLine

_MAX_EVENTS = 1000
_MAX_FOLLOWERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StateEvent:
    """The call has reached a state of its machine."""

    seq: int
    at: datetime
    type: Literal["state"] = "state"
    state: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEvent:
    """The agent is ready, so many seconds after the call's start."""

    seq: int
    at: datetime
    type: Literal["agent"] = "agent"
    conversation_id: str
    connect_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLostEvent:
    """The agent was lost in the middle of the call; another one is dialled."""

    seq: int
    at: datetime
    type: Literal["agent_lost"] = "agent_lost"
    conversation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResumedEvent:
    """Another agent speaks in place of the lost one, so many seconds after the loss."""

    seq: int
    at: datetime
    type: Literal["agent_resumed"] = "agent_resumed"
    conversation_id: str
    gap_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptEvent:
    """One side said something; a correction is what the agent has really said."""

    seq: int
    at: datetime
    type: Literal["transcript"] = "transcript"
    who: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptionEvent:
    """The caller has interrupted the agent."""

    seq: int
    at: datetime
    type: Literal["interruption"] = "interruption"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolEvent:
    """The agent has called a tool."""

    seq: int
    at: datetime
    type: Literal["tool"] = "tool"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DtmfEvent:
    """The caller has pressed keys."""

    seq: int
    at: datetime
    type: Literal["dtmf"] = "dtmf"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteEvent:
    """Something else that belongs to the course of the call."""

    seq: int
    at: datetime
    type: Literal["note"] = "note"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTimeEvent:
    """The agent begins to answer, so many seconds after the end of the caller's speech."""

    seq: int
    at: datetime
    type: Literal["response_time"] = "response_time"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedEvent:
    """The call is over; always the last event."""

    seq: int
    at: datetime
    type: Literal["ended"] = "ended"
    agent_status: str | None
    end_reason: str | None
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OverflowEvent:
    """So many events before this place are no longer kept."""

    seq: int
    at: datetime
    type: Literal["overflow"] = "overflow"
    missed: int


FeedEvent = (
    StateEvent
    | AgentEvent
    | AgentLostEvent
    | AgentResumedEvent
    | TranscriptEvent
    | InterruptionEvent
    | ToolEvent
    | DtmfEvent
    | NoteEvent
    | ResponseTimeEvent
    | EndedEvent
    | OverflowEvent
)


class TooManyFollowers(AppError):
    """So many follow this call already that one more is refused."""

    default_code = "too_many_streams"


class _History:
    """The events of one call, the oldest of which are forgotten."""

    def __init__(self, max_events: int) -> None:
        self.events: Bounded[FeedEvent] = Bounded(max_events)
        self.over = False
        self.followers: set[Follower] = set()

    @property
    def first_seq(self) -> int:
        return self.events.forgotten + 1

    @property
    def last_seq(self) -> int:
        return self.events.forgotten + len(self.events)

    def wake(self) -> None:
        for follower in self.followers:
            follower.wake()


class Follower(AsyncIterator[FeedEvent]):
    """One that follows a call: ``with feed.follow(...) as events: async for event in events``.

    It ends after the :class:`EndedEvent`, or when the feed is closed.
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
        """Whether the next event is there, or may still come."""
        return self._next_seq <= self._history.last_seq or not self._history.over

    async def __anext__(self) -> FeedEvent:
        history = self._history
        while self._next_seq > history.last_seq:
            if history.over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        first = history.first_seq
        if self._next_seq < first:
            missed, self._next_seq = first - self._next_seq, first
            return OverflowEvent(seq=first - 1, at=self._now(), missed=missed)
        event = history.events[self._next_seq - first]
        self._next_seq += 1
        return event


class SessionFeed(SessionObserver):
    """The events of all calls.

    A history is kept for as long as its call is.

    Args:
        max_events: Kept of each call, with 256 KiB of text in all; older ones are forgotten.
        max_followers: Of each call; one more is refused.
        now: The time of day, for the events.
    """

    def __init__(
        self,
        *,
        max_events: int = _MAX_EVENTS,
        max_followers: int = _MAX_FOLLOWERS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._max_events = max_events
        self._max_followers = max_followers
        self._now = now
        self._closed = False
        self._histories: WeakKeyDictionary[CallSession, _History] = WeakKeyDictionary()

    def follow(self, session: CallSession, after: int = 0) -> Follower:
        """Follow a call from the event after the one numbered ``after``.

        Raises:
            TooManyFollowers: The call has as many followers as it may have.
        """
        history = self._history(session)
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

    def _history(self, session: CallSession) -> _History:
        history = self._histories.get(session)
        if history is None:
            history = self._histories[session] = _History(self._max_events)
            history.over = self._closed
        return history

    def _publish(self, session: CallSession, make: Callable[[int, datetime], FeedEvent]) -> None:
        history = self._history(session)
        if history.over:
            return
        event = make(history.last_seq + 1, self._now())
        history.events.append(event, getattr(event, "text", ""))
        history.over = isinstance(event, EndedEvent)
        history.wake()

    # --- SessionObserver

    def call_changed(self, session: CallSession, state: State) -> None:
        self._publish(
            session,
            lambda seq, at: StateEvent(seq=seq, at=at, state=state.value, status=session.status),
        )
        if state is State.ENDED:
            outcome = session.outcome
            self._publish(
                session,
                lambda seq, at: EndedEvent(
                    seq=seq,
                    at=at,
                    agent_status=outcome.status.value if outcome else None,
                    end_reason=outcome.reason if outcome else None,
                    duration=round(session.duration(), 3),
                ),
            )

    def call_said(self, session: CallSession, line: TranscriptLine) -> None:
        self._publish(session, lambda seq, at: _spoken(line, seq, at))

    def call_responded(self, session: CallSession, response: ResponseTime) -> None:
        self._publish(
            session,
            lambda seq, at: ResponseTimeEvent(seq=seq, at=at, seconds=round(response.seconds, 3)),
        )

    def agent_connected(self, session: CallSession, seconds: float) -> None:
        self._publish(
            session,
            lambda seq, at: AgentEvent(
                seq=seq,
                at=at,
                conversation_id=session.conversation_id,
                connect_seconds=round(seconds, 3),
            ),
        )

    def agent_lost(self, session: CallSession) -> None:
        self._publish(
            session,
            lambda seq, at: AgentLostEvent(seq=seq, at=at, conversation_id=session.conversation_id),
        )

    def agent_resumed(self, session: CallSession, seconds: float) -> None:
        self._publish(
            session,
            lambda seq, at: AgentResumedEvent(
                seq=seq,
                at=at,
                conversation_id=session.conversation_id,
                gap_seconds=round(seconds, 3),
            ),
        )


def _spoken(line: TranscriptLine, seq: int, at: datetime) -> FeedEvent:
    match line.who:
        case "interruption":
            return InterruptionEvent(seq=seq, at=at, text=line.text)
        case "tool":
            return ToolEvent(seq=seq, at=at, text=line.text)
        case "dtmf":
            return DtmfEvent(seq=seq, at=at, text=line.text)
        case "note":
            return NoteEvent(seq=seq, at=at, text=line.text)
        case _:
            return TranscriptEvent(seq=seq, at=at, who=line.who, text=line.text)
