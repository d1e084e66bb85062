"""Telephone numbers from requests, and the dial strings that are made of them. Pure.

A dial string is a small language of Asterisk's (`&` dials a second destination, `/` and `@`
choose the way, `,` begins options). A number therefore consists of a fixed set of characters
which mean nothing there, whatever pattern a setting allows. No sentence repeats a number; one that
stands in its way is named.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from ari_app.patterns import LinearPattern

_MAX_TEXT: Final = 40
_MAX_TARGET: Final = 80
SAFE_NUMBER: Final = re.compile(r"[0-9A-Za-z+*._-]{1,40}")
_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_SEPARATORS: Final = re.compile(r"[ ()./-]")
_LETTER: Final = re.compile(r"[A-Za-z]")
_TRUNK_ZERO: Final = re.compile(r"\( *0 *\)")
_MINUS: Final = "\u2212"
# It turns the order of what a person reads.
_RIGHT_TO_LEFT_OVERRIDE: Final = "\u202e"
_CONTROLS: Final = {"\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN"}


def check_number(text: str, pattern: LinearPattern | None = None, setting: str = "") -> str:
    """Check a number that is to be dialled.

    Args:
        text: The number as people write and paste it: spaces, hyphens and dashes, dots, slashes,
            brackets and marks that nobody sees may stand between its digits.
        pattern: What the whole number must match, see `number_pattern`: as it was given or,
            when it has no letters, without separators. None is E.164 (ITU-T E.164: +, country
            code, 15 digits at most).
        setting: Where another pattern may be set, to name it; empty: nowhere.

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
        if pattern is not None and SAFE_NUMBER.fullmatch(number) and pattern.fullmatch(number):
            return number
    if pattern is None:
        _only(_SEPARATORS.sub("", text), r"[0-9+]", "number")
        raise ValueError(
            "The number is not in international form: + and country code, 7 to 15 digits, such as "
            "+493023125001." + (f" {setting} may allow others." if setting else "")
        )
    _only(spellings[-1], r"[0-9A-Za-z+*._-]", "number")
    where = f": see {setting}" if setting else ""
    raise ValueError(f"The number does not match the pattern that is set for numbers{where}.")


def check_target(text: str, pattern: LinearPattern | None = None, setting: str = "") -> str:
    """Check the target of a transfer that the dialplan carries out: a number, or an extension.

    Args:
        text: As for `check_number`. The names of extensions have letters in them and stay
            as they are.
        pattern: What the whole target must match; None leaves it to the dialplan.
        setting: Where it is set, to name it.

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
    where = f": see {setting}" if setting else ""
    raise ValueError(f"The target does not match the pattern that is set for transfers{where}.")


def check_caller(text: str) -> str:
    """Check the number that a callee is shown, written as for `check_number`.

    Raises:
        ValueError: With a sentence that says what it may have in it.
    """
    number = _spellings(_plain(text, "number"), "number")[-1]
    if caller_id(number) is None:
        _only(number, r"[0-9A-Za-z+*#._ -]", "number")
    return number


def _plain(text: str, what: str, longest: int = _MAX_TEXT) -> str:
    """Return `text` with plain spaces and hyphens and without marks that nobody sees."""
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
    """Return `text`, and without separators when it has no letters."""
    if _LETTER.search(text):
        return (text,)
    if _TRUNK_ZERO.search(text):
        raise ValueError(
            f"The {what} has a (0) in it, which is not dialled from abroad: leave it out."
        )
    bare = _SEPARATORS.sub("", text)
    if not bare:
        raise ValueError(f"The {what} is empty.")
    return text, bare


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


TARGET_PATTERN: Final = "^[A-Za-z0-9+*#._@-]{1,80}$"
"""Where a caller may be transferred to: a number, or the name of an extension."""


CALLER_ID_PATTERN: Final = "^[0-9A-Za-z+*#._ -]{1,40}$"
"""No quotes and no angle brackets: Asterisk would read a name and a number out of them."""


TEXT_RULE: Final = (
    'one line of 1000 characters at most, without any of " \\ ` $ { } ; | & < > and without '
    "control characters"
)


# Nor separators of lines, marks of direction or private signs.
TEXT_PATTERN: Final = (
    "^[^\\u0000-\\u001f\\u007f-\\u009f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff"
    '\\ue000-\\uf8ff"\\\\`${};|&<>]{0,1000}$'
)
"""Text that means nothing but itself. Like the others, for Python and for JSON Schema."""


# A `$` would also match before a last line feed.
# Halves of characters, which Python's texts may have in them, JSON has not.
_TEXT: Final = re.compile(TEXT_PATTERN[1:-1].replace("\\ue000", "\\ud800"))


_CALLER_ID: Final = re.compile(CALLER_ID_PATTERN[1:-1])


_TARGET: Final = re.compile(TARGET_PATTERN[1:-1])


def text_value(text: str) -> str:
    """Check free text that becomes the value of a variable.

    Returns:
        The text, byte for byte.

    Raises:
        ValueError: It has something in it that a dialplan could take for more than text.
    """
    if not _TEXT.fullmatch(text):
        raise ValueError(f"the value must be {TEXT_RULE}")
    return text


def transfer_target(text: str) -> str:
    """Return a transfer's target as the value of a variable; empty when it is none."""
    return text if _TARGET.fullmatch(text) else ""


def caller_id(text: str) -> str | None:
    """Return a number as the caller's id of a call that we place; None when it is none.

    The number of somebody who calls is what their telephone says, not what anybody has checked.
    """
    return text if _CALLER_ID.fullmatch(text) else None
