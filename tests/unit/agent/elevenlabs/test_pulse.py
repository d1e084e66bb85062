from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ari_app.agent.elevenlabs.connection import LOOKS, Pulse


def test_a_peer_that_is_silent_for_so_many_looks_is_dead() -> None:
    pulse = Pulse()
    assert [pulse.look(False) for _ in range(LOOKS)] == [True] * (LOOKS - 1) + [False]


@given(st.lists(st.booleans()))
def test_whatever_arrives_begins_the_count_anew(heard: list[bool]) -> None:
    pulse, missed = Pulse(), 0
    for each in heard:
        missed = 0 if each else missed + 1
        assert pulse.look(each) is (missed < LOOKS)
