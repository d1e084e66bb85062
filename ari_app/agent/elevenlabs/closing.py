"""Close codes and reasons of a conversation, as one small vocabulary. Pure.

The service closes with few codes and many words. The words are looked at first: a documented
error name (`override_error`) in the reason or in the last error message, then phrases that are
known from the field, then the code alone.

Source: `WebSocketCloseCode` and `ErrorType` in the SDK's contract (`elevenlabs/packages`,
agent.asyncapi.yaml), and the page on call queueing for 4300.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from ari_app.agent.interface import Closed, EndedBy

MAX_TEXT_LENGTH = 300


class CloseKind(StrEnum):
    """The kinds of end of a conversation, each a stable slug."""

    AGENT_ENDED = "agent_ended"
    """The agent ended it, as agents do."""
    MAX_DURATION = "max_duration"
    """The longest duration that the agent allows was reached."""
    LOCAL = "local"
    """We closed."""
    LOST = "lost"
    """The connection broke, with no goodbye."""
    CRASHED = "crashed"
    """The service failed inside."""
    UNAVAILABLE = "unavailable"
    """The service goes away, is overloaded, or failed on the way."""
    QUEUE_TIMEOUT = "queue_timeout"
    """No place came free in the queue."""
    LIMIT = "limit"
    """Too many conversations at once."""
    QUOTA = "quota"
    """The workspace's quota is used up."""
    UNAUTHORIZED = "unauthorized"
    """Key, signature or allow-list."""
    NOT_FOUND = "not_found"
    """No such agent."""
    MISCONFIGURED = "misconfigured"
    """The agent's own configuration is broken."""
    OVERRIDE_ERROR = "override_error"
    """An override that the agent's security settings do not allow."""
    MISSING_DYNAMIC_VARIABLE = "missing_dynamic_variable"
    """The agent's prompt needs a variable that we did not send."""
    INVALID_MESSAGE = "invalid_message"
    """Something that we sent was not understood."""
    SAFETY = "safety_violation"
    """Ended for what was said."""
    LLM_TIMEOUT = "llm_timeout"
    """The model took longer than 20 s."""
    LLM_ERROR = "llm_error"
    """The model failed."""
    SPEECH_ERROR = "speech_error"
    """Recognition, turn taking or voice failed."""
    TOOL_ERROR = "tool_error"
    """A tool on the server's side failed."""
    NO_INPUT = "no_input"
    """The service heard nothing from us for 60 s."""
    TOO_BIG = "too_big"
    """A message was larger than we take."""
    REJECTED = "rejected"
    """Refused for another reason."""


RETRYABLE = frozenset(
    {
        CloseKind.LOST,
        CloseKind.CRASHED,
        CloseKind.UNAVAILABLE,
        CloseKind.LIMIT,
        CloseKind.LLM_TIMEOUT,
        CloseKind.LLM_ERROR,
        CloseKind.SPEECH_ERROR,
    }
)

_ENDED_BY = {CloseKind.AGENT_ENDED: EndedBy.AGENT, CloseKind.MAX_DURATION: EndedBy.TIME}

_NAMES = {
    "max_duration_exceeded": CloseKind.MAX_DURATION,
    "safety_violation": CloseKind.SAFETY,
    "llm_timeout": CloseKind.LLM_TIMEOUT,
    "transport_receive_timeout": CloseKind.NO_INPUT,
    "asyncio_timeout": CloseKind.UNAVAILABLE,
    "http_exception": CloseKind.UNAVAILABLE,
    "redis_timeout_error": CloseKind.UNAVAILABLE,
    "llm_error": CloseKind.LLM_ERROR,
    "custom_llm_error": CloseKind.LLM_ERROR,
    "cascade_brain_error": CloseKind.LLM_ERROR,
    "asr_transcription_error": CloseKind.SPEECH_ERROR,
    "vad_error": CloseKind.SPEECH_ERROR,
    "turn_probability_error": CloseKind.SPEECH_ERROR,
    "tts_cascade_error": CloseKind.SPEECH_ERROR,
    "invalid_message": CloseKind.INVALID_MESSAGE,
    "value_error": CloseKind.INVALID_MESSAGE,
    "missing_fields": CloseKind.INVALID_MESSAGE,
    "telephony_agent_error": CloseKind.REJECTED,
    "mcp_tool_error": CloseKind.TOOL_ERROR,
    "mcp_https_error": CloseKind.TOOL_ERROR,
    "override_error": CloseKind.OVERRIDE_ERROR,
    "missing_dynamic_variable": CloseKind.MISSING_DYNAMIC_VARIABLE,
    "missing_dynamic_variable_transfer": CloseKind.MISSING_DYNAMIC_VARIABLE,
    "unknown_websocket_crash": CloseKind.CRASHED,
}

