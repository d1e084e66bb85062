from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.keypad import KEYS, DigitCollector, DigitMode, Keypad, for_record


def collector(**options: object) -> DigitCollector:
    return DigitCollector(DigitMode.COLLECT, **options)  # type: ignore[arg-type]


def press(digits: DigitCollector, keys: str, now: float = 0.0) -> list[str]:
    entries = (digits.digit(key, now) for key in keys)
    return [entry for entry in entries if entry is not None]


def test_off_says_nothing() -> None:
    digits = DigitCollector(DigitMode.OFF)
    assert press(digits, "12#") == []
    assert digits.next_deadline is None
    assert digits.finish() is None


def test_each_key_at_once() -> None:
    digits = DigitCollector(DigitMode.EACH)
    assert press(digits, "1#a") == ["1", "#", "A"]
    assert digits.next_deadline is None


def test_keys_that_are_told_one_by_one_belong_together() -> None:
    digits = DigitCollector(DigitMode.EACH, inter_digit_timeout=2.0, max_digits=4)
    presses = [("1", 0), ("2", 1), ("3", 2.9), ("4", 5), ("#", 6), ("f", 6), ("5", 6)]
    together = []
    for key, now in presses:
        digits.digit(key, now)
        together.append(digits.together)
    assert together == ["1", "12", "123", "4", "", "", "5"]
    press(digits, "67890", 7)
    assert (digits.together, digits.begun) == ("90", "")
    assert collector().together == ""


def test_the_terminator_completes_an_entry_and_is_not_part_of_it() -> None:
    digits = collector()
    assert press(digits, "12*4#56#") == ["12*4", "56"]
    assert digits.next_deadline is None


def test_the_terminator_alone_is_an_entry() -> None:
    assert press(collector(), "#1#") == ["#", "1"]


def test_without_a_terminator_every_key_is_part_of_the_entry() -> None:
    digits = collector(terminator="")
    assert press(digits, "1#") == []
    assert digits.finish() == "1#"


def test_the_longest_entry_needs_no_terminator() -> None:
    assert press(collector(max_digits=4), "12345678") == ["1234", "5678"]


def test_an_entry_is_complete_when_no_key_comes_for_a_while() -> None:
    digits = collector(inter_digit_timeout=2.0)
    assert digits.timer(100.0) is None
    digits.digit("1", 10.0)
    digits.digit("2", 11.5)
    assert (digits.next_deadline, digits.timer(13.4)) == (13.5, None)
    assert digits.timer(13.5) == "12"
    assert digits.next_deadline is None
    assert digits.timer(20.0) is None


@pytest.mark.parametrize("other", ["", "f", "!", "12", "²", "ß"])
def test_what_is_no_key_is_passed_over(other: str) -> None:
    digits = collector()
    assert digits.digit(other, 0.0) is None
    assert digits.next_deadline is None
    assert digits.finish() is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"inter_digit_timeout": 0}, "more than 0 seconds"),
        ({"inter_digit_timeout": float("nan")}, "more than 0 seconds"),
        ({"terminator": "##"}, "must be one key"),
        ({"terminator": "x"}, "must be one key"),
        ({"max_digits": 0}, "at least one digit"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        collector(**options)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(KEYS - {"#"})), st.floats(0.01, 10)), max_size=40),
    st.integers(1, 10),
)
def test_no_key_is_lost_or_told_twice(keys: list[tuple[str, float]], longest: int) -> None:
    digits = collector(max_digits=longest)
    now, told = 0.0, ""
    for key, gap in keys:
        now += gap
        told += digits.timer(now) or ""
        entry = digits.digit(key, now) or ""
        assert len(entry) <= longest
        told += entry
    assert told + (digits.finish() or "") == "".join(key for key, _ in keys)


def test_a_sensitive_entry_shows_nothing() -> None:
    assert for_record("1234", sensitive=False) == "1234"
    assert for_record("1234", sensitive=True) == for_record("1", sensitive=True) == "[digits]"


async def test_entries_are_told_when_they_are_complete() -> None:
    """At a terminator at once, and otherwise when no key follows."""
    entries: list[str] = []
    keypad = Keypad(collector(inter_digit_timeout=2.0), entries.append)
    for digit in "12#78":
        keypad.press(digit)
    assert entries == ["12"]
    await asyncio.sleep(2.1)
    assert entries == ["12", "78"]
    keypad.press("9")
    keypad.close()
    keypad.close()
    await asyncio.sleep(2.1)
    assert entries == ["12", "78"]
