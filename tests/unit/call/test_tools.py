from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.signals import Outcome, Status
from ari_app.call.tools import call_tool


def test_hang_up_ends_the_call() -> None:
    answer = call_tool("hang_up", {})
    assert not answer.is_error
    assert answer.ends_with == Outcome(Status.COMPLETED, "agent_hung_up")


@pytest.mark.parametrize("to", ["support", "+4930123456", "*72", "queue.1", "6001@office"])
def test_a_transfer_names_its_target(to: str) -> None:
    answer = call_tool("transfer_call", {"to": to, "mode": "blind"})
    assert answer.ends_with == Outcome(Status.TRANSFER, "agent_transfer", transfer_to=to)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"to": 17},
        {"to": ""},
        {"to": "200,1"},
        {"to": "${SHELL(id)}"},
        {"to": "200\n"},
        {"to": "x" * 81},
        {"to": "200", "mode": "attended"},
    ],
)
def test_a_transfer_that_cannot_be_made_is_said_to_the_agent(
    parameters: dict[str, object],
) -> None:
    answer = call_tool("transfer_call", parameters)
    assert answer.is_error
    assert answer.text.startswith("The call was not transferred")
    assert answer.ends_with is None


@given(st.text(), st.dictionaries(st.text(), st.integers()))
def test_unknown_tools_never_raise(name: str, parameters: dict[str, object]) -> None:
    answer = call_tool(name, parameters)
    assert answer.is_error == (name != "hang_up")
