"""Every message that the agent sends has the fields of the published schema, and no others."""

from __future__ import annotations

from typing import Any

from lab.practice_agent import ClientEvent, Dialogue, Queue, ToolCall, Turn
from tests.unit.practice_agent.stage import Stage, profile

# Source: ElevenLabs, AsyncAPI of the agent's WebSocket. Type: payload key, fields, their types.
SCHEMA: dict[str, tuple[str, dict[str, type | tuple[type, ...]]]] = {
    "conversation_initiation_metadata": (
        "conversation_initiation_metadata_event",
        {
            "conversation_id": str,
            "agent_output_audio_format": str,
            "user_input_audio_format": str,
        },
    ),
    "audio": ("audio_event", {"audio_base_64": str, "event_id": int, "is_final": bool}),
    "ping": ("ping_event", {"event_id": int, "ping_ms": (int, type(None))}),
    "user_transcript": ("user_transcription_event", {"user_transcript": str, "event_id": int}),
    "tentative_user_transcript": (
        "tentative_user_transcription_event",
        {"user_transcript": str, "event_id": int},
    ),
    "agent_response": (
        "agent_response_event",
        {"agent_response": str, "event_id": int, "response_id": str, "response_type": str},
    ),
    "agent_response_correction": (
        "agent_response_correction_event",
        {
            "original_agent_response": str,
            "corrected_agent_response": str,
            "event_id": int,
            "response_id": str,
        },
    ),
    "agent_response_complete": ("agent_response_complete_event", {"event_id": int}),
    "interruption": ("interruption_event", {"event_id": int}),
    "vad_score": ("vad_score_event", {"vad_score": float}),
    "client_tool_call": (
        "client_tool_call",
        {
            "tool_name": str,
            "tool_call_id": str,
            "parameters": dict,
            "event_id": int,
            "expects_response": bool,
        },
    ),
    "agent_tool_request": (
        "agent_tool_request",
        {
            "tool_name": str,
            "tool_call_id": str,
            "tool_type": str,
            "event_id": int,
            "expects_response": bool,
            "disable_interruptions": bool,
            "response_timeout_secs": float,
            "execution_mode": str,
        },
    ),
    "agent_tool_response": (
        "agent_tool_response",
        {
            "tool_name": str,
            "tool_call_id": str,
            "tool_type": str,
            "is_error": bool,
            "is_blocked": bool,
            "is_called": bool,
            "event_id": int,
            "status": str,
        },
    ),
    "queue_status": ("queue_status_event", {"status": str}),
    "client_error": ("error_event", {"code": int, "error_name": str, "message": str}),
}


def a_full_conversation() -> list[dict[str, Any]]:
    """Make the agent send every type of message once or more."""
    tool = ToolCall(name="hold", say_on_success="Thank you")
    turns = (Turn(say="One moment", tool=tool), Turn(say="Good bye", end_call=True))
    stage = Stage(
        profile(
            dialogue=Dialogue(first_message="Hello " * 10, turns=turns),
            queue=Queue(seconds=2),
            client_events=frozenset(ClientEvent),
        )
    )
    stage.hush(3)
    stage.say()
    (call,) = stage.all("client_tool_call")
    stage.send({"type": "client_tool_result", "tool_call_id": call["tool_call_id"]})
    stage.hush(5)
    stage.say()
    stage.run(1)
    assert stage.close_code == 1000
    broken = Stage(profile())
    broken.send("garbage")
    return [message for _, message in stage.sent + broken.sent]


def test_every_message_has_the_fields_of_the_schema() -> None:
    messages = a_full_conversation()
    assert {message["type"] for message in messages} == SCHEMA.keys()
    for message in messages:
        key, fields = SCHEMA[message["type"]]
        assert message.keys() == {"type", key}
        assert message[key].keys() == fields.keys()
        for name, kind in fields.items():
            assert isinstance(message[key][name], kind), (message, name)
