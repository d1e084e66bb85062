"""A call's record: plain data, which can be stored, sent and shown."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ari_app.records.bounded import Bounded
from ari_app.records.chronicle import Chronicle
from ari_app.records.events import (
    AgentClosed,
    CallerInterrupted,
    CallEvent,
    KeysPressed,
    Noted,
    Responded,
    Said,
    ToolRan,
    speaker,
)
from ari_app.records.trace import TraceContext

_MAX_TRANSCRIPT: Final = 500
_MAX_RESPONSE_TIMES: Final = 20_000


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
    """The report on a call's sound, in ms where not said otherwise.

    Attributes:
        heard_by_agent_ms: The caller's sound that the line brought.
        silence_filled_ms: The line brought nothing for so long, and the agent heard silence.
        surplus_ms: The line brought more than there was time for; dropped.
        said_to_caller_ms, dropped_ms, queued_ms: The agent's sound that was played, that was
            thrown away when it was interrupted, and that still waits.
        underruns: How often the agent's voice broke off in the middle of a response.
        interruptions: How often the caller spoke over it.
        frames_not_read: Frames that were left out, since the line's far end did not read.
        gaps, longest_gap_ms: How often the line brought nothing, and how long at most.
        short_gaps_ms: Of these, those that were too short to be meant: half a second at most.
        late_ticks, latest_ms: How often our own clock was more than 40 ms late, and how much at
            most.
        not_sent_ms: The caller's sound that the agent was not sent, for its connection was slow.
        barge_in_ms: Of each interruption: from the agent's word of it to silence on the line.
        rtp: What the line knows of the telephone's packets, as `ari_app.line.interface.RtpReport`
            has it; None: nothing.
    """

    heard_by_agent_ms: float = 0.0
    silence_filled_ms: float = 0.0
    surplus_ms: float = 0.0
    said_to_caller_ms: float = 0.0
    dropped_ms: float = 0.0
    queued_ms: float = 0.0
    underruns: int = 0
    interruptions: int = 0
    frames_not_read: int = 0
    gaps: int = 0
    short_gaps_ms: float = 0.0
    longest_gap_ms: float = 0.0
    late_ticks: int = 0
    latest_ms: float = 0.0
    not_sent_ms: float = 0.0
    barge_in_ms: tuple[float, ...] = ()
    rtp: dict[str, Any] | None = None

    def after(self, before: SoundReport) -> SoundReport:
        """Return both as one: this goes on where the other ended, in another process."""
        changes: dict[str, Any] = {
            each.name: getattr(before, each.name) + getattr(self, each.name)
            for each in fields(self)
            if each.name not in ("rtp", "queued_ms")
        }
        for name in ("longest_gap_ms", "latest_ms"):
            changes[name] = max(getattr(before, name), getattr(self, name))
        return replace(self, **changes, rtp=self.rtp or before.rtp)


@dataclass(slots=True)
class Leg:
    """One of the telephones of a call; times are seconds since the call began.

    Attributes:
        kind: `caller`, `callee`, `target` of an attended transfer, or `supervisor` who takes the
            call over.
        result: What became of calling it; None of a caller.
        cause, sip_code: Why it ended, where that is told.
    """

    kind: str
    number: str
    began: float = 0.0
    answered: float | None = None
    ended: float | None = None
    result: str | None = None
    cause: int | None = None
    sip_code: int | None = None


@dataclass(slots=True)
class TakeOver:
    """A supervisor's part in a call; times are seconds since the call began.

    Attributes:
        who: Whose key asked for it.
        number: The supervisor's telephone.
        asked: When it was asked for.
        began, until: While they spoke with the caller; None: they never did, or still do.
        failed: Why they never did.
        renewed: The agent was lost meanwhile, and another one has gone on.
    """

    who: str
    number: str
    asked: float
    began: float | None = None
    until: float | None = None
    failed: str | None = None
    renewed: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the supervisor's phone rings, or they speak with the caller."""
        return self.until is None and self.failed is None


