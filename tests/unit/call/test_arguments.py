from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.arguments import CallArguments, parse_arguments


def test_agent_wait_and_variables() -> None:
    arguments = parse_arguments(["agent_id=agent_7", " wait = 30 ", "customer_name=Jane = J", ""])
    assert arguments == CallArguments("agent_7", 30.0, {"customer_name": "Jane = J"})


def test_nothing_given() -> None:
    assert parse_arguments([]) == CallArguments()
    assert parse_arguments(["agent_id="]).agent_id is None


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("human", "argument 1 is not name=value"),
        ("two words=1", "argument 1 has a name that is not letters, digits and _"),
        ("wait=soon", "wait is not a number of seconds from 0 to 3600"),
        ("wait=3601", "wait is not a number of seconds from 0 to 3600"),
        ("system__time=1", "system__time: names that begin with system__ belong to ElevenLabs"),
    ],
)
def test_what_cannot_be_used_is_named_and_left_out(argument: str, problem: str) -> None:
    arguments = parse_arguments([argument, "tier=2"])
    assert arguments.problems == (problem,)
    assert arguments.variables == {"tier": "2"}


@given(st.lists(st.text(max_size=40), max_size=10))
def test_no_argument_raises(args: list[str]) -> None:
    arguments = parse_arguments(args)
    assert len(arguments.problems) + len(arguments.variables) <= len(args)
