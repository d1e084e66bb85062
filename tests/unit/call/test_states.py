from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.states import TRANSITIONS, IllegalStep, State, Step, advance, mermaid


@given(st.sampled_from(State), st.sampled_from(Step))
def test_a_step_is_in_the_table_or_is_refused(state: State, step: Step) -> None:
    if (state, step) in TRANSITIONS:
        assert advance(state, step) is TRANSITIONS[state, step]
    else:
        with pytest.raises(IllegalStep, match=f"{state} cannot take the step {step}"):
            advance(state, step)


def test_every_state_can_be_reached_and_can_end() -> None:
    reached = {State.NEW}
    while new := {b for (a, _), b in TRANSITIONS.items() if a in reached} - reached:
        reached |= new
    assert reached == set(State)
    ending = {State.ENDED}
    while new := {a for (a, _), b in TRANSITIONS.items() if b in ending} - ending:
        ending |= new
    assert ending == set(State)


def test_every_way_out_passes_through_releasing() -> None:
    assert {a for (a, _), b in TRANSITIONS.items() if b is State.ENDED} == {State.RELEASING}
    assert not [a for (a, _) in TRANSITIONS if a is State.ENDED]


def test_the_documentation_shows_this_table() -> None:
    text = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert mermaid() in text
