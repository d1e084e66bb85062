"""Client tools: the call, the wait, the result."""

from __future__ import annotations

from typing import Any

import pytest

from lab.practice_agent import AgentProfile, Dialogue, ToolCall, Turn
from tests.unit.practice_agent.stage import Stage, profile


def agent(*, say: str = "One moment", end_call: bool = False, **tool: Any) -> AgentProfile:
    call = ToolCall.model_validate(
        {
            "name": "transfer_call",
            "parameters": {"to": "200"},
            "say_on_success": "Done {{tool_result}}",
            "say_on_error": "Sorry",
            **tool,
        }
    )
    turns = (Turn(say=say, tool=call, end_call=end_call), Turn(say="Next"))
    return profile(dialogue=Dialogue(turns=turns))


def call_of(stage: Stage) -> dict[str, Any]:
    (call,) = stage.all("client_tool_call")
    return call


def answer(stage: Stage, **fields: Any) -> None:
    stage.send(
        {
            "type": "client_tool_result",
            "tool_call_id": call_of(stage)["tool_call_id"],
            "result": "ok",
            **fields,
        }
    )
    stage.run(0)


def test_a_tool_is_called_after_the_words_before_it() -> None:
    stage = Stage(agent())
    stage.say()
    assert stage.types()[-3:] == [
        "agent_response_complete",
        "agent_tool_request",
        "client_tool_call",
    ]
    assert call_of(stage) == {
        "tool_name": "transfer_call",
        "tool_call_id": "transfer_call_conv_1_1",
        "parameters": {"to": "200"},
        "event_id": 1,
        "expects_response": True,
    }
    request = stage.all("agent_tool_request")[0]
    assert request["tool_call_id"] == call_of(stage)["tool_call_id"]
    assert request["tool_type"] == "client"


def test_success() -> None:
    stage = Stage(agent())
    stage.say()
    answer(stage)
    assert stage.said == ["One moment", "Done ok"]
    response = stage.all("agent_tool_response")[0]
    assert (response["status"], response["is_error"]) == ("success", False)
    (use,) = stage.record.tools
    assert (use.result, use.is_error, use.timed_out) == ("ok", False, False)
    assert use.answered_at is not None


def test_an_error_is_answered_instead_of_the_rest() -> None:
    stage = Stage(agent(end_call=True))
    stage.say()
    answer(stage, is_error=True, result="busy", error_type="unknown")
    stage.run(5)
    assert stage.said == ["One moment", "Sorry"]
    assert stage.all("agent_tool_response")[0]["status"] == "error"
    assert stage.ending is None


def test_success_goes_on_with_the_rest() -> None:
    stage = Stage(agent(end_call=True))
    stage.say()
    answer(stage)
    stage.run(5)
    assert stage.said == ["One moment", "Done ok"]
    assert stage.close_code == 1000


def test_nobody_answers() -> None:
    stage = Stage(agent(timeout_seconds=3))
    stage.say()
    stage.run(2.7)
    assert stage.said == ["One moment"]
    stage.run(0.2)
    assert stage.said == ["One moment", "Sorry"]
    assert stage.record.tools[0].timed_out
    answer(stage)
    assert stage.said == ["One moment", "Sorry"]
    assert stage.record.tools[0].result is None


def test_a_result_that_nobody_waits_for() -> None:
    stage = Stage(agent())
    stage.send({"type": "client_tool_result", "tool_call_id": "x", "result": "?"})
    stage.say()
    stage.send({"type": "client_tool_result", "tool_call_id": "x", "result": "?"})
    assert stage.record.tools[0].answered_at is None
    answer(stage)
    assert stage.said == ["One moment", "Done ok"]


@pytest.mark.parametrize(("say", "said"), [("Sent", ["One moment", "Sent"]), ("", ["One moment"])])
def test_a_tool_without_a_response_is_not_waited_for(say: str, said: list[str]) -> None:
    stage = Stage(agent(expects_response=False, say_on_success=say))
    stage.say()
    stage.run(5)
    assert stage.said == said
    assert "agent_tool_response" not in stage.types()


def test_a_turn_can_be_a_tool_alone() -> None:
    stage = Stage(agent(say="", say_on_success=""))
    stage.say()
    answer(stage)
    stage.run(5)
    assert stage.said == []


def test_a_caller_who_speaks_meanwhile_is_answered_afterwards() -> None:
    stage = Stage(agent())
    stage.say()
    stage.hush(2)
    stage.say()
    assert stage.said == ["One moment"]
    answer(stage)
    assert stage.said == ["One moment", "Next"]


def test_the_agent_does_not_speak_into_the_callers_words() -> None:
    stage = Stage(agent())
    stage.say()
    stage.hush(2)
    stage.speak(1)
    answer(stage)
    assert stage.said == ["One moment"]
    stage.hush(0.8)
    assert stage.said == ["One moment", "Next"]


def test_an_interrupted_announcement_does_not_stop_the_tool() -> None:
    stage = Stage(agent(say=" ".join(["word"] * 20), end_call=True))
    stage.say()
    stage.hush(1.2)
    assert call_of(stage)
    stage.say()
    assert len(stage.all("interruption")) == 1
    answer(stage)
    stage.run(5)
    assert stage.said[1:] == ["Next"]
    assert stage.ending is None


def test_only_what_still_plays_is_corrected() -> None:
    stage = Stage(agent())
    stage.say()
    answer(stage)
    # "One moment" plays for a second, "Done ok" for the second after it.
    stage.hush(1.2)
    stage.speak(0.2)
    corrections = stage.all("agent_response_correction")
    assert [body["original_agent_response"] for body in corrections] == ["Done ok"]
