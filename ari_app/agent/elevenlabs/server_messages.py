"""The messages of an agent, over the Agents WebSocket, that we act on.

All others are `Unknown`, which is no fault.

On the wire a message is `{"type": wire_type, payload_key: {…}}`; a model here is the inner
object. Unknown fields are ignored, `null` counts as absent, and enumerations stay plain strings,
because the service adds values without notice. Fields that older servers leave out are optional.

Source: https://elevenlabs.io/docs/eleven-agents/api-reference/eleven-agents/websocket and the
contract of the JavaScript SDK (`elevenlabs/packages`, agent.asyncapi.yaml).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pybase64
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)


def _integer(value: object) -> object:
    # A short string of digits is a number that an older server wrote as text. The bound keeps
    # int() from being given megabytes.
    if isinstance(value, str) and len(value) <= 20:
        return int(value)
    if isinstance(value, bool | str):
        raise ValueError("not an integer")
    return value


def _integer_or_none(value: object) -> object:
    try:
        return _integer(value)
    except ValueError:
        if isinstance(value, str):
            return None
        raise


def _base64(value: object) -> object:
    if isinstance(value, str):
        return pybase64.b64decode(value, validate=True)
    return value


_Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
EventId = Annotated[_Int64, BeforeValidator(_integer)]
OptionalInt = Annotated[_Int64 | None, BeforeValidator(_integer_or_none)]
Base64 = Annotated[
    bytes,
    BeforeValidator(_base64),
    PlainSerializer(lambda data: pybase64.b64encode(data).decode()),
]


class Part(BaseModel):
    model_config = ConfigDict(
        extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


class ServerMessage(Part):
    """The root of all messages that the server sends."""

    wire_type: ClassVar[str]
    payload_key: ClassVar[str]

    def to_wire(self) -> dict[str, Any]:
        """Return the message as the server writes it, before JSON."""
        payload = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {"type": self.wire_type, self.payload_key: payload}


@dataclass(frozen=True, slots=True)
class Unknown:
    """A well-formed message of a type that this program does not know."""

    type: str


class ClientToolCall(ServerMessage):
    """The agent wants one of our tools."""

    wire_type = "client_tool_call"
    payload_key = "client_tool_call"

    tool_name: str
    tool_call_id: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    event_id: OptionalInt = None
    expects_response: bool = True


class AgentToolRequest(ServerMessage):
    """A tool is about to run on the server's side."""

    wire_type = "agent_tool_request"
    payload_key = "agent_tool_request"

    tool_name: str
    tool_call_id: str
    tool_type: str | None = None
    event_id: OptionalInt = None
    expects_response: bool | None = None
    response_timeout_secs: float | None = None


class AgentToolResponse(ServerMessage):
    """A tool has run, on either side. `status`: success, error, blocked or skipped."""

    wire_type = "agent_tool_response"
    payload_key = "agent_tool_response"

    tool_name: str
    tool_call_id: str
    tool_type: str | None = None
    is_error: bool = False
    event_id: OptionalInt = None
    status: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the tool did its work; servers without `status` only say `is_error`."""
        return self.status == "success" if self.status else not self.is_error


class AgentToolResponseFullPayload(AgentToolResponse):
    """The same with the tool's result."""

    wire_type = "agent_tool_response_full_payload"
    payload_key = "agent_tool_response_full_payload"


class InitiationMetadata(ServerMessage):
    """The first message. Formats: signed 16-bit little-endian mono PCM, or mu-law."""

    wire_type = "conversation_initiation_metadata"
    payload_key = "conversation_initiation_metadata_event"

    conversation_id: str
    agent_output_audio_format: str = "pcm_16000"
    user_input_audio_format: str = "pcm_16000"


class Audio(ServerMessage):
    """A chunk of the agent's voice in the announced output format."""

    wire_type = "audio"
    payload_key = "audio_event"

    data: Base64 = Field(alias="audio_base_64")
    event_id: OptionalInt = None
    is_final: bool = False


class UserTranscript(ServerMessage):
    """The caller's words, once they are certain."""

    wire_type = "user_transcript"
    payload_key = "user_transcription_event"

    user_transcript: str
    event_id: OptionalInt = None


class AgentResponse(ServerMessage):
    """The whole text of a response, as it was meant. May come before or after its audio."""

    wire_type = "agent_response"
    payload_key = "agent_response_event"

    agent_response: str
    event_id: OptionalInt = None
    response_id: str | None = None


class AgentResponseCorrection(ServerMessage):
    """The part of an interrupted response that was spoken, by the server's reckoning."""

    wire_type = "agent_response_correction"
    payload_key = "agent_response_correction_event"

    original_agent_response: str
    corrected_agent_response: str
    event_id: OptionalInt = None
    response_id: str | None = None


class AgentResponseComplete(ServerMessage):
    """No more audio will come for this response. Must be switched on in the agent."""

    wire_type = "agent_response_complete"
    payload_key = "agent_response_complete_event"

    event_id: OptionalInt = None


class Interruption(ServerMessage):
    """The caller spoke over the agent. Older servers gave a `reason` and no id."""

    wire_type = "interruption"
    payload_key = "interruption_event"

    event_id: OptionalInt = None
    reason: str | None = None


class Ping(ServerMessage):
    """To be answered with a pong of the same id. `ping_ms` is the last round trip."""

    wire_type = "ping"
    payload_key = "ping_event"

    event_id: EventId
    ping_ms: float | None = None


class QueueStatus(ServerMessage):
    """At the limit of concurrent calls: waiting, admitted or timed_out."""

    wire_type = "queue_status"
    payload_key = "queue_status_event"

    status: str


class _ErrorMessage(ServerMessage):
    payload_key = "error_event"

    code: OptionalInt = None
    message: str | None = None


class ClientError(_ErrorMessage):
    """`client_error`, the form of the published schema."""

    wire_type = "client_error"

    error_name: str | None = None

    @property
    def text(self) -> str:
        """Name and message in one line; empty when it has neither."""
        return ": ".join(part for part in (self.error_name, self.message) if part)


class Error(_ErrorMessage):
    """`error`, the form of the SDK's contract; also seen flat, with only a `message`."""

    wire_type = "error"

    error_type: str | None = None
    reason: str | None = None
    details: Any = None

    @property
    def text(self) -> str:
        """Type, reason and message in one line; empty when it has none."""
        return ": ".join(part for part in (self.error_type, self.reason, self.message) if part)


SERVER_MESSAGES: dict[str, type[ServerMessage]] = {
    model.wire_type: model
    for model in (
        InitiationMetadata, Audio, UserTranscript, AgentResponse, AgentResponseCorrection,
        AgentResponseComplete, Interruption, Ping, ClientToolCall, AgentToolRequest,
        AgentToolResponse, AgentToolResponseFullPayload, QueueStatus, ClientError, Error,
    )
}  # fmt: skip
"""Every server message that means something to us, by its `type` on the wire."""