@dataclass(slots=True)
class Listener:
    """Somebody who listened, from `began` to `until`, in seconds since the call began."""

    who: str
    began: float
    until: float | None = None


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
        way: The way in or out, by the name that `DIALER_TYPE` has for it.
        trunk: What it takes on that way, where that has a name: in Asterisk the endpoint.
        began: When it began, on the event loop's clock.
        placed: We call; otherwise the call came in.
        agent_id: The agent that was asked for.
        conversation_id: The conversation with it, the last one; `AGENT_CONVERSATION_ID`. Of a
            call whose agent never came, the one that was tried.
        has_conversed: There has been a conversation.
        conversation_ids: All conversations, in their order.
        agent_since: When the agent that is there came, in seconds since the call began; None: none
            is there.
        agent_seconds: How long agents were there, but for the one that still is.
        agent_hears, agent_speaks: Its sound formats, once it is there.
        line_format: What is spoken on the line.
        reference: A dialer's own name for the call.
        trace: Its place in a trace; None: there is no trace.
        metadata: What the request brought along, and what became known: `amd_status`; and
            `first_conversation_id`, when the agent was lost and `conversation_id` is another's.
        state: Of the call's machine.
        status: `initializing`, `active` or `ended`.
        recording: `off`, `on` or `paused`; of a call that is over, how it was last.
        agent_status, end_reason: `AGENT_STATUS` and `AGENT_REASON`, once they are decided.
        transfer_to: To whom the caller was passed on.
        result: What became of a call that we place; None while it is not known.
        detail: Why a call that we placed could not be dialled, a sentence; None: it could.
        hangup_cause, sip_code: Why the far side's channel ended, where that is told.
        started_at, answered_at, ended_at: When it began, when sound began to flow, and when
            everything had been given back.
        seconds: How long it lasted, once it is over.
        legs: The caller or callee, then the targets of attended transfers, and supervisors.
        muted: The agent hears silence instead of the caller, for somebody wants it so.
        take_overs, listeners: Who took it over and who listened; the first hundred of each.
        transcript: What was said: the last 500 lines, of 256 KiB in all and 8 KiB each.
        chronicle: All that happened, as far as 4 MiB hold it.
        response_times: Seconds from the end of the caller's speech to the first sound of each
            answer; the last 20,000.
        sound: What became of the sound, as far as it was looked at.
    """

    session_id: str
    line_id: str
    began: float
    way: str = ""
    placed: bool = False
    trunk: str = ""
    caller_number: str = ""
    called_number: str = ""
    agent_id: str = ""
    conversation_id: str = ""
    has_conversed: bool = False
    conversation_ids: list[str] = field(default_factory=list)
    agent_since: float | None = None
    agent_seconds: float = 0.0
    agent_hears: str | None = None
    agent_speaks: str | None = None
    line_format: str = ""
    reference: str | None = None
    trace: TraceContext | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    state: str = "new"
    status: str = "initializing"
    recording: str = "off"
    agent_status: str | None = None
    end_reason: str | None = None
    transfer_to: str | None = None
    result: str | None = None
    hangup_cause: int | None = None
    sip_code: int | None = None
    detail: str | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    seconds: float | None = None
    legs: list[Leg] = field(default_factory=list)
    muted: bool = False
    take_overs: list[TakeOver] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    transcript: Bounded[TranscriptLine] = field(default_factory=lambda: Bounded(_MAX_TRANSCRIPT))
    chronicle: Chronicle = field(default_factory=Chronicle)
    response_times: list[float] = field(default_factory=list)
    sound: SoundReport = SoundReport()

    def fold(self, event: CallEvent, at: float) -> None:
        """Keep what has happened, `at` so many seconds since the call began."""
        match event:
            case Said() | CallerInterrupted() | ToolRan() | KeysPressed() | Noted():
                line = TranscriptLine(at, speaker(event), event.text)
                self.transcript.append(line, len(event.text.encode(errors="replace")))
            case Responded(seconds):
                self.response_times.append(seconds)
                del self.response_times[:-_MAX_RESPONSE_TIMES]
            case AgentClosed():
                self.leaves_agent(at)
            case _:
                pass
        self.chronicle.take(event, at)

    @property
    def trace_id(self) -> str | None:
        """The trace's id; None: there is no trace."""
        return None if self.trace is None else self.trace.trace_id

    def duration(self, now: float) -> float:
        """Return the seconds from the beginning to the end, or to `now` on the event loop's
        clock."""
        return now - self.began if self.seconds is None else self.seconds

    def has_ended(self, now: float) -> float:
        """Keep when the call ended, `now` on the event loop's clock; how long it has lasted."""
        self.seconds, self.ended_at = self.duration(now), datetime.now(UTC)
        self.leaves_agent(self.seconds)
        return self.seconds

    def ended_at_last_sign(self, seconds: float) -> None:
        """Keep that the call is over, and that nothing is known of it after so many seconds: its
        process was lost."""
        self.seconds, self.ended_at = seconds, self.started_at + timedelta(seconds=seconds)
        self.state = self.status = "ended"
        self.leaves_agent(seconds)
        self.chronicle.ended(seconds)
        for leg in self.legs:
            if leg.ended is None:
                leg.ended = seconds
        parts: list[TakeOver | Listener] = [*self.take_overs, *self.listeners]
        for each in parts:
            if each.until is None and each.began is not None:
                each.until = round(seconds, 3)

    @property
    def take_over(self) -> TakeOver | None:
        """The one that is under way."""
        last = self.take_overs[-1] if self.take_overs else None
        return last if last is not None and last.is_open else None

    @property
    def listening(self) -> list[str]:
        """Who listens now."""
        return [each.who for each in self.listeners if each.until is None]

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

    def converses(self, conversation_id: str, at: float = 0.0) -> None:
        """Keep which conversation it is now, `at` so many seconds since the call began; the first
        one stays in `metadata`."""
        self.leaves_agent(at)
        self.agent_since = at
        if self.has_conversed:
            self.metadata.setdefault("first_conversation_id", self.conversation_id)
        self.conversation_id = conversation_id
        self.conversation_ids.append(conversation_id)
        self.has_conversed = True

    def leaves_agent(self, at: float) -> None:
        """Count the time with the agent that was there until now, if one was."""
        self.agent_seconds, self.agent_since = self.with_agent(at), None

    def with_agent(self, at: float) -> float:
        """Return how many seconds agents have been there, `at` so many since the call began."""
        since = at if self.agent_since is None else self.agent_since
        return self.agent_seconds + max(at - since, 0.0)
