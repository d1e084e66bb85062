"""The messages that we send to an agent over the Agents WebSocket.

Field names are the wire's. `None` means that the field is left out. Unknown fields are refused,
because here a slip would be our own.

Source: https://elevenlabs.io/docs/eleven-agents/api-reference/eleven-agents/websocket
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictStr,
)

RESERVED_PREFIX = "system__"
"""Names of dynamic variables that begin so belong to ElevenLabs."""


def _no_integer(value: object) -> object:
    # Otherwise an integer above 64 bits would quietly become a float.
    if isinstance(value, int):
        raise ValueError("an integer, not a float")
    return value


DynamicValue = (
    StrictStr
    | StrictBool
    | Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
    | Annotated[float, BeforeValidator(_no_integer), Field(strict=True, allow_inf_nan=False)]
)

Source = Literal[
    "unknown", "android_sdk", "node_js_sdk", "react_native_sdk", "react_sdk", "js_sdk",
    "python_sdk", "widget", "sip_trunk", "twilio", "exotel", "genesys", "avaya", "audiocodes",
    "swift_sdk", "whatsapp", "twilio_sms", "flutter_sdk", "zendesk_integration",
    "slack_integration", "telegram_integration", "intercom_integration",
    "freshdesk_integration", "salesforce_integration", "template_preview",
    "genesys_bot_connector", "subagent_tool",
]  # fmt: skip

SourceMedium = Literal["audio", "dtmf", "text", "image", "file"]

ToolErrorType = Literal[
    "user_rejected",
    "external_server",
    "external_client",
    "customer_auth",
    "client_timeout",
    "unknown",
]

ClientEventName = Literal[
    "conversation_initiation_metadata", "asr_initiation_metadata", "ping", "audio",
    "interruption", "user_transcript", "tentative_user_transcript", "agent_response",
    "agent_response_correction", "client_tool_call", "mcp_tool_call", "mcp_connection_status",
    "agent_tool_request", "agent_tool_response", "agent_tool_response_full_payload",
    "agent_response_metadata", "vad_score", "agent_chat_response_part", "client_error",
    "guardrail_triggered", "dtmf_request", "agent_response_complete", "context_usage",
    "internal_turn_probability", "internal_tentative_agent_response",
]  # fmt: skip


class _Part(BaseModel):
    # Inputs may hold a caller's name or number: they stay out of error texts.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ClientMessage(_Part):
    """The root of all messages that the client sends."""


class PromptOverride(_Part):
    """`agent.prompt`: the system prompt and what stands beside it."""

    prompt: str | None = None
    llm: str | None = None
    tool_ids: tuple[str, ...] | None = None
    native_mcp_server_ids: tuple[str, ...] | None = None
    knowledge_base: tuple[dict[str, JsonValue], ...] | None = None


class AgentOverride(_Part):
    """`agent`: what it says first, in which language, by which prompt."""

    first_message: str | None = None
    language: str | None = None
    max_conversation_duration_message: str | None = None
    prompt: PromptOverride | None = None


class AsrOverride(_Part):
    """`asr`: words that the recogniser should expect."""

    keywords: tuple[str, ...] | None = None


class SoftTimeoutOverride(_Part):
    """`turn.soft_timeout_config`: what is said while the model thinks."""

    message: str | None = None
    additional_soft_timeout_messages: tuple[str, ...] | None = None


class TurnOverride(_Part):
    """`turn`: turn taking."""

    soft_timeout_config: SoftTimeoutOverride | None = None


class TtsOverride(_Part):
    """`tts`: the voice."""

    voice_id: str | None = None
    model_id: str | None = None
    stability: float | None = Field(default=None, allow_inf_nan=False)
    speed: float | None = Field(default=None, allow_inf_nan=False)
    similarity_boost: float | None = Field(default=None, allow_inf_nan=False)


class ConversationOverride(_Part):
    """`conversation`: length, text only, and which events the server sends."""

    text_only: bool | None = None
    max_duration_seconds: int | None = Field(default=None, ge=1, lt=2**31)
    client_events: tuple[ClientEventName, ...] | None = None


class ConfigOverride(_Part):
    """`conversation_config_override`, as far as it is published.

    Each overridden field must be allowed in the agent's security settings; otherwise the server
    closes with 1008. Audio formats cannot be overridden: they belong to the agent.
    """

    agent: AgentOverride | None = None
    asr: AsrOverride | None = None
    turn: TurnOverride | None = None
    tts: TtsOverride | None = None
    conversation: ConversationOverride | None = None


class ToolMockConfig(_Part):
    """`tool_mock_config`: which tools answer from a mock, for tests of an agent."""

    mocking_strategy: Literal["none", "all", "selected"] | None = None
    mocked_tool_names: tuple[str, ...] | None = None
    fallback_strategy: Literal["raise_error", "call_real_tool"] | None = None


class SourceInfo(_Part):
    """Which program speaks. `version` has 50 characters at most."""

    source: Source = "unknown"
    version: str | None = Field(default=None, max_length=50)


def _not_reserved(name: str) -> str:
    if name.startswith(RESERVED_PREFIX):
        raise ValueError(
            f"dynamic variables may not begin with {RESERVED_PREFIX!r}, which ElevenLabs keeps "
            "for itself"
        )
    return name


def _as_sent(value: object) -> object:
    if isinstance(value, ConfigOverride):
        return value.model_dump(mode="json", exclude_none=True)
    return value


class Initiation(ClientMessage):
    """`conversation_initiation_client_data`: the first message of a conversation.

    `conversation_config_override` goes out as it is, for the service may know more of it than
    `ConfigOverride`, which may be given for it.
    """

    type: Literal["conversation_initiation_client_data"] = "conversation_initiation_client_data"
    conversation_config_override: Annotated[
        dict[str, JsonValue] | None, BeforeValidator(_as_sent)
    ] = None
    custom_llm_extra_body: dict[str, JsonValue] | None = None
    dynamic_variables: dict[Annotated[str, AfterValidator(_not_reserved)], DynamicValue] | None = (
        None
    )
    user_id: str | None = None
    branch_id: str | None = None
    environment: str | None = None
    starting_workflow_node_id: str | None = None
    procedure_ids: tuple[str, ...] | None = None
    start_procedure_ids: tuple[str, ...] | None = Field(default=None, max_length=5)
    tool_mock_config: ToolMockConfig | None = None
    source_info: SourceInfo | None = None


class Pong(ClientMessage):
    """The answer to a `ping`, with its id."""

    type: Literal["pong"] = "pong"
    event_id: int = Field(ge=-(2**63), lt=2**63)


class UserMessage(ClientMessage):
    """Text in place of speech. `source_medium="dtmf"` is the place for the caller's keys."""

    type: Literal["user_message"] = "user_message"
    text: str | None = None
    source_medium: SourceMedium | None = None
    id: str | None = None
    user_identifier: str | None = None


class UserActivity(ClientMessage):
    """The user is there: the turn's time-out begins anew."""

    type: Literal["user_activity"] = "user_activity"


class ContextualUpdate(ClientMessage):
    """Something for the model to know, not to answer. The same `context_id` replaces."""

    type: Literal["contextual_update"] = "contextual_update"
    text: str
    context_id: str | None = None


class ToolResult(ClientMessage):
    """`client_tool_result`: what a client tool came to. `result` is text on the wire."""

    type: Literal["client_tool_result"] = "client_tool_result"
    tool_call_id: str
    result: str
    is_error: bool = False
    error_type: ToolErrorType | None = None
