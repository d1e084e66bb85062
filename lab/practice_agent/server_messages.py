"""The messages that an agent sends, built.

Source: ElevenLabs *Agent WebSocket* reference (AsyncAPI). Every event carries an integer
``event_id``, ``ping_ms`` is always present (null at first), ``alignment`` is left out.
"""

from __future__ import annotations

from typing import Any, Literal

import pybase64
from pydantic import JsonValue

from lab.practice_agent.formats import AudioFormat
from lab.practice_agent.profile import ErrorStyle

Message = dict[str, Any]


def metadata(conversation_id: str, agent_output: AudioFormat, user_input: AudioFormat) -> Message:
    """The first message of every conversation."""
    return {
        "type": "conversation_initiation_metadata",
        "conversation_initiation_metadata_event": {
            "conversation_id": conversation_id,
            "agent_output_audio_format": agent_output.value,
            "user_input_audio_format": user_input.value,
        },
    }


def ping(event_id: int, ping_ms: int | None) -> Message:
    """A ping; ``ping_ms`` is the last round trip."""
    return {"type": "ping", "ping_event": {"event_id": event_id, "ping_ms": ping_ms}}


def audio(payload: bytes, event_id: int, *, is_final: bool) -> Message:
    """A piece of agent speech."""
    return {
        "type": "audio",
        "audio_event": {
            "audio_base_64": pybase64.b64encode_as_string(payload),
            "event_id": event_id,
            "is_final": is_final,
        },
    }


def agent_response(text: str, event_id: int, response_id: str, *, spoken: bool) -> Message:
    """The text of a response."""
    return {
        "type": "agent_response",
        "agent_response_event": {
            "agent_response": text,
            "event_id": event_id,
            "response_id": response_id,
            "response_type": "voice" if spoken else "text",
        },
    }


def agent_response_correction(
    original: str, corrected: str, event_id: int, response_id: str
) -> Message:
    """What was heard of a response that was interrupted."""
    return {
        "type": "agent_response_correction",
        "agent_response_correction_event": {
            "original_agent_response": original,
            "corrected_agent_response": corrected,
            "event_id": event_id,
            "response_id": response_id,
        },
    }


def agent_response_complete(event_id: int) -> Message:
    """All of a response has been sent."""
    return {"type": "agent_response_complete", "agent_response_complete_event": _id(event_id)}


def interruption(event_id: int) -> Message:
    """Audio up to this event id is void."""
    return {"type": "interruption", "interruption_event": _id(event_id)}


def user_transcript(text: str, event_id: int) -> Message:
    """What the caller said."""
    event = {"user_transcript": text, "event_id": event_id}
    return {"type": "user_transcript", "user_transcription_event": event}


def tentative_user_transcript(text: str, event_id: int) -> Message:
    """What the caller seems to be saying."""
    event = {"user_transcript": text, "event_id": event_id}
    return {"type": "tentative_user_transcript", "tentative_user_transcription_event": event}


def vad_score(score: float) -> Message:
    """How likely it is that the caller speaks, 0 to 1."""
    return {"type": "vad_score", "vad_score_event": {"vad_score": round(score, 3)}}


def client_tool_call(
    name: str,
    tool_call_id: str,
    parameters: dict[str, JsonValue],
    event_id: int,
    *,
    expects_response: bool,
) -> Message:
    """Ask the client to run a tool."""
    return {
        "type": "client_tool_call",
        "client_tool_call": {
            "tool_name": name,
            "tool_call_id": tool_call_id,
            "parameters": parameters,
            "event_id": event_id,
            "expects_response": expects_response,
        },
    }


ToolType = Literal["client", "system"]


def agent_tool_request(
    name: str,
    tool_call_id: str,
    tool_type: ToolType,
    event_id: int,
    *,
    expects_response: bool,
    timeout_seconds: float,
) -> Message:
    """The agent is about to use a tool."""
    return {
        "type": "agent_tool_request",
        "agent_tool_request": {
            "tool_name": name,
            "tool_call_id": tool_call_id,
            "tool_type": tool_type,
            "event_id": event_id,
            "expects_response": expects_response,
            "disable_interruptions": False,
            "response_timeout_secs": timeout_seconds,
            "execution_mode": "immediate",
        },
    }


def agent_tool_response(
    name: str, tool_call_id: str, tool_type: ToolType, event_id: int, *, is_error: bool
) -> Message:
    """A tool has answered."""
    return {
        "type": "agent_tool_response",
        "agent_tool_response": {
            "tool_name": name,
            "tool_call_id": tool_call_id,
            "tool_type": tool_type,
            "is_error": is_error,
            "is_blocked": False,
            "is_called": True,
            "event_id": event_id,
            "status": "error" if is_error else "success",
        },
    }


def queue_status(status: Literal["waiting", "admitted", "timed_out"]) -> Message:
    """The wait for a free agent."""
    return {"type": "queue_status", "queue_status_event": {"status": status}}


def error(style: ErrorStyle, code: int, name: str, text: str) -> Message | None:
    """An error in one of the shapes that clients must know; None for the style ``none``."""
    match style:
        case "client_error":
            event = {"code": code, "error_name": name, "message": text}
            return {"type": "client_error", "error_event": event}
        case "error":
            event = {"code": code, "error_type": name, "message": text, "reason": name}
            return {"type": "error", "error_event": event}
        case "flat":
            return {"type": "error", "message": text}
        case "none":  # pragma: no branch
            return None


def _id(event_id: int) -> Message:
    return {"event_id": event_id}
