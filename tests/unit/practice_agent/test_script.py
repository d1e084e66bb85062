"""The script: which turn comes next."""

from __future__ import annotations

from typing import Literal

import pytest

from lab.practice_agent.dialogue import Dialogue, ToolCall, Turn
from lab.practice_agent.script import CallTool, EndCall, Say, Script


def script(*turns: Turn, **fields: object) -> Script:
    return Script(Dialogue.model_validate({"turns": turns, **fields}), {"system__agent_id": "a1"})


def test_greeting_with_variables_over_defaults() -> None:
    plain = script(first_message="Hi {{name}}, {{system__agent_id}}.", variables={"name": "you"})
    assert plain.greeting() == [Say("Hi you, a1.")]
    plain.set("name", "Jane")
    assert plain.greeting() == [Say("Hi Jane, a1.")]
    assert plain.greeting("Ho {{name}}") == [Say("Ho Jane")]
    assert plain.greeting("") == []


def test_a_turn_says_then_calls_then_ends() -> None:
    tool = ToolCall(name="set", parameters={"to": "{{name}}"})
    steps = script(Turn(say="a", tool=tool, end_call=True), variables={"name": "x"}).answer(1.0)
    assert steps == [
        Say("a"),
        CallTool(tool.model_copy(update={"parameters": {"to": "x"}})),
        EndCall(),
    ]
    assert script(Turn(end_call=True)).answer(None) == [EndCall()]


@pytest.mark.parametrize(
    ("after_last", "expected"),
    [
        ("repeat_last", [[Say("a")], [Say("b")], [Say("b")], [Say("b")]]),
        ("start_again", [[Say("a")], [Say("b")], [Say("a")], [Say("b")]]),
        ("end_call", [[Say("a")], [Say("b")], [EndCall()], [EndCall()]]),
        ("say_nothing", [[Say("a")], [Say("b")], [], []]),
    ],
)
def test_after_the_last_turn(
    after_last: Literal["repeat_last", "start_again", "end_call", "say_nothing"],
    expected: list[list[object]],
) -> None:
    walked = script(Turn(say="a"), Turn(say="b"), after_last=after_last)
    assert [walked.answer(1.0) for _ in range(4)] == expected


def test_without_turns_there_is_no_answer() -> None:
    assert script().answer(5.0) == []


def test_too_short_a_turn_is_asked_for_again() -> None:
    walked = script(Turn(say="long", when_heard_seconds=2), Turn(say="b"), when_too_short="What?")
    assert walked.answer(1.9) == [Say("What?")]
    assert walked.answer(2.0) == [Say("long")]
    assert walked.answer(0.1) == [Say("b")]


def test_text_is_never_too_short() -> None:
    assert script(Turn(say="long", when_heard_seconds=2)).answer(None) == [Say("long")]


def test_an_answer_can_be_taken_back() -> None:
    walked = script(Turn(say="a"), Turn(say="b"))
    walked.answer(1.0)
    walked.take_back()
    assert walked.answer(1.0) == [Say("a")]
    assert walked.answer(1.0) == [Say("b")]
