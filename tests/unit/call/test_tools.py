from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.plan import CallPolicy
from ari_app.call.states import State
from ari_app.call.tools import (
    Consult,
    HoldCaller,
    PressKeys,
    Record,
    RunHttpTool,
    SetVariable,
    not_now,
    read_tool_call,
)
from ari_app.line.interface import Ability, Outcome, Status
from ari_app.tools.tool import ToolAnswer

POLICY = CallPolicy(settable_variables=frozenset({"TOPIC"}))


def answer(name: str, parameters: dict[str, object]) -> ToolAnswer:
    action = read_tool_call(name, parameters, POLICY)
    assert isinstance(action, ToolAnswer)
    return action


ENDS = {"hang_up": answer("hang_up", {}), "transfer_call": answer("transfer_call", {"to": "200"})}
WITH_AGENT = (
    *(State.RINGING, State.CONNECTING, State.JOINING, State.GREETING, State.TALKING),
    *(State.HOLDING, State.RECOVERING),
)


@pytest.mark.parametrize("name", ENDS)
def test_an_end_is_refused_where_it_could_not_be_kept(name: str) -> None:
    for state in WITH_AGENT:
        assert not_now(ENDS[name], state, ends=False, reachable=True) is None
        assert not_now(ENDS[name], state, ends=True, reachable=True) == "the call ends already"
    for state in (State.CONSULTING, State.BRIEFING, State.HANDED_OVER):
        assert not_now(ENDS[name], state, ends=False, reachable=True)


def test_what_needs_asterisk_is_refused_without_it() -> None:
    for action in (ENDS["transfer_call"], Consult("+493023125001"), HoldCaller()):
        assert not_now(action, State.TALKING, ends=False, reachable=True) is None
        assert not_now(action, State.TALKING, ends=False, reachable=False)
    assert not_now(ENDS["hang_up"], State.TALKING, ends=False, reachable=False) is None


def test_only_who_hears_the_agent_is_put_on_hold() -> None:
    for state in WITH_AGENT:
        refusal = not_now(HoldCaller(), state, ends=False, reachable=True)
        assert (refusal is None) is (state is State.TALKING)


def test_hang_up_ends_the_call() -> None:
    said = answer("hang_up", {})
    assert not said.is_error
    assert said.ends_with == Outcome(Status.COMPLETED, "agent_hung_up")


@pytest.mark.parametrize("to", ["support", "+493023125001", "*72", "queue.1", "6001@office"])
def test_a_transfer_names_its_target(to: str) -> None:
    said = answer("transfer_call", {"to": to, "mode": "blind"})
    assert said.ends_with == Outcome(Status.TRANSFER, "agent_transfer", transfer_to=to)
    assert answer("transfer_call", {"to": to}).ends_with == said.ends_with


def test_the_target_of_an_attended_transfer_is_dialled() -> None:
    action = read_tool_call("transfer_call", {"to": "+493023125001", "mode": "attended"}, POLICY)
    assert action == Consult("+493023125001")


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"to": 17},
        {"to": ""},
        {"to": "200,1"},
        {"to": "${SHELL(id)}"},
        {"to": "x" * 81},
        {"to": "200", "mode": "warm"},
        {"to": "200", "mode": "attended"},
    ],
)
def test_a_transfer_that_cannot_be_made_is_said_to_the_agent(
    parameters: dict[str, object],
) -> None:
    said = answer("transfer_call", parameters)
    assert said.is_error
    assert said.text.startswith("The call was not transferred")
    assert said.ends_with is None


def test_what_the_other_tools_ask_for() -> None:
    assert read_tool_call("send_dtmf", {"digits": "12#"}, POLICY) == PressKeys("12#")
    assert read_tool_call("hold", {}, POLICY) == HoldCaller()
    named = {"name": "TOPIC", "value": "invoice"}
    assert read_tool_call("set_variable", named, POLICY) == SetVariable("TOPIC", "invoice")


def test_only_named_variables_are_set() -> None:
    said = answer("set_variable", {"name": "OTHER", "value": "x"})
    assert said.is_error
    assert "'OTHER' is not among those" in said.text


def test_a_tool_from_the_file_is_asked_elsewhere() -> None:
    assert read_tool_call("look_up", {"id": 7}, POLICY, ("look_up",)) == RunHttpTool()
    unknown = read_tool_call("look_down", {}, POLICY, ("look_up",))
    assert isinstance(unknown, ToolAnswer)
    assert "look_up" in unknown.text


def test_what_the_line_cannot_do_is_not_there() -> None:
    for name in ("send_dtmf", "hold", "set_variable", "transfer_call", "record_call"):
        action = read_tool_call(
            name, {"to": "200", "on": True}, POLICY, (), Ability.NOTHING, recordable=False
        )
        assert isinstance(action, ToolAnswer) and action.is_error
        assert action.text == f"There is no tool {name!r} on this line. There are: hang_up."
    assert read_tool_call("hang_up", {}, POLICY, (), Ability.NOTHING) == ENDS["hang_up"]
    assert read_tool_call("hold", {}, POLICY, (), Ability.MUSIC) == HoldCaller()
    assert read_tool_call("record_call", {"on": False}, POLICY, (), Ability.NOTHING) == Record(
        False
    )


def test_a_line_that_can_call_nobody_else_transfers_blindly() -> None:
    to = {"to": "+493023125001"}
    said = read_tool_call("transfer_call", to, POLICY, (), Ability.TRANSFER)
    assert isinstance(said, ToolAnswer) and not said.is_error
    attended = {**to, "mode": "attended"}
    refused = read_tool_call("transfer_call", attended, POLICY, (), Ability.TRANSFER)
    assert isinstance(refused, ToolAnswer) and refused.is_error
    assert "blind" in refused.text


@given(st.text(), st.dictionaries(st.text(), st.integers()))
def test_unknown_tools_never_raise(name: str, parameters: dict[str, object]) -> None:
    action = read_tool_call(name, parameters, POLICY)
    if isinstance(action, ToolAnswer):
        assert action.is_error == (name != "hang_up")
    else:
        assert action == HoldCaller()
