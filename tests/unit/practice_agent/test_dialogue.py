"""Dialogues: the model, its errors and its variables."""

from __future__ import annotations

import pytest
from pydantic import JsonValue, ValidationError

from lab.practice_agent.dialogue import Dialogue, Silence, ToolCall, Turn, fill, fill_json


def test_a_turn_must_do_something() -> None:
    with pytest.raises(ValidationError, match="at least one of say, tool, end_call"):
        Turn()


@pytest.mark.parametrize(
    "turn", [Turn(say="Hi"), Turn(tool=ToolCall(name="hold")), Turn(end_call=True)]
)
def test_each_part_of_a_turn_is_enough(turn: Turn) -> None:
    assert Turn.model_validate(turn.model_dump()) == turn


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Dialogue.model_validate({"first_mesage": "Hi"})


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("Hello {{name}}.", "Hello Jane."),
        ("{{ name }}{{count}}", "Jane3"),
        ("{{nobody}} {name}", "{{nobody}} {name}"),
        ("", ""),
    ],
)
def test_fill(text: str, filled: str) -> None:
    assert fill(text, {"name": "Jane", "count": 3}) == filled


def test_fill_json_goes_into_lists_and_objects() -> None:
    value: JsonValue = {"a": ["{{x}}", 1, None, True], "{{x}}": {"b": "{{x}}!"}}
    assert fill_json(value, {"x": "y"}) == {"a": ["y", 1, None, True], "{{x}}": {"b": "y!"}}


def test_missing_variables_are_those_used_and_not_given() -> None:
    dialogue = Dialogue(
        first_message="{{a}} {{default}} {{given}} {{system__agent_id}}",
        turns=(
            Turn(
                tool=ToolCall(
                    name="t", parameters={"p": ["{{b}}", 4]}, say_on_success="{{tool_result}}"
                )
            ),
        ),
        when_silent=Silence(say="{{c}}"),
        variables={"default": 1, "unused": "{{d}}"},
    )
    assert dialogue.missing_variables({"given": "x"}) == ["a", "b", "c"]
    assert dialogue.missing_variables({"given": 0, "a": 1, "b": 2, "c": 3}) == []
