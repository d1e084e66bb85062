from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.records.bounded import MAX_LINE_BYTES, Bounded, shortened


@pytest.mark.parametrize("text", ["", "short", "ä" * (MAX_LINE_BYTES // 2)])
def test_what_fits_stays_as_it_is(text: str) -> None:
    assert shortened(text) == text


def test_the_cut_is_after_a_word_and_says_what_is_missing() -> None:
    text = "so it is " * 1_000
    cut = shortened(text, 100)
    kept, _, note = cut.partition(" … ")
    assert text.startswith(f"{kept} ")
    assert note == f"({len(text) - len(kept)} more characters)"


def test_without_spaces_it_is_between_characters() -> None:
    kept = shortened("\N{GRINNING FACE}" * 1_000, 101).partition(" …")[0]
    assert kept == "\N{GRINNING FACE}" * 13


@given(st.text(), st.integers(64, 500))
def test_never_more_bytes_than_may_be(text: str, most: int) -> None:
    assert len(shortened(text * 20, most).encode(errors="replace")) <= most


def test_the_oldest_are_forgotten_and_counted() -> None:
    kept: Bounded[int] = Bounded(max_entries=4, max_bytes=10)
    for number in range(6):
        kept.append(number)
    assert (list(kept), kept.forgotten, len(kept)) == ([2, 3, 4, 5], 2, 4)
    kept.append(6, 10)
    assert (list(kept), kept.forgotten) == ([3, 4, 5, 6], 3)
    kept.append(7, 1)
    assert (list(kept), kept[-1]) == ([7], 7)
    kept.append(8, 13)
    assert (list(kept), kept.forgotten) == ([8], 8)
