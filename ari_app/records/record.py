"""A call's record: plain data, which can be stored, sent and shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from ari_app.records.bounded import Bounded

_MAX_TRANSCRIPT: Final = 500


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """Something that was said.

    Attributes:
        at_seconds: Since the call began.
        who: `agent`, `caller`, `interruption`, `correction`, `tool`, `dtmf` or `note`.
        text: The words.
    """

    at_seconds: float
    who: str
    text: str


@dataclass(frozen=True, slots=True)
class SoundReport:
    """The report on a call's sound, in ms where not said otherwise."""

    heard_by_agent_ms: float = 0.0
    silence_filled_ms: float = 0.0
    surplus_ms: float = 0.0
    said_to_caller_ms: float = 0.0
    dropped_ms: float = 0.0
    queued_ms: float = 0.0
    underruns: int = 0
    interruptions: int = 0
    frames_not_read: int = 0


@dataclass(frozen=True, slots=True)
class CallFacts:
    """The facts about a call: the values that `from_call` in a file of HTTP tools may name."""

    session_id: str = ""
    call_id: str = ""
    conversation_id: str = ""
    agent_id: str = ""
    caller_number: str = ""
    called_number: str = ""


@dataclass(slots=True, eq=False, weakref_slot=True)
class CallRecord:
    """The course of a call.

    Attributes:
        session_id: Ours; `AGENT_SESSION_ID` in the dialplan.
        line_id: The line's own name for the call: in Asterisk the caller's or callee's channel.
        began: When it began, on the event loop's clock.
        placed: We call; otherwise the call came in.
        agent_id: The agent that was asked for.
        conversation_id: The conversation with it, the last one; `AGENT_CONVERSATION_ID`. Of a
            call whose agent never came, the one that was tried.
        has_conversed: There has been a conversation.
        agent_hears, agent_speaks: Its sound formats, once it is there.
        line_format: What is spoken on the line.
        reference: A dialer's own name for the call.
        metadata: What the request brought along, and what became known: `amd_status`; and
            `first_conversation_id`, when the agent was lost and `conversation_id` is another's.
        state: Of the call's machine.
        status: `initializing`, `active` or `ended`.
        agent_status, end_reason: `AGENT_STATUS` and `AGENT_REASON`, once they are decided.
        result: What became of a call that we place; None while it is not known.
        detail: Why a call that we placed could not be dialled, a sentence; None: it could.
        hangup_cause, sip_code: Why the far side's channel ended, where that is told.
        started_at, answered_at, ended_at: When it began, when sound began to flow, and when
            everything had been given back.
        seconds: How long it lasted, once it is over.
        transcript: What was said: the last 500 lines, of 256 KiB in all and 8 KiB each.
        response_times: Seconds from the end of the caller's speech to the first sound of each
            answer.
        sound: What became of the sound, as far as it was looked at.
    """

    session_id: str
    line_id: str
    began: float
    placed: bool = False
    caller_number: str = ""
    called_number: str = ""
    agent_id: str = ""
    conversation_id: str = ""
    has_conversed: bool = False
    agent_hears: str | None = None
    agent_speaks: str | None = None
    line_format: str = ""
    reference: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    state: str = "new"
    status: str = "initializing"
    agent_status: str | None = None
    end_reason: str | None = None
    result: str | None = None
    hangup_cause: int | None = None
    sip_code: int | None = None
    detail: str | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    seconds: float | None = None
    transcript: Bounded[TranscriptLine] = field(default_factory=lambda: Bounded(_MAX_TRANSCRIPT))
    response_times: list[float] = field(default_factory=list)
    sound: SoundReport = SoundReport()

    def duration(self, now: float) -> float:
        """Return the seconds from the beginning to the end, or to `now` on the event loop's
        clock."""
        return now - self.began if self.seconds is None else self.seconds

    def has_ended(self, now: float) -> float:
        """Keep when the call ended, `now` on the event loop's clock; how long it has lasted."""
        self.seconds, self.ended_at = self.duration(now), datetime.now(UTC)
        return self.seconds

    def facts(self) -> CallFacts:
        """Return what HTTP tools may be told about the call."""
        return CallFacts(
            session_id=self.session_id,
            call_id=self.line_id,
            conversation_id=self.conversation_id,
            agent_id=self.agent_id,
            caller_number=self.caller_number,
            called_number=self.called_number,
        )

    def tries(self, conversation_id: str) -> None:
        """Keep the id of a conversation that is tried, unless there has been one."""
        if not self.has_conversed:
            self.conversation_id = conversation_id

    def converses(self, conversation_id: str) -> None:
        """Keep which conversation it is now; the first one stays in `metadata`."""
        if self.has_conversed:
            self.metadata.setdefault("first_conversation_id", self.conversation_id)
        self.conversation_id = conversation_id
        self.has_conversed = True
