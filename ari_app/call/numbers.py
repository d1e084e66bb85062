"""Telephone numbers from requests, and the dial strings that are made of them. Pure.

A dial string is a small language of Asterisk's (``&`` dials a second destination, ``/`` and ``@``
choose the way, ``,`` begins options). A number therefore consists of a fixed set of characters
which mean nothing there, whatever pattern a setting allows. No sentence repeats a number.
"""

from __future__ import annotations

import re
from typing import Final

_MAX_TEXT: Final = 40
_SAFE_NUMBER: Final = re.compile(r"[0-9A-Za-z+*._-]{1,40}")
_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_SEPARATORS: Final = re.compile(r"[ ().-]")
_TRUNK_ZERO: Final = "(0)"

_PLACE: Final = "{number}"
_TEMPLATE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*/[A-Za-z0-9+*._:;=@/{}-]+")
_MAX_TEMPLATE: Final = 200


def check_number(text: str, pattern: re.Pattern[str] | None = None) -> str:
    """Check a number that is to be dialled.

    Args:
        text: The number as the request has it.
        pattern: What the whole number must match, see :func:`number_pattern`; None is E.164
            (ITU-T E.164: +, country code, 15 digits at most), where spaces, dots, hyphens and
            brackets may separate digits.

    Returns:
        The number as it is dialled: in E.164 without separators, otherwise as it was given.

    Raises:
        ValueError: With a sentence that says what a number must look like.
    """
    text = text.strip(" ")
    if not text:
        raise ValueError("The number is empty.")
    if len(text) > _MAX_TEXT:
        raise ValueError(f"The number is longer than {_MAX_TEXT} characters.")
    if pattern is not None:
        return _by_pattern(text, pattern)
    if _TRUNK_ZERO in text:
        raise ValueError(
            "The number has a (0) in it, which is not dialled from abroad: leave it out."
        )
    number = _SEPARATORS.sub("", text)
    if not _E164.fullmatch(number):
        raise ValueError(
            "The number is not in international form: + and country code, 7 to 15 digits, such as "
            "+4930123456."
        )
    return number


def _by_pattern(text: str, pattern: re.Pattern[str]) -> str:
    if not _SAFE_NUMBER.fullmatch(text):
        raise ValueError("The number may only have letters, digits and + * . _ - in it.")
    if not pattern.fullmatch(text):
        raise ValueError("The number does not match the pattern that is set for numbers.")
    return text


def number_pattern(text: str) -> re.Pattern[str]:
    """Read the pattern of a setting, a regular expression for the whole number.

    Raises:
        ValueError: It is not one.
    """
    try:
        return re.compile(text, re.ASCII)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error.msg}") from None


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
