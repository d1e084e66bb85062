"""The events of a call, for everybody who watches: one vocabulary.

Metrics, event streams, the terminal of the demo and whatever keeps or sends records are told these,
by way of `ari_app.records.journal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


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
class AgentClosed:
    """The agent's connection has closed."""

    kind: ClassVar[str] = "agent_closed"
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Said:
    """One side said something; a correction is what the agent has really said."""

    kind: ClassVar[str] = "transcript"
    who: str
    text: str


@dataclass(frozen=True, slots=True)
class CallerInterrupted:
    """The caller has interrupted the agent."""

    kind: ClassVar[str] = "interruption"
    text: str


@dataclass(frozen=True, slots=True)
class ToolRan:
    """The agent has called a tool."""

    kind: ClassVar[str] = "tool"
    text: str


@dataclass(frozen=True, slots=True)
class KeysPressed:
    """The caller has pressed keys."""

    kind: ClassVar[str] = "dtmf"
    text: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something else that belongs to the course of the call."""

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
    | AgentNotReached
    | AgentLost
    | AgentResumed
    | AgentClosed
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


def words(who: str, text: str) -> Words:
    """Make the event for a line of the transcript.

    Args:
        who: `agent`, `caller`, `correction`, `interruption`, `tool`, `dtmf` or `note`.
        text: The words.
    """
    match who:
        case "interruption":
            return CallerInterrupted(text)
        case "tool":
            return ToolRan(text)
        case "dtmf":
            return KeysPressed(text)
        case "note":
            return Noted(text)
        case _:
            return Said(who, text)
