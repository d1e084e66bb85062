"""What a conversation leaves behind, for tests and for people who watch."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import JsonValue

from lab.practice_agent.dialogue import Variable

Speaker = Literal["agent", "caller", "note"]

MAX_ENTRIES = 1000
"""Bound of every list in a record; the oldest entries go first."""


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """One line of what was said or happened."""

    conversation_id: str
    agent_id: str
    at_s: float
    """Since the socket opened."""
    speaker: Speaker
    text: str


@dataclass(frozen=True, slots=True)
class AudioArrival:
    """One ``user_audio_chunk``."""

    at: float
    """When it arrived, as ``time.monotonic`` has it."""
    payload: bytes


@dataclass(slots=True)
class ToolUse:
    """A client tool that the agent asked for, and what came back."""

    tool_call_id: str
    name: str
    parameters: dict[str, JsonValue]
    asked_at: float
    answered_at: float | None = None
    result: JsonValue = None
    is_error: bool | None = None
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The answer to a ping. ``round_trip_s`` is None when no such ping is outstanding."""

    at: float
    event_id: int
    round_trip_s: float | None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The caller spoke over the agent."""

    at: float
    event_id: int
    heard: str
    """What the agent thinks was heard."""


@dataclass(frozen=True, slots=True)
class Closing:
    """How the socket ended."""

    code: int
    reason: str
    by: Literal["agent", "client", "lost"]


def _bounded() -> deque[Any]:
    return deque(maxlen=MAX_ENTRIES)


@dataclass(slots=True)
class ConversationRecord:
    """Everything that came in, and the main points of what went out.

    Times are seconds of ``time.monotonic`` in the server's process.
    """

    conversation_id: str
    agent_id: str
    opened_at: float
    authorization: Literal["public", "signed_url", "authorization_header"] = "public"
    query: dict[str, str] = field(default_factory=dict)
    subprotocol: str | None = None
    keep_audio_seconds: float = 0.0
    """How much user audio to keep, counted from the start; the sums go on."""

    initiation: dict[str, Any] | None = None
    """The client's first message as it came."""
    dynamic_variables: dict[str, Variable] = field(default_factory=dict)
    started_at: float | None = None
    """When the metadata left."""

    user_audio_chunks: int = 0
    user_audio_seconds: float = 0.0
    user_audio: list[AudioArrival] = field(default_factory=list)
    agent_audio_seconds: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)
    """How many messages of each type the agent sent."""

    tools: deque[ToolUse] = field(default_factory=_bounded)
    pongs: deque[PongReceived] = field(default_factory=_bounded)
    interruptions: deque[Interrupted] = field(default_factory=_bounded)
    transcript: deque[TranscriptLine] = field(default_factory=_bounded)
    messages: deque[dict[str, Any]] = field(default_factory=_bounded)
    """Every client message but audio and pongs, as it came."""
    error: str | None = None
    closing: Closing | None = None

    def add_audio(self, payload: bytes, seconds: float, now: float) -> None:
        """Count a chunk of user audio, and keep it while there is room."""
        if self.user_audio_seconds < self.keep_audio_seconds:
            self.user_audio.append(AudioArrival(now, payload))
        self.user_audio_chunks += 1
        self.user_audio_seconds += seconds

    def summary(self) -> dict[str, Any]:
        """Return what fits into JSON: no audio, no message bodies."""
        return {
            "conversation_id": self.conversation_id,
            "agent_id": self.agent_id,
            "authorization": self.authorization,
            "subprotocol": self.subprotocol,
            "dynamic_variables": self.dynamic_variables,
            "user_audio_seconds": round(self.user_audio_seconds, 3),
            "agent_audio_seconds": round(self.agent_audio_seconds, 3),
            "sent": dict(self.sent),
            "tools": [
                {"name": tool.name, "parameters": tool.parameters, "result": tool.result}
                for tool in self.tools
            ],
            "interruptions": len(self.interruptions),
            "transcript": [
                {"at_s": round(line.at_s, 3), "speaker": line.speaker, "text": line.text}
                for line in self.transcript
            ],
            "error": self.error,
            "close_code": self.closing.code if self.closing else None,
            "closed_by": self.closing.by if self.closing else None,
        }


Observer = Callable[[TranscriptLine], None]
"""Is told every line as it happens; must return at once."""
