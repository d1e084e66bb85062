"""One example of every server message that we act on, as the service writes it."""

from __future__ import annotations

from typing import Any

SAMPLES: list[dict[str, Any]] = [
    {
        "type": "conversation_initiation_metadata",
        "conversation_initiation_metadata_event": {
            "conversation_id": "conv_01",
            "agent_output_audio_format": "pcm_24000",
            "user_input_audio_format": "ulaw_8000",
        },
    },
    {
        "type": "audio",
        "audio_event": {
            "audio_base_64": "AAEC/w==",
            "event_id": 3,
            "is_final": True,
        },
    },
    {
        "type": "user_transcript",
        "user_transcription_event": {"user_transcript": "Hello", "event_id": 4},
    },
    {
        "type": "agent_response",
        "agent_response_event": {
            "agent_response": "Hi, how can I help?",
            "event_id": 5,
            "response_id": "resp_1",
        },
    },
    {
        "type": "agent_response_correction",
        "agent_response_correction_event": {
            "original_agent_response": "A long text",
            "corrected_agent_response": "A long",
            "event_id": 5,
            "response_id": "resp_1",
        },
    },
    {"type": "agent_response_complete", "agent_response_complete_event": {"event_id": 5}},
    {"type": "interruption", "interruption_event": {"event_id": 5}},
    {"type": "ping", "ping_event": {"event_id": 9, "ping_ms": 41.0}},
    {
        "type": "client_tool_call",
        "client_tool_call": {
            "tool_name": "transfer_call",
            "tool_call_id": "tc1",
            "parameters": {"to": "200"},
            "event_id": 6,
            "expects_response": True,
        },
    },
    {
        "type": "agent_tool_request",
        "agent_tool_request": {
            "tool_name": "lookup",
            "tool_call_id": "tc2",
            "tool_type": "webhook",
            "event_id": 6,
            "expects_response": True,
            "response_timeout_secs": 20.0,
        },
    },
    {
        "type": "agent_tool_response",
        "agent_tool_response": {
            "tool_name": "end_call",
            "tool_call_id": "end_1",
            "tool_type": "system",
            "is_error": False,
            "event_id": 9,
            "status": "success",
        },
    },
    {
        "type": "agent_tool_response_full_payload",
        "agent_tool_response_full_payload": {
            "tool_name": "lookup",
            "tool_call_id": "tc2",
            "tool_type": "webhook",
            "is_error": True,
            "event_id": 9,
            "status": "error",
        },
    },
    {"type": "queue_status", "queue_status_event": {"status": "waiting"}},
    {
        "type": "client_error",
        "error_event": {"code": 1002, "error_name": "llm_timeout", "message": "too slow"},
    },
    {
        "type": "error",
        "error_event": {
            "code": 1008,
            "message": "no",
            "error_type": "override_error",
            "reason": "first_message",
            "details": {"a": 1},
        },
    },
]

BY_TYPE = {sample["type"]: sample for sample in SAMPLES}
