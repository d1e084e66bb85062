from __future__ import annotations

from lab.demo.captions import Caption, agent_captions, caller_captions
from lab.demo.transcript import Entry
from tests.unit.demo.signals import spans


def test_words_stand_where_they_are_heard() -> None:
    entries = [
        Entry(0.1, "agent", "Hello."),
        Entry(3.0, "caller", "Good morning."),
        Entry(4.9, "heard", "(caller spoke for 1.0 s)"),
        Entry(5.0, "agent", "What can I do?"),
    ]
    assert agent_captions(entries, spans((0.3, 2.0), (5.1, 7.0))) == [
        Caption(0.3, "Hello."),
        Caption(5.1, "What can I do?"),
    ]
    assert caller_captions(entries) == [Caption(3.0, "Good morning.")]


def test_a_second_text_within_one_speech_goes_to_the_next() -> None:
    entries = [Entry(0.0, "agent", "One."), Entry(0.5, "agent", "Two.")]
    assert agent_captions(entries, spans((0.2, 1.0), (3.0, 4.0))) == [
        Caption(0.2, "One."),
        Caption(3.0, "Two."),
    ]


def test_of_an_interrupted_text_only_what_was_heard_is_left() -> None:
    entries = [Entry(0.0, "agent", "I can offer Tuesday."), Entry(1.0, "correction", "I can...")]
    [caption] = agent_captions(entries, spans((0.2, 1.1)))
    assert caption == Caption(0.2, "I can\N{NO-BREAK SPACE}…")


def test_what_was_never_heard_has_no_caption() -> None:
    entries = [Entry(2.0, "agent", "Too late."), Entry(2.1, "correction", "")]
    assert agent_captions(entries, spans((0.0, 1.0))) == []
