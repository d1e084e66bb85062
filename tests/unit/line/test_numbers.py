from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.line.asterisk.dial_string import check_device, check_endpoint, device_name, dial_string
from ari_app.line.numbers import check_caller, check_number, check_target, number_pattern
from ari_app.patterns import LinearPattern

ANYTHING = number_pattern(r"[\s\S]*")
TRICKS = st.text("0123456789+*#._-@/&,;:${}()[]^|\\'\"\r\n\0 abcPJSIP٣é", max_size=45)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("+493023125001", "+493023125001"),
        (" +49 30 23125-001 ", "+493023125001"),
        ("+1 (212) 555.0100", "+12125550100"),
        ("+2908123", "+2908123"),
        ("+123456789012345", "+123456789012345"),
        ("\u202a+1\u00a0(555)\u202f010\u20110199\u202c", "+15550100199"),
        ("+1/555\u2013010\u2212\u20100199", "+15550100199"),
        ("\t+15550100199\r\n", "+15550100199"),
        ("\ufeff+1555\u200b0100199", "+15550100199"),
    ],
)
def test_e164_is_written_without_separators(text: str, number: str) -> None:
    assert check_number(text) == number


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("+" + "1" * 40, "longer than 40 characters"),
        ("+49 (0) 30 23125001", "has a .0. in it"),
        ("+49 (0)30 23125001", "has a .0. in it"),
        ("+49 (\u00a00 ) 30 123456", "has a .0. in it"),
        ("03023125001", "international form"),
        ("493023125003", "international form"),
        ("+03023125001", "international form"),
        ("+290812", "international form"),
        ("+1234567890123456", "international form"),
        ("+493023125001&PJSIP/trunk/900", r"AMPERSAND .U\+0026"),
        ("+493023125001@other", r"COMMERCIAL AT .U\+0040"),
        ("+493023125001\n1", r"LINE FEED .U\+000A"),
        ("+4930\t23125001", r"TAB .U\+0009"),
        ("+493023125\x07001", r"CONTROL CHARACTER .U\+0007"),
        ("+493O23125001", r"LATIN CAPITAL LETTER O .U\+004F"),
        ("\uff0b493023125001", r"FULLWIDTH PLUS SIGN .U\+FF0B"),
        ("+4930\u202e23125001", r"RIGHT-TO-LEFT OVERRIDE .U\+202E"),
        ("+49302312500٣", r"ARABIC-INDIC DIGIT THREE .U\+0663"),
    ],
)
def test_other_numbers_are_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        check_number(text)
    assert str(refused.value).endswith(".")
    assert not text.strip() or text not in str(refused.value)


def test_a_pattern_of_ones_own() -> None:
    pattern = number_pattern(r"[0-9]{3,12}|support")
    assert check_number("03023125001", pattern) == "03023125001"
    assert check_number(" support", pattern) == "support"
    with pytest.raises(ValueError, match="does not match the pattern"):
        check_number("12", pattern)
    with pytest.raises(ValueError, match="does not match the pattern"):
        check_number("support1", pattern)


@pytest.mark.parametrize(
    "text", ["1&2", "a/2", "1@2", "1,2", "1#", "1\n2", "${X}", "a b", "٣٣٣", "a\u20112"]
)
def test_no_pattern_lets_syntax_through(text: str) -> None:
    try:
        dialled = check_number(text, ANYTHING)
    except ValueError as refused:
        assert "There is a character in the number that must not be there" in str(refused)
    else:
        assert dialled == "a-2"


