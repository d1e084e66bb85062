"""One example of every server message, with all fields, as the service writes it."""

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
    {"type": "asr_initiation_metadata", "asr_initiation_metadata_event": {"model": "x"}},
    {
        "type": "audio",
        "audio_event": {
            "audio_base_64": "AAEC/w==",
            "event_id": 3,
            "is_final": True,
            "alignment": {
                "chars": ["H", "i"],
                "char_start_times_ms": [0.0, 60.0],
                "char_durations_ms": [60.0, 80.0],
            },
        },
    },
    {
        "type": "user_transcript",
        "user_transcription_event": {"user_transcript": "Hello", "event_id": 4},
    },
    {
        "type": "tentative_user_transcript",
        "tentative_user_transcription_event": {"user_transcript": "Hel", "event_id": 4},
    },
    {
        "type": "agent_response",
        "agent_response_event": {
            "agent_response": "Hi, how can I help?",
            "event_id": 5,
            "response_id": "resp_1",
            "in_response_to_ids": ["m1"],
            "response_type": "voice",
            "attachments": [{"kind": "image"}],
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
    {
        "type": "agent_response_metadata",
        "agent_response_metadata_event": {"metadata": {"a": [1]}, "event_id": 5},
    },
    {
        "type": "agent_chat_response_part",
        "text_response_part": {
            "text": "Hi",
            "type": "start",
            "event_id": 5,
            "response_id": "resp_1",
        },
    },
    {
        "type": "agent_reasoning_response_part",
        "reasoning_response_part": {"text": "Hm", "type": "delta", "event_id": "evt_a"},
    },
    {"type": "interruption", "interruption_event": {"event_id": 5}},
    {"type": "ping", "ping_event": {"event_id": 9, "ping_ms": 41.0}},
    {"type": "vad_score", "vad_score_event": {"vad_score": 0.75}},
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
            "disable_interruptions": False,
            "response_timeout_secs": 20.0,
            "execution_mode": "immediate",
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
            "is_called": True,
            "is_blocked": False,
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
            "full_tool_result": "{}",
            "truncated": False,
        },
    },
    {
        "type": "mcp_tool_call",
        "mcp_tool_call": {
            "service_id": "s",
            "tool_call_id": "tc3",
            "tool_name": "t",
            "parameters": {},
            "state": "awaiting_approval",
            "approval_timeout_secs": 300.0,
            "result": [{"text": "x"}],
            "error_message": "no",
            "event_id": 3,
        },
    },
    {
        "type": "mcp_connection_status",
        "mcp_connection_status": {
            "integrations": [
                {
                    "integration_id": "i",
                    "integration_type": "mcp_server",
                    "is_connected": True,
                    "tool_count": 2,
                }
            ]
        },
    },
    {"type": "queue_status", "queue_status_event": {"status": "waiting"}},
    {
        "type": "context_usage",
        "context_usage_event": {
            "event_id": 2,
            "model": "m",
            "context_tokens": 10,
            "context_limit_tokens": 100,
        },
    },
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
            "debug_message": "d",
            "details": {"a": 1},
        },
    },
    {"type": "guardrail_triggered", "guardrail_triggered_event": {"guardrail_name": "g"}},
    {"type": "agent_typing", "agent_typing_event": {"typing": True}},
    {"type": "external_agent_connected", "external_agent_connected_event": {"name": "n"}},
    {"type": "external_agent_disconnected", "external_agent_disconnected_event": {}},
    {"type": "rich_content", "rich_content": {"cards": []}},
    {"type": "dtmf_request", "dtmf_request_event": {"digits": "1"}},
    {
        "type": "internal_turn_probability",
        "turn_probability_internal_event": {"turn_probability": 0.5},
    },
    {
        "type": "internal_tentative_agent_response",
        "tentative_agent_response_internal_event": {"tentative_agent_response": "x"},
    },
]

BY_TYPE = {sample["type"]: sample for sample in SAMPLES}
