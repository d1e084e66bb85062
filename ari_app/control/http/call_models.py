"""What may be asked of calls over HTTP by a query, and what the call log answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from ari_app.line.interface import Result, Status
from ari_app.records.store.query import CallFilter

JSON: Final = "application/json"
TEXT: Final = "text/plain"
VTT: Final = "text/vtt"
CSV: Final = "text/csv"
JSON_LINES: Final = "application/x-ndjson"

_MOST_CALLS: Final = 500


def _moment(text: object) -> object:
    """Read a time as people write it; one that names no zone is UTC."""
    if not isinstance(text, str):
        return text
    # In a URL a plus that is not escaped is a space.
    for written in (text, "+".join(text.rsplit(" ", 1))):
        try:
            moment = datetime.fromisoformat(written)
        except ValueError:
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    raise ValueError("must be a date or a time, such as 2026-11-28 or 2026-11-28T15:30:00Z")


Moment = Annotated[datetime, BeforeValidator(_moment)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class CallsFilter(BaseModel):
    """Which calls are wanted; all that is named must fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_: Moment | None = Field(
        default=None,
        alias="from",
        description="Those that began then or later: a date or a time, UTC if no zone is named.",
    )
    to: Moment | None = Field(default=None, description="Those that began before then.")
    status: Literal[tuple(each.value for each in Status)] | None = Field(  # type: ignore[valid-type]
        default=None, description="How they ended, as AGENT_STATUS."
    )
    result: Literal[tuple(each.value for each in Result)] | None = Field(  # type: ignore[valid-type]
        default=None, description="What became of a call that was placed."
    )
    agent_id: Word | None = Field(default=None, description="The agent.")
    number: Word | None = Field(
        default=None,
        description="Part of a number of theirs: caller's, called or a transfer's target.",
    )
    text: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = Field(
        default=None,
        description="Words that were all said; those in quotation marks one after the other.",
    )
    trunk: Word | None = Field(
        default=None, description="What it took on its way: in Asterisk the endpoint."
    )
    direction: Literal["in", "out"] | None = Field(default=None, description="in or out.")
    campaign_id: Word | None = Field(
        default=None, description="The campaign: campaign_id of the call's metadata."
    )

    def wanted(self) -> CallFilter:
        """Return it as the call log takes it."""
        names = ("to", "status", "result", "agent_id", "trunk", "number", "text", "direction")
        same = {name: getattr(self, name) for name in names}
        return CallFilter(from_=self.from_, campaign_id=self.campaign_id, **same)


class CallsQuery(CallsFilter):
    """Which calls, and how many of them."""

    limit: int = Field(default=50, ge=1, le=_MOST_CALLS, description="So many at most.")
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None, description="Of the page before; nothing: the first page."
    )


class ExportQuery(CallsFilter):
    """Which calls, and in which form."""

    format: Literal["csv", "jsonl"] | None = Field(
        default=None, description="csv or jsonl; nothing: as Accept says, or else csv."
    )


class TranscriptQuery(BaseModel):
    """In which form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["json", "txt", "vtt"] | None = Field(
        default=None, description="json, txt or vtt; nothing: as Accept says, or else json."
    )


class RecordingQuery(BaseModel):
    """Which file."""

    part: int = Field(default=1, ge=1, le=9999, description="Of a recording in several files.")


class EventsQuery(BaseModel):
    """Where to go on, for clients that cannot send a header."""

    last_event_id: Annotated[str, StringConstraints(pattern="^[0-9]{0,18}$")] | None = Field(
        default=None, description="As Last-Event-ID, which wins."
    )


class _Answer(BaseModel):
    # Parts come later, from whoever has them, and older calls lack what was not kept then.
    model_config = ConfigDict(frozen=True, extra="allow")


class CallRow(_Answer):
    """A call that has ended, as a list shows it."""

    session_id: str
    direction: str = Field(description="in or out.")
    way: str = Field(description="asterisk, twilio, custom or local.")
    trunk: str | None = Field(
        description="In Asterisk the endpoint, such as PJSIP/trunk; empty: not known."
    )
    reference: str | None = Field(description="The dialer's own name for it.")
    campaign_id: str | None = Field(
        description="campaign_id of the metadata, where it is a text of at most 128 characters."
    )
    caller_number: str
    called_number: str
    agent_id: str
    conversation_id: str = Field(description="The last one's; empty: there was none.")
    status: str | None = Field(description="As AGENT_STATUS.")
    reason: str | None = Field(description="As AGENT_REASON.")
    transfer_to: str | None
    result: str | None = Field(description="Of a call that was placed.")
    hangup_cause: int | None = Field(description="Q.850.")
    sip_code: int | None
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    agent_seconds: float | None = Field(description="How long agents were there.")
    score: int | None = Field(description="Of its sound, 0 to 100; null: there was none.")
    turns: int
    interruptions: int
    tools: int
    response_time: float | None = Field(
        description="Seconds that the caller waited for an answer: the median."
    )
    credits: float | None = Field(
        description="What ElevenLabs says that it cost, in credits; null: it has not said."
    )
    cost_usd: float | None = Field(description="The same in US dollars.")


class CallList(_Answer):
    """A page of calls."""

    calls: list[CallRow]
    cursor: str | None = Field(description="Where the next page begins; null: there is none.")


class Turn(_Answer):
    """What one side said; times are seconds since the call began."""

    at: float = Field(description="The agent's: when the caller began to hear it.")
    until: float | None = Field(description="null: it was never heard.")
    who: str = Field(description="caller or agent.")
    text: str
    interrupted: bool
    heard: str | None = Field(description="What the caller heard of it; null: all.")


class Score(_Answer):
    """How well the two heard each other."""

    value: int | None = Field(description="0 to 100; null: they were never together.")
    reasons: list[str]


class CallDocument(_Answer):
    """All that is kept of a call. docs/call-log.md describes each part."""

    version: int
    session_id: str
    direction: str
    status: str | None
    reason: str | None
    started_at: datetime
    legs: list[dict[str, Any]]
    turns: list[Turn]
    tools: list[dict[str, Any]]
    keys: list[dict[str, Any]]
    notes: list[dict[str, Any]]
    take_overs: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Supervisors who were called: `who`, `number`, `asked`, and `from` and `until` "
        "if they spoke with the caller, or why not (`failed`).",
    )
    listeners: list[dict[str, Any]] = Field(
        default_factory=list, description="Who listened: `who`, `from`, `until`."
    )
    response_times: list[float]
    sound: dict[str, Any]
    score: Score
    hidden: list[str] = Field(description="What was not kept: numbers, words.")


class Transcript(_Answer):
    """What was said in a call."""

    session_id: str
    conversation_id: str
    started_at: datetime
    seconds: float | None
    turns: list[Turn]
    left_out: int = Field(description="Entries from the beginning that were not kept.")
    hidden: list[str]
