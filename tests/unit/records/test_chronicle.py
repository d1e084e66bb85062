"""When the agent was heard, whatever comes first: its words, its voice, an interruption."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.records.chronicle import Chronicle, Keys, Note, ToolUse, Turn
from ari_app.records.events import KeysPressed, Noted, Said, ToolRan, bounded_arguments

WORDS = "one two three four five six seven eight nine ten"


@pytest.fixture
def call() -> Chronicle:
    """A call whose two sides hear each other."""
    chronicle = Chronicle()
    chronicle.sound_began(0.0)
    return chronicle


def turns(chronicle: Chronicle) -> list[dict[str, Any]]:
    return [asdict(entry) for entry in chronicle if isinstance(entry, Turn)]


def turn(at: float, until: float | None, text: str = WORDS, **more: Any) -> dict[str, Any]:
    usual = {"who": "agent", "interrupted": False, "heard": None}
    return {"at": at, "until": until, "text": text, **usual, **more}


def test_words_before_their_sound(call: Chronicle) -> None:
    call.take(Said("agent", WORDS, event_id=1), 1.0)
    assert turns(call) == [turn(1.0, None)], "not heard yet"
    call.hears(1, 1.5, 2.0)
    call.hears(1, 2.0, 3.5)
    assert turns(call) == [turn(1.5, 3.5)]


def test_sound_before_its_words(call: Chronicle) -> None:
    call.hears(1, 1.5, 2.0)
    call.take(Said("agent", WORDS, event_id=1), 1.6)
    call.hears(2, 2.0, 3.0)
    assert turns(call) == [turn(1.5, 3.0)], "each piece may have a number of its own"


def test_a_line_that_takes_sound_ahead_plays_it_no_sooner(call: Chronicle) -> None:
    call.take(Said("agent", WORDS, event_id=1), 1.0)
    call.hears(1, 1.0, 2.0)
    call.hears(1, 1.2, 2.2)
    call.hears(1, 1.4, 2.4)
    assert turns(call) == [turn(1.0, 4.0)]
    call.interrupted(2.5, 1)
    assert turns(call)[0]["heard"] == "one two three four five …"
    call.take(Said("agent", "next", event_id=2), 2.6)
    call.hears(2, 2.6, 3.0)
    assert turns(call)[1] == turn(2.6, 3.0, "next")


def test_two_responses_that_wait_in_one_queue(call: Chronicle) -> None:
    call.hears(1, 1.0, 3.0)
    call.take(Said("agent", "first", event_id=1), 1.0)
    call.response_over()
    call.take(Said("agent", "second", event_id=2), 1.1)
    call.hears(2, 3.0, 4.0)
    assert turns(call) == [turn(1.0, 3.0, "first"), turn(3.0, 4.0, "second")]


def test_responses_whose_end_nobody_tells(call: Chronicle) -> None:
    call.hears(1, 1.0, 3.0)
    call.take(Said("agent", "first", event_id=1), 1.0)
    call.take(Said("agent", "second", event_id=2), 4.9)
    call.hears(2, 5.0, 6.0)
    assert turns(call) == [turn(1.0, 3.0, "first"), turn(5.0, 6.0, "second")]


def test_words_and_sound_without_numbers_in_common(call: Chronicle) -> None:
    for at in (1.0, 5.0):
        call.take(Said("agent", f"at {at}"), at)
        call.hears(0, at + 0.2, at + 1.0)
        call.response_over()
    assert turns(call) == [turn(1.2, 2.0, "at 1.0"), turn(5.2, 6.0, "at 5.0")]


def test_what_waits_for_the_caller_is_heard_when_they_are_there() -> None:
    chronicle = Chronicle()
    chronicle.take(Said("agent", WORDS, event_id=1), 0.3)
    chronicle.hears(1, 0.0, 0.5)
    chronicle.hears(1, 0.5, 2.0)
    chronicle.sound_began(7.0)
    assert turns(chronicle) == [turn(7.0, 9.0)]
    chronicle.sound_began(20.0)
    assert turns(chronicle) == [turn(7.0, 9.0)], "music ends: what was heard stays"


def test_another_agents_greeting_takes_the_place_of_one_that_was_not_heard() -> None:
    chronicle = Chronicle()
    chronicle.hears(1, 0.0, 2.0)
    chronicle.take(Said("agent", "first", event_id=1), 0.3)
    chronicle.ended(1.5)
    chronicle.another_agent()
    chronicle.hears(1, 0.0, 1.0)
    chronicle.take(Said("agent", "second", event_id=1), 2.0)
    chronicle.sound_began(3.0)
    assert turns(chronicle) == [
        turn(1.5, 1.5, "first", heard=""),
        turn(3.0, 4.0, "second"),
    ]


def test_a_caller_who_is_never_there_hears_nothing() -> None:
    chronicle = Chronicle()
    chronicle.hears(1, 0.0, 2.0)
    chronicle.take(Said("agent", WORDS, event_id=1), 0.3)
    chronicle.ended(0.9)
    assert turns(chronicle) == [turn(0.9, 0.9, heard="")]


def test_an_interruption_cuts_what_is_heard_and_what_waits(call: Chronicle) -> None:
    call.take(Said("agent", WORDS, event_id=1), 1.0)
    call.hears(1, 1.0, 5.0)
    call.response_over()
    call.take(Said("agent", "next", event_id=2), 1.0)
    call.hears(2, 5.0, 6.0)
    call.take(Said("agent", "not even sent", event_id=3), 1.0)
    call.interrupted(3.0, 3)
    cut: dict[str, Any] = {"interrupted": True}
    assert turns(call) == [
        turn(1.0, 3.0, heard="one two three four five …", **cut),
        turn(3.0, 3.0, "next", heard="", **cut),
        turn(1.0, None, "not even sent", heard="", **cut),
    ]
    call.take(Said("agent", "at last", event_id=4), 4.0)
    call.hears(4, 4.0, 4.5)
    assert turns(call)[3] == turn(4.0, 4.5, "at last")


def test_the_agents_own_word_on_what_was_heard_counts_more(call: Chronicle) -> None:
    call.hears(1, 1.0, 5.0)
    call.take(Said("agent", WORDS, event_id=1), 1.0)
    call.interrupted(3.0, 1)
    call.take(Said("correction", "one two...", original=WORDS), 3.1)
    assert turns(call) == [turn(1.0, 3.0, interrupted=True, heard="one two...")]


def test_words_that_come_after_their_interruption(call: Chronicle) -> None:
    call.hears(1, 1.0, 5.0)
    call.interrupted(3.0, 1)
    call.take(Said("agent", WORDS, event_id=1), 3.2)
    assert turns(call) == [turn(1.0, 3.0, interrupted=True, heard="one two three four five …")]


def test_a_hang_up_is_no_interruption(call: Chronicle) -> None:
    call.hears(1, 1.0, 3.0)
    call.take(Said("agent", WORDS, event_id=1), 1.0)
    call.response_over()
    call.hears(2, 3.0, 7.0)
    call.take(Said("agent", WORDS, event_id=2), 1.0)
    call.ended(5.0)
    assert turns(call) == [turn(1.0, 3.0), turn(3.0, 5.0, heard="one two three four five …")]


def test_another_agent_counts_anew(call: Chronicle) -> None:
    call.hears(7, 1.0, 2.0)
    call.another_agent()
    call.take(Said("agent", "I am new.", event_id=1), 3.0)
    call.hears(1, 3.5, 4.0)
    assert turns(call) == [turn(3.5, 4.0, "I am new.")]


def test_the_callers_turn_is_when_they_spoke(call: Chronicle) -> None:
    call.take(Said("caller", "Hello?", began=2.0, until=2.5), 3.1)
    call.take(Said("caller", "typed"), 4.0)
    assert turns(call) == [
        turn(2.0, 2.5, "Hello?", who="caller"),
        turn(4.0, 4.0, "typed", who="caller"),
    ]


def test_everything_else(call: Chronicle) -> None:
    ran = ToolRan(
        "ask: yes", name="ask", arguments={"a": 1}, result="yes", is_error=True, seconds=0.25
    )
    for event, at in ((ran, 2.0), (KeysPressed("12#"), 3.0), (Noted("held"), 4.0)):
        call.take(event, at)
    assert list(call) == [
        ToolUse(1.75, "ask", {"a": 1}, "yes", True, 0.25),
        Keys(3.0, "12#"),
        Note(4.0, "held"),
    ]


def test_ten_thousand_turns_fit_and_more_do_not(call: Chronicle) -> None:
    for number in range(10_000):
        call.take(Said("caller", f"{number}: {'x' * 200}"), float(number))
    assert (len(turns(call)), call.forgotten) == (10_000, 0)
    for number in range(10_000):
        call.take(Said("caller", "y" * 8000), float(number))
    assert call.forgotten > 10_000
    assert sum(len(each["text"]) for each in turns(call)) < 4 * 1024 * 1024


def test_long_arguments_are_cut() -> None:
    assert bounded_arguments({"a": "x" * 100}) == {"a": "x" * 100}
    (cut,) = bounded_arguments({"a": "x" * 100_000, "\ud800": float("nan")}).values()
    assert cut.startswith('{"a": "xxx')
    assert len(cut) < 8 * 1024


AGENT = st.tuples(st.sampled_from(["said", "hears", "over"]), st.integers(0, 4))
ANY = st.one_of(
    AGENT, st.sampled_from([("interrupted", 9), ("corrected", 0), ("another", 0), ("began", 0)])
)


@given(st.lists(ANY, max_size=40))
def test_any_order_leaves_turns_that_make_sense(happened: list[tuple[str, int]]) -> None:
    chronicle, said, now, queued = Chronicle(), 0, 0.0, 0.0
    for what, number in happened:
        now += 0.5
        match what:
            case "said":
                said += 1
                chronicle.take(Said("agent", WORDS, event_id=number), now)
            case "hears":
                begins = max(now, queued)
                queued = begins + 1.0
                chronicle.hears(number, begins, queued)
            case "over":
                chronicle.response_over()
            case "interrupted":
                chronicle.interrupted(now, number)
                queued = now
            case "corrected":
                chronicle.take(Said("correction", "one", original=WORDS), now)
            case "another":
                chronicle.another_agent()
            case "began":
                chronicle.sound_began(0.0)
    chronicle.ended(now)
    assert len(turns(chronicle)) == said
    for each in turns(chronicle):
        assert each["until"] is None or each["at"] <= each["until"] <= now
        assert each["heard"] is None or len(each["heard"]) < len(WORDS) + 2
