"""The service's contract for what a client may send, as a JSON Schema.

Written from the published description of the Agents WebSocket, not from our models, so that the
two check each other.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
STRINGS: Schema = {"type": "array", "items": STRING}
NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
ANY_OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": ANY_OBJECT}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def closed(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def message(kind: str, required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    return closed(("type", *required), type={"const": kind}, **properties)


SOURCES = one_of(
    "unknown",
    "android_sdk",
    "node_js_sdk",
    "react_native_sdk",
    "react_sdk",
    "js_sdk",
    "python_sdk",
    "widget",
    "sip_trunk",
    "twilio",
    "exotel",
    "genesys",
    "avaya",
    "audiocodes",
    "swift_sdk",
    "whatsapp",
    "twilio_sms",
    "flutter_sdk",
    "zendesk_integration",
    "slack_integration",
    "telegram_integration",
    "intercom_integration",
    "freshdesk_integration",
    "salesforce_integration",
    "template_preview",
    "genesys_bot_connector",
    "subagent_tool",
)

OVERRIDE = closed(
    agent=closed(
        first_message=STRING,
        language=STRING,
        max_conversation_duration_message=STRING,
        prompt=closed(
            prompt=STRING,
            llm=STRING,
            tool_ids=STRINGS,
            native_mcp_server_ids=STRINGS,
            knowledge_base=OBJECTS,
        ),
    ),
    asr=closed(keywords=STRINGS),
    turn=closed(
        soft_timeout_config=closed(message=STRING, additional_soft_timeout_messages=STRINGS)
    ),
    tts=closed(
        voice_id=STRING,
        model_id=STRING,
        stability=NUMBER,
        speed=NUMBER,
        similarity_boost=NUMBER,
    ),
    conversation=closed(text_only=BOOLEAN, max_duration_seconds=INTEGER, client_events=STRINGS),
)

USER_MESSAGE = message(
    "user_message",
    text=STRING,
    source_medium=one_of("audio", "dtmf", "text", "image", "file"),
    id=STRING,
    user_identifier=STRING,
)

CLIENT_MESSAGE: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "oneOf": [
        message(
            "conversation_initiation_client_data",
            conversation_config_override=OVERRIDE,
            custom_llm_extra_body=ANY_OBJECT,
            dynamic_variables={
                "type": "object",
                "propertyNames": {"not": {"pattern": "^system__"}},
                "additionalProperties": {"type": ["string", "number", "integer", "boolean"]},
            },
            user_id=STRING,
            branch_id=STRING,
            environment=STRING,
            starting_workflow_node_id=STRING,
            procedure_ids=STRINGS,
            start_procedure_ids={**STRINGS, "maxItems": 5},
            tool_mock_config=closed(
                mocking_strategy=one_of("none", "all", "selected"),
                mocked_tool_names=STRINGS,
                fallback_strategy=one_of("raise_error", "call_real_tool"),
            ),
            source_info=closed(source=SOURCES, version={"type": "string", "maxLength": 50}),
        ),
        message(
            "enclave_setup_config",
            agent_config_dict=ANY_OBJECT,
            override_agent_config_list=OBJECTS,
            tools_config_list=OBJECTS,
            post_call_transcription_webhook_url=STRING,
            post_call_audio_webhook_url=STRING,
            post_call_transcription_webhook=ANY_OBJECT,
            post_call_audio_webhook=ANY_OBJECT,
            prompt_knowledge_base=STRINGS,
            bedrock_inference_profile=STRING,
        ),
        closed(
            ("user_audio_chunk",),
            user_audio_chunk={"type": "string", "pattern": "^[A-Za-z0-9+/]*={0,2}$"},
        ),
        message("pong", ("event_id",), event_id=INTEGER),
        USER_MESSAGE,
        message("user_activity"),
        message("contextual_update", ("text",), text=STRING, context_id=STRING),
        message(
            "feedback",
            ("event_id", "score"),
            event_id=INTEGER,
            score={"enum": ["like", "dislike", None]},
        ),
        message(
            "client_tool_result",
            ("tool_call_id", "result", "is_error"),
            tool_call_id=STRING,
            result=STRING,
            is_error=BOOLEAN,
            error_type=one_of(
                "user_rejected",
                "external_server",
                "external_client",
                "customer_auth",
                "client_timeout",
                "unknown",
            ),
        ),
        message(
            "mcp_tool_approval_result",
            ("tool_call_id", "is_approved"),
            tool_call_id=STRING,
            is_approved=BOOLEAN,
        ),
        message(
            "multimodal_message",
            text=USER_MESSAGE,
            files={
                "type": "array",
                "minItems": 1,
                "maxItems": 5,
                "items": message("file_input", ("file_id",), file_id=STRING),
            },
        ),
    ],
}
