"""The answers of the HTTP interface."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ari_app.records.record import CallRecord


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _now() -> datetime:
    return datetime.now(UTC)


class InitiateCallResponse(_Model):
    """A call has begun; its events tell how it goes on."""

    success: bool = Field(description="Always true; a failure is a problem.")
    session_id: str = Field(description="The name of the call in every further request.")
    websocket_url: str = Field(description="The session's events, as a WebSocket.")
    message: str = Field(description="For people.")
    timestamp: datetime = Field(default_factory=_now, description="When this was answered.")
    call_id: str | None = Field(default=None, description="The dialer's own reference.")
    audio_url: str | None = Field(
        default=None,
        description="With audio that is brought: the WebSocket for the call's sound, for one "
        "connection within 30 seconds.",
    )


class EndCallResponse(_Model):
    """Response for ended call."""

    success: bool
    session_id: str
    call_id: str | None
    duration: float = Field(description="Call duration in seconds.")
    message: str
    timestamp: datetime = Field(default_factory=_now)


class ActionResponse(_Model):
    """What was asked for has been done, or has begun."""

    success: bool
    session_id: str
    message: str
    timestamp: datetime = Field(default_factory=_now)


class Liveness(_Model):
    """The process runs."""

    status: Literal["live"] = "live"


class SpokenLine(_Model):
    """Something that was said."""

    at_seconds: float = Field(description="Since the call entered the application.")
    who: str = Field(description="agent, caller, correction, interruption, tool, dtmf or note.")
    text: str


class TakeOver(_Model):
    """A supervisor who is called, or speaks with the caller."""

    who: str = Field(description="Whose key asked for it; empty where there is none.")
    endpoint: str = Field(description="Their telephone.")
    state: Literal["ringing", "talking"]
    seconds: float = Field(description="Since it rang, or since they speak.")

    @property
    def shown(self) -> dict[str, str]:
        """What of it changes only when it does."""
        return self.model_dump(exclude={"seconds"})


class SessionSummary(_Model):
    """A call, as a list shows it."""

    session_id: str
    call_id: str = Field(
        description="The dialer's own reference; the channel in Asterisk when it gave none."
    )
    channel_id: str = Field(description="The channel in Asterisk.")
    agent_id: str
    caller_number: str
    called_number: str
    status: str = Field(description="initializing, active or ended.")
    state: str = Field(description="The state of the call's machine.")
    duration: float = Field(description="Seconds.")
    recording: str = Field(
        description="off, on or paused; of a call that is over, how it was last."
    )
    muted: bool = Field(description="The agent hears silence, for somebody wants it so.")
    take_over: TakeOver | None = Field(
        description="The supervisor who is called, or speaks with the caller."
    )
    listeners: list[str] = Field(description="Whose keys listen now; empty for no key.")
    started_at: datetime
    ended_at: datetime | None
    conversation_id: str = Field(description="ElevenLabs' id; empty before the agent is there.")
    agent_status: str | None = Field(description="AGENT_STATUS, once it is decided.")
    end_reason: str | None = Field(description="AGENT_REASON, once it is decided.")
    result: str | None = Field(
        description="answered, busy, no_answer, rejected, unreachable, invalid_number or failed."
    )
    hangup_cause: int | None = Field(description="Q.850 cause of the call's end.")
    sip_code: int | None = Field(description="SIP status of the call's end.")
    detail: str | None = Field(
        description="Why a number could not be dialled at all, as a sentence."
    )


class SoundReport(_Model):
    """What became of a call's sound, in ms where not said otherwise."""

    heard_by_agent_ms: float
    silence_filled_ms: float
    surplus_ms: float = Field(
        description="What the phone sent beyond the time that has passed, silence first; dropped."
    )
    said_to_caller_ms: float
    dropped_ms: float
    queued_ms: float
    underruns: int
    interruptions: int
    frames_not_read: int
    gaps: int = Field(description="How often the line brought nothing.")
    short_gaps_ms: float = Field(
        description="Of these, those of half a second at most: sound that was lost."
    )
    longest_gap_ms: float
    late_ticks: int = Field(description="How often our own clock was more than 40 ms late.")
    latest_ms: float
    not_sent_ms: float = Field(
        description="The caller's sound that the agent was not sent, for its connection was slow."
    )
    barge_in_ms: list[float] = Field(
        description="Of each interruption: from the agent's word of it to silence on the line."
    )
    rtp: dict[str, Any] | None = Field(
        description="What the line knows of the telephone's packets; null where it knows nothing."
    )


