"""The messages that a client sends, checked.

Source: ElevenLabs *Agent WebSocket* reference (AsyncAPI), *Client to server events*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
import pybase64
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from lab.practice_agent.dialogue import Variable


class InvalidMessageError(ValueError):
    """The client sent something that is not in the protocol."""


@dataclass(frozen=True, slots=True)
class UserAudio:
    """``user_audio_chunk``: the only message without a ``type``."""

    payload: bytes


class _Received(BaseModel):
    # What a newer client adds is none of our business; a wrong type of a known field is.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class ConversationOverride(_Received):
    """``conversation_config_override.conversation``."""

    text_only: bool = False
    max_duration_seconds: float | None = Field(default=None, gt=0)


class AgentOverride(_Received):
    """``conversation_config_override.agent``."""

    first_message: str | None = None


class ConfigOverride(_Received):
    """The part of ``conversation_config_override`` that means something here."""

    agent: AgentOverride = AgentOverride()
    conversation: ConversationOverride = ConversationOverride()
    text_only: bool = False
    """The Python SDK puts it here, not under ``conversation``."""


class Initiation(_Received):
    """The client's opening message."""

    type: Literal["conversation_initiation_client_data"]
    conversation_config_override: ConfigOverride = ConfigOverride()
    dynamic_variables: dict[str, Variable] = {}


class EnclaveSetup(_Received):
    """On-premises set-up; may come before the initiation."""

    type: Literal["enclave_setup_config"]


class Pong(_Received):
    """The answer to a ping."""

    type: Literal["pong"]
    event_id: int


class UserMessage(_Received):
    """Typed text or keyed digits: a turn of the caller's."""

    type: Literal["user_message"]
    text: str | None = None
    source_medium: Literal["audio", "dtmf", "text", "image", "file"] = "text"


class MultimodalMessage(_Received):
    """Text with files."""

    type: Literal["multimodal_message"]
    text: UserMessage | None = None


class UserActivity(_Received):
    """The caller is there, though silent."""

    type: Literal["user_activity"]


class ContextualUpdate(_Received):
    """Something for the agent to know, not to answer."""

    type: Literal["contextual_update"]
    text: str
    context_id: str | None = None


class Feedback(_Received):
    """Praise or blame for a response."""

    type: Literal["feedback"]
    event_id: int
    score: Literal["like", "dislike"]


class ToolResult(_Received):
    """What a client tool returned. Should be a string; the Python SDK sends what it got."""

    type: Literal["client_tool_result"]
    tool_call_id: str
    result: JsonValue = None
    is_error: bool = False
    error_type: str | None = None


class McpApproval(_Received):
    """A decision about an MCP tool."""

    type: Literal["mcp_tool_approval_result"]
    tool_call_id: str
    is_approved: bool


TypedMessage = (
    Initiation
    | EnclaveSetup
    | Pong
    | UserMessage
    | MultimodalMessage
    | UserActivity
    | ContextualUpdate
    | Feedback
    | ToolResult
    | McpApproval
)
ClientMessage = UserAudio | TypedMessage

_ADAPTER: TypeAdapter[TypedMessage] = TypeAdapter(
    Annotated[TypedMessage, Field(discriminator="type")]
)


def parse(raw: bytes) -> tuple[ClientMessage, dict[str, Any]]:
    """Read one text frame; return the message and the JSON object it came as.

    Raises `InvalidMessageError` with a sentence for the client.
    """
    try:
        decoded = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidMessageError("The message is not JSON.") from error
    if not isinstance(decoded, dict):
        raise InvalidMessageError("The message is not a JSON object.")
    if "user_audio_chunk" in decoded:
        return UserAudio(_decode_audio(decoded["user_audio_chunk"])), decoded
    try:
        return _ADAPTER.validate_python(decoded), decoded
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidMessageError(f"{place or 'type'}: {first['msg']}") from error


def _decode_audio(value: object) -> bytes:
    if not isinstance(value, str) or not value:
        raise InvalidMessageError("user_audio_chunk: must be a non-empty base64 string.")
    try:
        return pybase64.b64decode(value, validate=True)
    except ValueError as error:
        raise InvalidMessageError("user_audio_chunk: is not base64.") from error