# As `termination_reason` has them, too. They come with 1000, but have come with 1011, which would
# have the agent replaced (elevenlabs-docs#519).
_ENDS = (
    ("exceeded maximum duration", CloseKind.MAX_DURATION),
    ("seconds of silence", CloseKind.AGENT_ENDED),
)

# The first that is found counts.
_PHRASES = (
    ("quota", CloseKind.QUOTA),
    ("misconfigured", CloseKind.MISCONFIGURED),
    ("too many concurrent", CloseKind.LIMIT),
    ("concurrency", CloseKind.LIMIT),
    ("dynamic variable", CloseKind.MISSING_DYNAMIC_VARIABLE),
    ("override", CloseKind.OVERRIDE_ERROR),
    ("unauthorized", CloseKind.UNAUTHORIZED),
    ("not authorized", CloseKind.UNAUTHORIZED),
    ("authentication", CloseKind.UNAUTHORIZED),
    ("authorization", CloseKind.UNAUTHORIZED),
    ("api key", CloseKind.UNAUTHORIZED),
    ("signature", CloseKind.UNAUTHORIZED),
    ("forbidden", CloseKind.UNAUTHORIZED),
    ("not found", CloseKind.NOT_FOUND),
    ("does not exist", CloseKind.NOT_FOUND),
)

_CODES = {
    1000: CloseKind.AGENT_ENDED,
    1001: CloseKind.UNAVAILABLE,
    1002: CloseKind.UNAVAILABLE,
    1003: CloseKind.INVALID_MESSAGE,
    1005: CloseKind.LOST,
    1006: CloseKind.LOST,
    1007: CloseKind.INVALID_MESSAGE,
    1008: CloseKind.REJECTED,
    1009: CloseKind.TOO_BIG,
    1011: CloseKind.CRASHED,
    1012: CloseKind.UNAVAILABLE,
    1013: CloseKind.UNAVAILABLE,
    1014: CloseKind.UNAVAILABLE,
    3008: CloseKind.LIMIT,
    4300: CloseKind.QUEUE_TIMEOUT,
}

KNOWN_CODES = frozenset(_CODES)
"""The close codes that are documented. A peer may send any other of 1000 to 4999."""

# With these codes nobody said anything, so that a hang-up announced before still counts.
_SILENT = frozenset({1000, 1001, 1005, 1006})


@dataclass(frozen=True, slots=True)
class ServiceError:
    """The last error message that the agent sent before the end."""

    code: int | None
    text: str


@dataclass(frozen=True, slots=True)
class AgentClose:
    """The end of a conversation.

    Attributes:
        code: The WebSocket close code; 1006 when the connection broke.
        reason_text: For people: what the service said, cut to 300 characters.
        retryable: A new conversation may succeed at once. The old one can never be resumed.
    """

    code: int
    reason_text: str
    kind: CloseKind
    retryable: bool

    def told(self, *, silent_seconds: float = 0.0) -> Closed:
        """Return the end as the port tells it: every close but two means that the agent was
        lost."""
        by = _ENDED_BY.get(self.kind, EndedBy.LOSS)
        return Closed(self.kind.value, by, self.retryable, self.code, silent_seconds)


def classify(
    code: int,
    reason: str = "",
    *,
    error: ServiceError | None = None,
    call_ending: bool = False,
    queue_timed_out: bool = False,
    local: bool = False,
) -> AgentClose:
    """Say what a close with `code` and `reason` means.

    `error` is the last error that the agent reported and did not recover from; `call_ending`
    that its `end_call` had succeeded; `queue_timed_out` that it had said so; `local` that we
    closed first.
    """
    said = [reason]
    if error is not None and (error.code in (None, code) or code in (1005, 1006)):
        said.append(error.text)
    text = "; ".join(part for part in said if part)
    if local:
        kind = CloseKind.LOCAL
    elif call_ending and code in _SILENT:
        kind = CloseKind.AGENT_ENDED
    elif queue_timed_out:
        kind = CloseKind.QUEUE_TIMEOUT
    else:
        kind = _kind(code, text.lower())
    return AgentClose(code, text[:MAX_TEXT_LENGTH], kind, kind in RETRYABLE)


def _kind(code: int, text: str) -> CloseKind:
    for word in re.findall(r"[a-z_]+", text):
        if word in _NAMES and (code != 1000 or word == "max_duration_exceeded"):
            return _NAMES[word]
    for phrase, kind in _ENDS:
        if phrase in text:
            return kind
    if code != 1000:
        for phrase, kind in _PHRASES:
            if phrase in text:
                return kind
    if code in _CODES:
        return _CODES[code]
    return CloseKind.REJECTED if code >= 3000 else CloseKind.LOST