class SessionDetail(SessionSummary):
    """A call, with what was said."""

    trace_id: str | None = Field(description="Of its OpenTelemetry trace, where there is one.")
    agent_input_format: str | None
    agent_output_format: str | None
    line_format: str
    sound: SoundReport
    metadata: dict[str, Any] = Field(
        description="What initiate-call brought, and what became known since, such as amd."
    )
    response_times: list[float] = Field(
        description="Seconds from the end of the caller's speech to the first sound of each answer."
    )
    transcript: list[SpokenLine] = Field(
        description="The last 500 lines, of 256 KiB in all. One over 8 KiB is cut, and says so."
    )
    transcript_left_out: int = Field(
        default=0, description="Lines before these that are not kept any more."
    )


class SessionList(_Model):
    """All calls that run, and those that ended in the last minute."""

    active_sessions: int
    max_concurrent_calls: int
    sessions: list[SessionSummary]


class Readiness(_Model):
    """Whether new calls are taken, and what is missing otherwise."""

    status: str = Field(description="ready or not_ready.")
    problems: list[str]
    warnings: list[str] = Field(
        default_factory=list,
        description="What is wrong and keeps no call away, such as a database that is not there.",
    )
    active_sessions: int
    asterisk_version: str | None
    media_transport: str | None = None


def join_readiness(
    own: tuple[Sequence[str], Sequence[str]],
    workers: Collection[tuple[Sequence[str], Sequence[str]]],
    missing: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Say what is wrong with a front and its workers.

    Args:
        own: The front's problems and warnings.
        workers: Those of each worker that has told them.
        missing: What the front says of workers that are not there, or take no calls.

    Returns:
        Problems, which keep calls away, and warnings, which do not: what keeps them from one worker
        does not, as long as there is another.
    """
    problems, warnings = list(own[0]), [f"{text}: the others serve" for text in missing]
    if all(theirs for theirs, _ in workers):
        problems += dict.fromkeys(
            text for theirs, _ in workers for text in theirs if text not in problems
        )
        problems += [] if workers else missing
        warnings = []
    warnings += dict.fromkeys([*own[1], *(text for _, theirs in workers for text in theirs)])
    return problems, warnings


def call_id(record: CallRecord) -> str:
    """Say what the dialer calls the call; the line's own name where it gave none."""
    return record.reference or record.line_id


def summary(record: CallRecord) -> SessionSummary:
    """Show a call as a list does."""
    return SessionSummary(**_summary_fields(record))


def take_over(record: CallRecord) -> TakeOver | None:
    """Show who takes a call over."""
    taken = record.take_over
    if taken is None:
        return None
    since = taken.asked if taken.began is None else taken.began
    return TakeOver(
        who=taken.who,
        endpoint=taken.number,
        state="ringing" if taken.began is None else "talking",
        seconds=round(record.duration(asyncio.get_running_loop().time()) - since, 3),
    )


def _summary_fields(record: CallRecord) -> dict[str, Any]:
    return {
        "session_id": record.session_id,
        "call_id": call_id(record),
        "channel_id": record.line_id,
        "agent_id": record.agent_id,
        "caller_number": record.caller_number,
        "called_number": record.called_number,
        "status": record.status,
        "state": record.state,
        "duration": round(record.duration(asyncio.get_running_loop().time()), 3),
        "recording": record.recording,
        "muted": record.muted,
        "take_over": take_over(record),
        "listeners": record.listening,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "conversation_id": record.conversation_id,
        "agent_status": record.agent_status,
        "end_reason": record.end_reason,
        "result": record.result,
        "hangup_cause": record.hangup_cause,
        "sip_code": record.sip_code,
        "detail": record.detail,
    }


def detail(record: CallRecord) -> SessionDetail:
    """Show a call, with what was said and what became of its sound."""
    return SessionDetail(
        **_summary_fields(record),
        trace_id=record.trace_id,
        agent_input_format=record.agent_hears,
        agent_output_format=record.agent_speaks,
        line_format=record.line_format,
        sound=SoundReport(**dataclasses.asdict(record.sound)),
        metadata=dict(record.metadata),
        response_times=record.response_times,
        transcript=[
            SpokenLine(at_seconds=line.at_seconds, who=line.who, text=line.text)
            for line in record.transcript
        ],
        transcript_left_out=record.transcript.forgotten,
    )
