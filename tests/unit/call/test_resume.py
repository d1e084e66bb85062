from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.resume import (
    LEFT_OUT,
    MAX_CHARACTERS,
    transcript_text,
    what_was_said,
)
from ari_app.records.record import TranscriptLine


def lines(*said: tuple[str, str]) -> list[TranscriptLine]:
    return [TranscriptLine(float(at), who, text) for at, (who, text) in enumerate(said)]


def test_what_was_said_as_far_as_it_was_heard() -> None:
    said = lines(
        ("agent", "Hello, and welcome to the shop."),
        ("interruption", "after 300 ms, 900 ms unheard"),
        ("correction", "Hello, and"),
        ("caller", "A bicycle, please."),
        ("dtmf", "42"),
        ("tool", "look_up: in stock"),
        ("note", "the agent was lost"),
    )
    assert transcript_text(said) == (
        "Agent: Hello, and\nCaller: A bicycle, please.\nKeys: 42\nTool: look_up: in stock"
    )


def test_a_correction_of_something_that_is_not_known() -> None:
    assert transcript_text(lines(("correction", "Hel"), ("caller", "yes"))) == "Caller: yes"


def test_an_agent_that_was_not_heard_at_all_said_nothing() -> None:
    assert transcript_text(lines(("agent", "Hello"), ("correction", ""))) == "(nothing)"


def test_nothing() -> None:
    assert transcript_text([]) == "(nothing)"


@given(
    st.lists(st.tuples(st.sampled_from(["agent", "caller", "correction", "note"]), st.text())),
    st.integers(1, 200),
)
def test_it_is_never_longer_than_it_may_be(said: list[tuple[str, str]], limit: int) -> None:
    text = transcript_text(lines(*said), limit)
    assert len(text) <= limit or text == "(nothing)"
    whole = transcript_text(lines(*said), 10**9)
    assert whole.endswith(text.removeprefix(LEFT_OUT)) or text == "(nothing)"


def test_a_long_one_begins_with_a_whole_line() -> None:
    said = lines(*(("caller", f"This is sentence number {n}.") for n in range(500)))
    text = transcript_text(said)
    assert MAX_CHARACTERS - 50 < len(text) <= MAX_CHARACTERS
    assert text.startswith(LEFT_OUT + "Caller: This is sentence")
    assert text.endswith("number 499.")
    assert what_was_said(text).endswith(text)


def test_one_long_line_begins_with_a_whole_word() -> None:
    text = transcript_text(lines(("agent", "certainly " * 1000)))
    assert text.startswith(LEFT_OUT + "certainly certainly ")
