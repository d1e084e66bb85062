from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.demo.analysis import (
    JOIN_MS,
    MIN_MS,
    WINDOW_MS,
    Span,
    analyse,
    barge_ins,
    replies,
    speech_spans,
)
from tests.unit.demo.signals import RATE_HZ, spans, voice


def test_silence_has_no_speech() -> None:
    assert speech_spans(voice(1.0), RATE_HZ) == []
    assert speech_spans(voice(0.0), RATE_HZ) == []


def test_spans_are_found_to_the_window() -> None:
    assert speech_spans(voice(5.0, (0.5, 1.5), (3.0, 4.25)), RATE_HZ) == spans(
        (0.5, 1.5), (3.0, 4.25)
    )


def test_speech_may_last_from_the_first_sample_to_an_incomplete_last_window() -> None:
    assert speech_spans(voice(1.006, (0.0, 1.006)), RATE_HZ) == spans((0.0, 1.01))


def test_a_pause_within_a_sentence_is_part_of_it() -> None:
    sound = voice(6.0, (1.0, 2.0), (2.0 + JOIN_MS / 1000, 3.5), (4.3, 5.0))
    assert speech_spans(sound, RATE_HZ) == spans((1.0, 3.5), (4.3, 5.0))


def test_a_click_is_no_speech() -> None:
    sound = voice(4.0, (1.0, 1.0 + (MIN_MS - WINDOW_MS) / 1000), (3.0, 3.0 + MIN_MS / 1000))
    assert speech_spans(sound, RATE_HZ) == spans((3.0, 3.06))


@pytest.mark.parametrize(("level_dbfs", "heard"), [(-44.0, 1), (-46.0, 0)])
def test_what_counts_is_the_level(level_dbfs: float, heard: int) -> None:
    assert len(speech_spans(voice(1.0, (0.2, 0.8), level_dbfs=level_dbfs), RATE_HZ)) == heard


@given(st.lists(st.tuples(st.integers(7, 300), st.integers(72, 300)), max_size=6))
def test_any_speech_with_long_pauses_is_found_again(parts: list[tuple[int, int]]) -> None:
    at, expected = 0, []
    for speech, pause in parts:
        expected.append((at / 100, (at + speech) / 100))
        at += speech + pause
    assert speech_spans(voice(at / 100, *expected), RATE_HZ) == spans(*expected)


@given(st.lists(st.integers(-32768, 32767), max_size=400))
def test_spans_are_in_order_apart_and_inside(values: list[int]) -> None:
    samples = np.repeat(np.array(values, np.int16), 40)
    found = speech_spans(samples, RATE_HZ, join_ms=30, min_ms=20)
    for span in found:
        assert 0 <= span.start_s < span.end_s <= len(samples) / RATE_HZ + WINDOW_MS / 1000
        assert span.seconds >= 0.0199
    for before, after in pairwise(found):
        assert after.start_s - before.end_s > 0.029


def test_each_turn_is_paired_with_the_first_answer_to_it() -> None:
    caller = spans((2.0, 3.0), (6.0, 7.0))
    agent = spans((0.0, 1.0), (3.8, 5.0), (7.9, 9.0), (12.0, 13.0))
    found = replies(caller, agent)
    assert [reply.answer for reply in found] == [agent[1], agent[2]]
    assert [reply.seconds for reply in found] == pytest.approx([0.8, 0.9])


def test_a_turn_that_goes_unanswered_has_no_reply() -> None:
    caller = spans((1.0, 2.0), (5.0, 6.0), (9.0, 10.0))
    agent = spans((6.5, 8.0))
    assert [reply.caller for reply in replies(caller, agent)] == [caller[1]]


def test_an_interruption_lasts_until_the_agent_is_silent() -> None:
    caller, agent = spans((1.0, 2.0), (4.0, 6.0)), spans((2.8, 4.25), (7.0, 8.0))
    [barge_in] = barge_ins(caller, agent)
    assert barge_in.at_s == 4.0
    assert barge_in.seconds == pytest.approx(0.25)


def test_a_whole_call() -> None:
    said = voice(10.0, (2.0, 3.0), (5.0, 6.0))
    heard = voice(10.0, (0.25, 1.5), (3.75, 5.25), (6.75, 9.0))
    analysis = analyse(said, heard, RATE_HZ)
    assert analysis.agent[0] == Span(0.25, 1.5)
    assert [reply.seconds for reply in analysis.replies] == [0.75, 0.75]
    assert [barge_in.seconds for barge_in in analysis.barge_ins] == [0.25]


def test_an_agent_that_was_never_heard() -> None:
    analysis = analyse(voice(3.0, (1.0, 2.0)), voice(3.0), RATE_HZ)
    assert analysis.caller == (Span(1.0, 2.0),)
    assert not (analysis.agent or analysis.replies or analysis.barge_ins)