def test_separators_stay_where_a_pattern_wants_them() -> None:
    pattern = number_pattern(r"[0-9]{2}-[0-9]{2}|[0-9]{6}|ab-1")
    assert check_number("10-01", pattern) == "10-01"
    assert check_number("10-01-22", pattern) == "100122"
    assert check_number("ab-1", pattern) == "ab-1"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("support-desk", "support-desk"),
        ("6001@office", "6001@office"),
        ("1 001", "1001"),
        ("*98#", "*98#"),
        ("+1 (555) 010-0199", "+15550100199"),
    ],
)
def test_targets_are_numbers_or_names(text: str, target: str) -> None:
    assert check_target(text) == target


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The target is empty"),
        ("200,1", "COMMA"),
        ("${SHELL(id)}", "DOLLAR SIGN"),
        ("support desk", "SPACE"),
        ("x" * 81, "longer than 80"),
        ("+49 (0)30 1", "has a .0. in it"),
    ],
)
def test_targets_that_the_dialplan_must_not_see(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_target(text)


@given(st.text("0123456789+*#._@-ab,&|${}()/ \n\u202e", max_size=12))
def test_no_target_can_speak_the_dialplans_language(text: str) -> None:
    with suppress(ValueError):
        assert re.fullmatch(r"[A-Za-z0-9+*#._@-]{1,80}", check_target(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [("+1 (555) 010-0199", "+15550100199"), ("ACME Shop", "ACME Shop"), ("1/2\n", "12")],
)
def test_the_number_that_a_callee_is_shown(text: str, shown: str) -> None:
    assert check_caller(text) == shown


@pytest.mark.parametrize("check", [check_number, check_target, check_caller])
def test_separators_alone_are_no_number(check: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match="is empty"):
        check(" (-) ")


def test_no_caller_can_bring_a_name_of_its_own() -> None:
    with pytest.raises(ValueError, match="QUOTATION MARK"):
        check_caller('"Jane" <1>')


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(ValueError, match="must be a regular expression: "):
        number_pattern("[0-9")


@given(TRICKS | st.text(max_size=45), st.sampled_from([None, ANYTHING]))
def test_whatever_the_request_says_the_dial_string_keeps_its_form(
    text: str, pattern: LinearPattern | None
) -> None:
    try:
        number = check_number(text, pattern)
    except ValueError:
        return
    dialled = dial_string("PJSIP/{number}@trunk", number)
    assert re.fullmatch(r"PJSIP/[0-9A-Za-z+*._-]{1,40}@trunk", dialled)


@given(TRICKS)
def test_a_number_that_was_not_checked_is_not_dialled(text: str) -> None:
    try:
        dialled = dial_string("PJSIP/{number}@trunk", text)
    except ValueError:
        return
    assert re.fullmatch(r"PJSIP/[0-9A-Za-z+*._-]{1,40}@trunk", dialled)


@given(st.from_regex(r"\+[1-9][0-9]{7,14}", fullmatch=True, alphabet=st.characters(codec="ascii")))
def test_every_e164_number_is_its_own_normal_form(number: str) -> None:
    assert check_number(number) == number
    assert check_number(f"{number[:4]} ({number[4:6]}) {'-'.join(number[6:])}") == number


@pytest.mark.parametrize(
    "template",
    [
        "PJSIP/{number}@trunk",
        "PJSIP/lab/sip:{number}@127.0.0.1:5070",
        "Local/{number}@callees/n",
        "DAHDI/g1/0{number}",
    ],
)
def test_templates(template: str) -> None:
    assert check_endpoint(template) == template
    assert dial_string(template, "+49301") == template.replace("{number}", "+49301")


@pytest.mark.parametrize(
    "template", ["PJSIP/{number}", "Custom:free-{number}", "Queue:{number}_avail"]
)
def test_names_of_devices(template: str) -> None:
    assert check_device(template) == template
    assert device_name(template, "2001") == template.replace("{number}", "2001")
    with pytest.raises(ValueError, match="the name of a device"):
        check_device(f"{template}&PJSIP/boss")


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("", "exactly once"),
        ("PJSIP/trunk", "exactly once"),
        ("PJSIP/{number}@{number}", "exactly once"),
        ("{number}", "technology/resource"),
        ("{number}/trunk", "technology/resource"),
        ("PJSIP/{number}@{trunk}", "technology/resource"),
        ("PJSIP/{{number}}", "technology/resource"),
        ("PJSIP/{number}&PJSIP/boss", "technology/resource"),
        ("PJSIP/{number}@trunk,30", "technology/resource"),
        ("PJSIP/{number}@${TRUNK}", "technology/resource"),
        ("PJSIP/{number}@trunk\n", "technology/resource"),
        ("PJSIP/{number}" + "x" * 200, "longer than 200"),
    ],
)
def test_templates_that_cannot_be_dialled(template: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_endpoint(template)


def test_a_dial_string_needs_a_template() -> None:
    with pytest.raises(ValueError, match="exactly once"):
        dial_string("PJSIP/trunk", "+493023125001")
