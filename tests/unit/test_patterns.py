from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.patterns import LinearPattern


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("[0-9]{3}|support", ["123", "support"], ["1234", "support1", "123\n", "\ud800"]),
        ("^[A-Z]-[0-9]{1,8}$", ["A-12"], ["A-", "A-1\n", "xA-1"]),
        (r"\d+", ["12"], ["٣", ""]),
        (r"[\w.-]+", ["a_.-"], ["é", "a b"]),
        (r"[^[\]]+", ["ab"], ["a[b", "]"]),
        (r"[a&&b~~--]+", ["a&b~-"], ["c"]),
        (r"[]x]+", ["]x"], ["y"]),
        (r"a\/b\.c", ["a/b.c"], ["a/bxc"]),
        (r"\u0041\x42", ["AB"], ["ab"]),
        (r"(?<name>a)|b\Z", ["a", "b"], ["ab"]),
        (r"\$[$]", ["$$"], ["$"]),
        ("a{0,80}", ["", "a" * 80], ["a" * 81]),
    ],
)
def test_patterns_mean_what_they_mean_in_json_schema(
    pattern: str, fits: list[str], does_not: list[str]
) -> None:
    linear = LinearPattern(pattern)
    assert [text for text in fits if not linear.fullmatch(text)] == []
    assert [text for text in does_not if linear.fullmatch(text)] == []


def test_it_is_found_anywhere_unless_it_says_where() -> None:
    assert LinearPattern("b").search("abc")
    assert not LinearPattern("^b").search("abc")
    assert not LinearPattern("b|c$").fullmatch("abc")


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("[0-9", "unclosed character class"),
        ("(?=a)b", "look-around and back references"),
        (r"(a)\1", "look-around and back references"),
        (r"(\p{L}{100}){100}", "repeats too much"),
        ("a" * 2001, "longer than 2000"),
        ("[\ud800]", "half a character"),
    ],
)
def test_what_cannot_be_used_is_said(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LinearPattern(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+", "(a|a)*", "(a*)*b", "(.*a){12}", "(?:x?a?)+c"])
@pytest.mark.parametrize("length", [28, 16_000])
def test_no_text_keeps_it_busy(pattern: str, length: int) -> None:
    """Python's engine would still be at it when the test ends."""
    assert not LinearPattern(pattern).fullmatch("a" * length + "!")


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_is_refused(text: str) -> None:
    try:
        LinearPattern(text).search("a")
    except ValueError as error:
        assert str(error)


CLASSES = st.text("ab[&~-^.", min_size=1, max_size=5).map(
    lambda text: "[" + re.sub(r"[\[\\^-]", r"\\\g<0>", text) + "]"
)


@pytest.mark.filterwarnings("ignore:Possible (nested )?set:FutureWarning")
@given(CLASSES, st.text("ab[&~-^.", max_size=3))
def test_classes_match_as_pythons_do(pattern: str, text: str) -> None:
    assert LinearPattern(pattern).fullmatch(text) == bool(re.fullmatch(pattern, text))
