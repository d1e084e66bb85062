"""The events of a call, for everybody who watches: one vocabulary.

Metrics, event streams, the terminal of the demo and whatever keeps or sends records are told these,
by way of `ari_app.records.journal`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ari_app.records.bounded import shortened

_TOLD = "told"


def _kept(**default: Any) -> Any:
    """Make a field that records keep, and streams of events do not tell."""
    return dataclasses.field(kw_only=True, repr=False, metadata={_TOLD: False}, **default)


def told_fields(event: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a kind of event that are told to whoever follows a call."""
    return tuple(each for each in dataclasses.fields(event) if each.metadata.get(_TOLD, True))


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The call has reached a state of its machine."""

    kind: ClassVar[str] = "state"
    state: str
    status: str


@dataclass(frozen=True, slots=True)
class AgentConnected:
    """The agent is ready, so many seconds after the call's start."""

    kind: ClassVar[str] = "agent"
    conversation_id: str
    connect_seconds: float


@dataclass(frozen=True, slots=True)
class StepTook:
    """A step of a call's beginning is over, and has taken so many seconds.

    Attributes:
        step: `precall`, `agent`, `media` or `answer`.
        failure: Why it came to nothing; None: it did not.
        span_id: Its name in the call's trace, where it was told to others; empty: it was not.
    """

    kind: ClassVar[str] = "step"
    step: str
    seconds: float
    failure: str | None = None
    span_id: str = ""


@dataclass(frozen=True, slots=True)
class AgentNotReached:
    """No conversation came about."""

    kind: ClassVar[str] = "agent_not_reached"
    reason: str


@dataclass(frozen=True, slots=True)
class AgentLost:
    """The agent was lost in the middle of the call; another one is dialled."""

    kind: ClassVar[str] = "agent_lost"
    conversation_id: str


@dataclass(frozen=True, slots=True)
class AgentResumed:
    """Another agent speaks in place of the lost one, so many seconds after the loss."""

    kind: ClassVar[str] = "agent_resumed"
    conversation_id: str
    gap_seconds: float


@dataclass(frozen=True, slots=True)
class Adopted:
    """The call's process was lost; another goes on with it, so many seconds after the last sign of
    its life."""

    kind: ClassVar[str] = "adopted"
    gap_seconds: float


@dataclass(frozen=True, slots=True)
class AgentClosed:
    """The agent's connection has closed."""

    kind: ClassVar[str] = "agent_closed"
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A supervisor speaks with the caller, and the agent is held; `who` names their key."""

    kind: ClassVar[str] = "taken_over"
    who: str


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The agent speaks with the caller again, after a supervisor did for so many seconds."""

    kind: ClassVar[str] = "given_back"
    who: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TakeOverFailed:
    """A supervisor did not come to speak with the caller, and the agent has gone on.

    Attributes:
        reason: `busy`, `no_answer` and other results of a call that is placed; `given_up` or
            `call_ended` where it was given up before they answered.
    """

    kind: ClassVar[str] = "take_over_failed"
    who: str
    reason: str


@dataclass(frozen=True, slots=True)
class Said:
    """One side said something; a correction is what the agent has really said.

    Attributes:
        who: `agent`, `caller` or `correction`.
        event_id: What an agent's words and its voice have in common.
        began, until: When the caller spoke, in seconds since the call began.
        original: The words that are corrected.
    """

    kind: ClassVar[str] = "transcript"
    who: str
    text: str
    event_id: int | None = _kept(default=None)
    began: float | None = _kept(default=None)
    until: float | None = _kept(default=None)
    original: str = _kept(default="")


@dataclass(frozen=True, slots=True)
class CallerInterrupted:
    """The caller has interrupted the agent.

    Attributes:
        text: The same in words.
        heard_ms, unheard_ms: How much of what the agent was saying the caller has heard, and how
            much not.
    """

    kind: ClassVar[str] = "interruption"
    text: str
    heard_ms: float = 0.0
    unheard_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ToolRan:
    """The agent has called a tool, which took `seconds`; `text` is its name and its result."""

    kind: ClassVar[str] = "tool"
    text: str
    name: str = _kept(default="")
    arguments: Mapping[str, Any] = _kept(default_factory=dict)
    result: str = _kept(default="")
    is_error: bool = _kept(default=False)
    seconds: float = _kept(default=0.0)
    span_id: str = _kept(default="")


@dataclass(frozen=True, slots=True)
class KeysPressed:
    """The caller has pressed keys."""

    kind: ClassVar[str] = "dtmf"
    text: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something else that belongs to the course of the call; it repeats nobody's words."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True, slots=True)
class Responded:
    """The agent begins to answer, so many seconds after the end of the caller's speech."""

    kind: ClassVar[str] = "response_time"
    seconds: float


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The call is over; always the last event."""

    kind: ClassVar[str] = "ended"
    agent_status: str | None
    end_reason: str | None
    duration: float


@dataclass(frozen=True, slots=True)
class Overflowed:
    """So many events before this place are no longer kept."""

    kind: ClassVar[str] = "overflow"
    missed: int


CallEvent = (
    StateChanged
    | AgentConnected
    | StepTook
    | AgentNotReached
    | AgentLost
    | AgentResumed
    | Adopted
    | AgentClosed
    | TakenOver
    | GivenBack
    | TakeOverFailed
    | Said
    | CallerInterrupted
    | ToolRan
    | KeysPressed
    | Noted
    | Responded
    | CallEnded
    | Overflowed
)

Words = Said | CallerInterrupted | ToolRan | KeysPressed | Noted
"""What stands in the transcript."""


def speaker(event: Words) -> str:
    """Say whose line it is in the transcript: `agent`, `caller`, `correction`, `interruption`,
    `tool`, `dtmf` or `note`."""
    return event.who if isinstance(event, Said) else event.kind


def bounded_arguments(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool's arguments as records keep them: longer ones than 8 KiB as the beginning of
    their JSON, named `cut`."""
    text = json.dumps(arguments, ensure_ascii=False, default=str)
    kept = shortened(text)
    return arguments if kept is text else {"cut": kept}


def size_of(event: CallEvent) -> int:
    """Return how many bytes the words in an event have."""
    size = _bytes(getattr(event, "text", ""))
    match event:
        case Said():
            return size + _bytes(event.original)
        case ToolRan():
            arguments = json.dumps(event.arguments, ensure_ascii=False, default=str)
            return size + _bytes(arguments) + _bytes(event.result)
        case _:
            return size


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))
