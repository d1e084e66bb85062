"""What `AgentProtocol.receive` reports: things that happened in the conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ari_app.elevenlabs.server_messages import Alignment
from ari_app.elevenlabs.wire import ServerMessage, Unknown


@dataclass(frozen=True, slots=True)
class ConversationStarted:
    """The agent is there. Comes before every other event, and once."""

    conversation_id: str
    input_format: str
    """What it wants to hear: `pcm_16000`, `ulaw_8000`, …"""
    output_format: str
    """What it will send."""


@dataclass(frozen=True, slots=True)
class AudioReceived:
    """A chunk of the agent's voice that no interruption has overtaken."""

    event_id: int
    data: bytes = field(repr=False)
    """Any length, in the output format."""
    is_final: bool = False
    """The last chunk of this response."""
    alignment: Alignment | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The caller spoke over the agent: what is not yet played must not be heard."""

    event_id: int
    """Audio up to and including this id is overtaken."""


@dataclass(frozen=True, slots=True)
class UserSaid:
    """The transcript of one turn of the caller."""

    text: str
    event_id: int | None


@dataclass(frozen=True, slots=True)
class AgentSaid:
    """The text of a response as it was meant, before or after its audio."""

    text: str
    event_id: int | None


@dataclass(frozen=True, slots=True)
class AgentCorrected:
    """The text of an interrupted response as far as it was heard."""

    original: str
    corrected: str
    event_id: int | None


@dataclass(frozen=True, slots=True)
class ResponseCompleted:
    """All audio of this response has been sent."""

    event_id: int | None


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The agent asks for one of our tools."""

    name: str
    call_id: str
    parameters: dict[str, Any] = field(repr=False)
    expects_response: bool
    event_id: int | None


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool has run. `status`: success, error, blocked, skipped, or what older servers imply."""

    name: str
    call_id: str
    status: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class CallEnding:
    """The agent's `end_call` succeeded: play out what is queued, then hang up. Comes once."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Other:
    """A message with no event of its own, known or not."""

    message: ServerMessage | Unknown


@dataclass(frozen=True, slots=True)
class Garbled:
    """A message was dropped because it could not be understood."""

    reason: str
    """A slug: not_json, not_an_object, no_type, bad_payload, bad_audio,
    too_many_values."""
    detail: str


AgentEvent = (
    ConversationStarted
    | AudioReceived
    | Interrupted
    | UserSaid
    | AgentSaid
    | AgentCorrected
    | ResponseCompleted
    | ToolCalled
    | ToolFinished
    | CallEnding
    | Other
    | Garbled
)
