"""Reading the client's messages."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.practice_agent.client_messages import (
    ContextualUpdate,
    EnclaveSetup,
    Feedback,
    Initiation,
    InvalidMessageError,
    McpApproval,
    MultimodalMessage,
    Pong,
    ToolResult,
    UserActivity,
    UserAudio,
    UserMessage,
    parse,
)

GOOD: list[tuple[dict[str, Any], type]] = [
    ({"type": "pong", "event_id": 17}, Pong),
    ({"type": "user_message", "text": "1234#", "source_medium": "dtmf", "id": "m1"}, UserMessage),
    ({"type": "user_activity"}, UserActivity),
    ({"type": "contextual_update", "text": "On hold", "context_id": "c"}, ContextualUpdate),
    ({"type": "feedback", "event_id": 5, "score": "like"}, Feedback),
    ({"type": "client_tool_result", "tool_call_id": "t", "result": "ok"}, ToolResult),
    ({"type": "client_tool_result", "tool_call_id": "t", "result": {"a": 1}}, ToolResult),
    ({"type": "mcp_tool_approval_result", "tool_call_id": "t", "is_approved": True}, McpApproval),
    (
        {"type": "multimodal_message", "text": {"type": "user_message", "text": "x"}},
        MultimodalMessage,
    ),
    ({"type": "enclave_setup_config", "agent_config_dict": None}, EnclaveSetup),
]


@pytest.mark.parametrize(("sent", "model"), GOOD)
def test_good_messages(sent: dict[str, Any], model: type) -> None:
    message, as_sent = parse(orjson.dumps(sent))
    assert type(message) is model
    assert as_sent == sent


def test_initiation_as_the_python_sdk_sends_it() -> None:
    message, _ = parse(
        orjson.dumps(
            {
                "type": "conversation_initiation_client_data",
                "custom_llm_extra_body": {},
                "conversation_config_override": {
                    "agent": {"first_message": "Hi", "language": "en"},
                    "conversation": {"max_duration_seconds": 60},
                    "text_only": True,
                },
                "dynamic_variables": {"name": "Jane", "tier": 2, "vip": True, "score": 0.5},
                "source_info": {"source": "python_sdk", "version": "2.78.0"},
            }
        )
    )
    assert isinstance(message, Initiation)
    assert message.dynamic_variables == {"name": "Jane", "tier": 2, "vip": True, "score": 0.5}
    assert message.conversation_config_override.agent.first_message == "Hi"
    assert message.conversation_config_override.conversation.max_duration_seconds == 60
    assert message.conversation_config_override.text_only


def test_audio() -> None:
    message, _ = parse(b'{"user_audio_chunk":"AAEC"}')
    assert message == UserAudio(b"\x00\x01\x02")


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"{nonsense", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"{}", "type: Unable to extract tag"),
        (b'{"type":"interrupt"}', "type: Input tag 'interrupt'"),
        (b'{"type":"pong"}', "pong.event_id: Field required"),
        (b'{"type":"pong","event_id":"1"}', "pong.event_id: Input should be a valid integer"),
        (b'{"type":"user_message","source_medium":"smell"}', "user_message.source_medium"),
        (b'{"user_audio_chunk":""}', "non-empty base64"),
        (b'{"user_audio_chunk":7}', "non-empty base64"),
        (b'{"user_audio_chunk":"!!!!"}', "is not base64"),
        (
            b'{"type":"conversation_initiation_client_data","dynamic_variables":{"a":[1]}}',
            "dynamic_variables.a",
        ),
    ],
)
def test_bad_messages(raw: bytes, sentence: str) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        parse(raw)
    assert sentence in str(caught.value)


@given(raw=st.binary() | st.text().map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        parse(raw)
    except InvalidMessageError as error:
        assert str(error)
