from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from lab.demo.analysis import Samples, analyse
from lab.demo.captions import Caption
from lab.demo.picture import (
    HEIGHT_PX,
    MAX_LINES,
    WIDTH_PX,
    CallPicture,
    Mark,
    draw,
    envelope,
    together,
    wrap,
)
from tests.unit.demo.signals import RATE_HZ, voice


def picture(said: Samples, heard: Samples, *, words: bool = True) -> CallPicture:
    return CallPicture(
        title="A call",
        subtitle="for a test",
        rate_hz=RATE_HZ,
        said=said,
        heard=heard,
        analysis=analyse(said, heard, RATE_HZ),
        agent_words=[Caption(0.25, "Good morning."), Caption(3.75, "A long answer. " * 20)][
            : 2 * words
        ],
        caller_words=[Caption(2.0, "Hello."), Caption(5.0, "Stop!")][: 2 * words],
        marks=[Mark(0.0, "INVITE"), Mark(0.1, "answered"), Mark(9.9, "the end")],
    )


def ink(path: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels have this colour, or nearly."""
    pixels = imread(path)[:, :, :3] * 255
    return int(np.sum(np.all(np.abs(pixels - np.array(colour)) < 12, axis=2)))


AGENT, CALLER, ALARM, GOOD = (37, 99, 168), (194, 105, 28), (192, 38, 45), (43, 122, 75)


def test_the_picture_shows_both_voices_and_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "call.png"
    said = voice(10.0, (2.0, 3.0), (5.0, 6.0))
    heard = voice(10.0, (0.25, 1.5), (3.75, 5.25), (6.75, 9.0))
    draw(picture(said, heard), path)
    assert imread(path).shape[:2] == (HEIGHT_PX, WIDTH_PX)
    assert ink(path, AGENT) > 2 * ink(path, CALLER) > 10_000
    assert ink(path, ALARM) > 500
    assert ink(path, GOOD) > 300


def test_a_call_without_interruption_has_no_red(tmp_path: Path) -> None:
    path = tmp_path / "call.png"
    draw(picture(voice(10.0, (2.0, 3.0)), voice(10.0, (0.25, 1.5))), path)
    assert ink(path, ALARM) == ink(path, GOOD) == 0


@pytest.mark.parametrize("seconds", [0.0, 0.5, 700.0])
def test_a_call_of_any_length_without_words_can_be_drawn(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "call.png"
    draw(picture(voice(seconds), voice(seconds), words=False), path)
    assert imread(path).shape[:2] == (HEIGHT_PX, WIDTH_PX)


def test_marks_that_fall_together_have_one_label() -> None:
    marks = [Mark(9.9, "the end"), Mark(0.1, "answered"), Mark(0.0, "INVITE"), Mark(4.0, "later")]
    assert together(marks, 10.0) == [
        Mark(0.0, "INVITE · answered"),
        Mark(4.0, "later"),
        Mark(9.9, "the end"),
    ]


@given(st.lists(st.integers(-32768, 32767), max_size=300), st.integers(1, 100))
def test_the_envelope_holds_every_sample(values: list[int], columns: int) -> None:
    samples = np.array(values, np.int16)
    low, high = envelope(samples, columns)
    assert len(low) == len(high) == min(columns, len(samples))
    assert np.all(low <= high)
    if values:
        assert (low.min(), high.max()) == (min(values) / 32768, max(values) / 32768)


def test_a_long_text_ends_in_an_ellipsis() -> None:
    lines = wrap("word " * 100, 100).splitlines()
    assert len(lines) == MAX_LINES
    assert lines[-1].endswith(" …")
    assert wrap("check-up", 10) == "check-up"
