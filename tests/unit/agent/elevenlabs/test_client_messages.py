from __future__ import annotations

import base64
import json
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue, ValidationError

from ari_app.agent.elevenlabs import client_messages as m
from ari_app.agent.elevenlabs.codec import encode, encode_audio
from tests.unit.agent.elevenlabs.client_schema import CLIENT_MESSAGE

VALIDATOR = jsonschema.Draft202012Validator(CLIENT_MESSAGE)

text = st.text(max_size=20)
maybe_text = st.none() | text
texts = st.none() | st.lists(text, max_size=3).map(tuple)
number = st.none() | st.floats(allow_nan=False, allow_infinity=False)
int64 = st.integers(-(2**63), 2**63 - 1)
free = st.none() | st.dictionaries(
    text,
    st.recursive(
        st.none() | st.booleans() | int64 | st.floats(allow_nan=False, allow_infinity=False) | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
frees = st.none() | st.lists(free.map(lambda value: value or {}), max_size=2).map(tuple)


# By the type of a field, and by its name where the type does not say all.
TYPES: dict[Any, st.SearchStrategy[Any]] = {
    str: text,
    str | None: maybe_text,
    float | None: number,
    tuple[str, ...] | None: texts,
    dict[str, JsonValue] | None: free,
    tuple[dict[str, JsonValue], ...] | None: frees,
}
NAMES: dict[str, st.SearchStrategy[Any]] = {
    "event_id": int64,
    "version": st.none() | st.text(max_size=50),
    "max_duration_seconds": st.none() | st.integers(1, 2**31 - 1),
    "conversation_config_override": st.deferred(lambda: st.none() | some(m.ConfigOverride)),
    "dynamic_variables": st.none()
    | st.dictionaries(
        text,
        text | st.booleans() | int64 | st.floats(allow_nan=False, allow_infinity=False),
        max_size=4,
    ),
}


def some(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Messages, or parts of one, with any of their fields."""
    return st.builds(
        model,
        **{
            name: NAMES[name] if name in NAMES else of(field.annotation)
            for name, field in model.model_fields.items()
        },
    )


def of(kind: Any) -> st.SearchStrategy[Any]:
    known = TYPES.get(kind)
    if known is not None:
        return known
    parts = [part for part in get_args(kind) if isinstance(part, type(BaseModel))]
    return st.none() | some(*parts) if parts else st.from_type(kind)


client_message: st.SearchStrategy[m.ClientMessage] = st.one_of(
    *map(some, m.ClientMessage.__subclasses__())
)


@settings(max_examples=400)
@given(client_message)
def test_every_message_fits_the_contract_and_survives_the_wire(message: m.ClientMessage) -> None:
    data = encode(message)
    VALIDATOR.validate(json.loads(data))
    assert type(message).model_validate_json(data) == message


@given(st.binary(max_size=4000))
def test_an_audio_message_holds_the_sound_as_base64(data: bytes) -> None:
    message = json.loads(encode_audio(data))
    VALIDATOR.validate(message)
    assert message == {"user_audio_chunk": base64.b64encode(data).decode()}


def test_the_example_of_the_documentation_is_spelled_the_same() -> None:
    example = {
        "type": "conversation_initiation_client_data",
        "conversation_config_override": {
            "agent": {
                "first_message": "Hello, Jane.",
                "language": "en",
                "prompt": {"prompt": "You are…", "llm": "gemini-2.5-flash", "tool_ids": []},
            },
            "asr": {"keywords": ["Acme"]},
            "turn": {"soft_timeout_config": {"message": "One moment…"}},
            "tts": {"voice_id": "v", "stability": 0.5},
            "conversation": {"text_only": False, "max_duration_seconds": 600},
        },
        "custom_llm_extra_body": {"temperature": 0.3, "stop": None},
        "dynamic_variables": {"caller_name": "Jane", "tier": 2, "vip": True, "score": 1.5},
        "user_id": "crm-42",
        "source_info": {"source": "sip_trunk", "version": "1.0"},
    }
    VALIDATOR.validate(example)
    assert json.loads(encode(m.Initiation.model_validate(example))) == example


def test_dynamic_variables_keep_their_types() -> None:
    values = {"text": "1", "whole": 1, "part": 1.0, "flag": True}
    sent = json.loads(encode(m.Initiation.model_validate({"dynamic_variables": values})))
    assert {name: type(value) for name, value in sent["dynamic_variables"].items()} == {
        "text": str,
        "whole": int,
        "part": float,
        "flag": bool,
    }


def test_a_reserved_dynamic_variable_is_refused_by_name_without_its_value() -> None:
    with pytest.raises(ValidationError) as caught:
        m.Initiation(dynamic_variables={"ok": 1, "system__caller_id": "+493023125001"})
    assert "system__caller_id" in str(caught.value)
    assert "ElevenLabs keeps for itself" in str(caught.value)
    assert "+493023125001" not in str(caught.value)


@pytest.mark.parametrize("value", [None, [], {}, float("nan"), float("inf"), 2**63, b"x"])
def test_a_dynamic_variable_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        m.Initiation(dynamic_variables={"name": value})


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (m.Initiation, {"dynamic_variable": {}}),
        (m.SourceInfo, {"source": "telephone"}),
        (m.SourceInfo, {"version": "x" * 51}),
        (m.UserMessage, {"text": "5", "source_medium": "keypad"}),
        (m.ToolResult, {"tool_call_id": "t", "result": {"not": "text"}}),
    ],
)
def test_what_the_contract_does_not_allow_is_refused(model: type[Any], fields: Any) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(fields)


@pytest.mark.parametrize(
    "message",
    [
        m.Initiation(custom_llm_extra_body={"big": 2**70}),
        m.UserMessage(text="half a pair: \ud800"),
    ],
)
def test_what_json_cannot_carry_is_a_value_error(message: m.ClientMessage) -> None:
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        encode(message)
