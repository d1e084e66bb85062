"""How numbers are dialled, and what their devices are called: templates of the settings. Pure."""

from __future__ import annotations

import re
from typing import Final

from ari_app.line.numbers import SAFE_NUMBER

_PLACE: Final = "{number}"
_ENDPOINT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*/[A-Za-z0-9+*._:;=@/{}-]+")
_DEVICE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*[/:][A-Za-z0-9+*._:;=@/{}-]+")
_MAX_TEMPLATE: Final = 200


def check_endpoint(template: str) -> str:
    """Check how numbers are dialled, such as `PJSIP/{number}@trunk`.

    Returns:
        The template.

    Raises:
        ValueError: It has not exactly one `{number}`, or is not of the form technology/resource.
    """
    return _check(template, _ENDPOINT, "technology/resource, such as PJSIP/{number}@trunk")


def check_device(template: str) -> str:
    """Check how the device of a number is called, such as `PJSIP/{number}`.

    Returns:
        The template.

    Raises:
        ValueError: It has not exactly one `{number}`, or cannot be the name of a device.
    """
    return _check(template, _DEVICE, "the name of a device, such as PJSIP/{number}")


def _check(template: str, shape: re.Pattern[str], what: str) -> str:
    if len(template) > _MAX_TEMPLATE:
        raise ValueError(f"must not be longer than {_MAX_TEMPLATE} characters")
    if template.count(_PLACE) != 1:
        raise ValueError(f"must have {_PLACE} in it exactly once: {what}")
    if not shape.fullmatch(template) or set("{}") & set(template.replace(_PLACE, "")):
        raise ValueError(f"must be {what}")
    return template


def dial_string(template: str, number: str) -> str:
    """Put a checked number into its place.

    Raises:
        ValueError: The template or the number has not been checked.
    """
    return _fill(check_endpoint(template), number)


def device_name(template: str, number: str) -> str:
    """Put a checked number into its place.

    Raises:
        ValueError: The template or the number has not been checked.
    """
    return _fill(check_device(template), number)


def _fill(template: str, number: str) -> str:
    if not SAFE_NUMBER.fullmatch(number):
        raise ValueError("The number has characters in it that cannot be dialled.")
    return template.replace(_PLACE, number)
