"""Telephone numbers from requests, and the dial strings that are made of them. Pure.

A dial string is a small language of Asterisk's (``&`` dials a second destination, ``/`` and ``@``
choose the way, ``,`` begins options). A number therefore consists of a fixed set of characters
which mean nothing there, whatever pattern a setting allows. No sentence repeats a number; one that
stands in its way is named.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from ari_app.line.asterisk.dialplan import caller_id, transfer_target
from ari_app.patterns import LinearPattern

_MAX_TEXT: Final = 40
_MAX_TARGET: Final = 80
_SAFE_NUMBER: Final = re.compile(r"[0-9A-Za-z+*._-]{1,40}")
_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_SEPARATORS: Final = re.compile(r"[ ()./-]")
_LETTER: Final = re.compile(r"[A-Za-z]")
_TRUNK_ZERO: Final = "(0)"
_MINUS: Final = "\u2212"
# It turns the order of what a person reads.
_RIGHT_TO_LEFT_OVERRIDE: Final = "\u202e"
_CONTROLS: Final = {"\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN"}

_PLACE: Final = "{number}"
_TEMPLATE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*/[A-Za-z0-9+*._:;=@/{}-]+")
_MAX_TEMPLATE: Final = 200


def check_number(text: str, pattern: LinearPattern | None = None) -> str:
    """Check a number that is to be dialled.

    Args:
        text: The number as people write and paste it: spaces, hyphens and dashes, dots, slashes,
            brackets and marks that nobody sees may stand between its digits.
        pattern: What the whole number must match, see :func:`number_pattern`: as it was given or,
            when it has no letters, without separators. None is E.164 (ITU-T E.164: +, country
            code, 15 digits at most).

    Returns:
        The number as it is dialled.

    Raises:
        ValueError: With a sentence that says what a number must look like.
    """
    text = _plain(text, "number")
    spellings = _spellings(text, "number")
    for number in spellings:
        if pattern is None and _E164.fullmatch(number):
            return number
        if pattern is not None and _SAFE_NUMBER.fullmatch(number) and pattern.fullmatch(number):
            return number
    if pattern is None:
        _only(_SEPARATORS.sub("", text), r"[0-9+]", "number")
        raise ValueError(
            "The number is not in international form: + and country code, 7 to 15 digits, such as "
            "+493023125000."
        )
    _only(spellings[-1], r"[0-9A-Za-z+*._-]", "number")
    raise ValueError("The number does not match the pattern that is set for numbers.")


def check_target(text: str, pattern: LinearPattern | None = None) -> str:
    """Check the target of a transfer that the dialplan carries out: a number, or an extension.

    Args:
        text: As for :func:`check_number`. The names of extensions have letters in them and stay
            as they are.
        pattern: What the whole target must match; None leaves it to the dialplan.

    Raises:
        ValueError: With a sentence that says what a target must look like.
    """
    text = _plain(text, "target", _MAX_TARGET)
    spellings = _spellings(text, "target")
    if pattern is None:
        spellings = spellings[-1:]
    for target in spellings:
        if transfer_target(target) and (pattern is None or pattern.fullmatch(target)):
            return target
    _only(spellings[-1], r"[A-Za-z0-9+*#._@-]", "target")
    raise ValueError("The target does not match the pattern that is set for transfers.")


def check_caller(text: str) -> str:
    """Check the number that a callee is shown, written as for :func:`check_number`.

    Raises:
        ValueError: With a sentence that says what it may have in it.
    """
    number = _spellings(_plain(text, "number"), "number")[-1]
    if caller_id(number) is None:
        _only(number, r"[0-9A-Za-z+*#._ -]", "number")
    return number


def _plain(text: str, what: str, longest: int = _MAX_TEXT) -> str:
    """``text`` with plain spaces and hyphens and without marks that nobody sees."""
    seen = (
        " "
        if unicodedata.category(character) == "Zs"
        else "-"
        if unicodedata.category(character) == "Pd" or character == _MINUS
        else character
        for character in text
        if unicodedata.category(character) != "Cf" or character == _RIGHT_TO_LEFT_OVERRIDE
    )
    plain = "".join(seen).strip()
    if not plain:
        raise ValueError(f"The {what} is empty.")
    if len(plain) > longest:
        raise ValueError(f"The {what} is longer than {longest} characters.")
    return plain


def _spellings(text: str, what: str) -> tuple[str, ...]:
    """``text``, and without separators when it has no letters."""
    if _LETTER.search(text):
        return (text,)
    if _TRUNK_ZERO in text:
        raise ValueError(
            f"The {what} has a (0) in it, which is not dialled from abroad: leave it out."
        )
    return text, _SEPARATORS.sub("", text)


def _only(text: str, allowed: str, what: str) -> None:
    odd = re.sub(allowed, "", text)[:1]
    if odd:
        name = unicodedata.name(odd, "") or _CONTROLS.get(odd, "CONTROL CHARACTER")
        raise ValueError(
            f"There is a character in the {what} that must not be there: {name} (U+{ord(odd):04X})."
        )


def number_pattern(text: str) -> LinearPattern:
    """Read the pattern of a setting, a regular expression for the whole number.

    Raises:
        ValueError: It is not one.
    """
    try:
        return LinearPattern(text)
    except ValueError as error:
        raise ValueError(f"must be a regular expression: {error}") from None


def check_endpoint(template: str) -> str:
    """Check how numbers are dialled, such as ``PJSIP/{number}@trunk``.

    Returns:
        The template.

    Raises:
        ValueError: It has not exactly one ``{number}``, or is not of the form technology/resource.
    """
    if len(template) > _MAX_TEMPLATE:
        raise ValueError(f"must not be longer than {_MAX_TEMPLATE} characters")
    if template.count(_PLACE) != 1:
        raise ValueError("must have {number} in it exactly once, such as PJSIP/{number}@trunk")
    if not _TEMPLATE.fullmatch(template) or set("{}") & set(template.replace(_PLACE, "")):
        raise ValueError("must be technology/resource, such as PJSIP/{number}@trunk")
    return template


def dial_string(template: str, number: str) -> str:
    """Put a checked number into its place.

    Raises:
        ValueError: The template or the number has not been checked.
    """
    check_endpoint(template)
    if not _SAFE_NUMBER.fullmatch(number):
        raise ValueError("The number has characters in it that cannot be dialled.")
    return template.replace(_PLACE, number)
