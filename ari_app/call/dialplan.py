"""What of others' choosing may reach Asterisk: the values of variables, and a caller's id. Pure.

A dialplan may put a variable anywhere: into an expression (`$["${X}" = "y"]`), an argument of
`Dial()`, `System()`, `EVAL()`. Whatever has a meaning in one of these places stays outside, so that
a caller, an agent or a dialer can choose words and nothing else. See also
:mod:`ari_app.call.numbers` for what is dialled.

Source: README-SERIOUSLY.bestpractices of Asterisk, on dialplan injection.
"""

from __future__ import annotations

import re
from typing import Final

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
_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
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


def word(text: str) -> str:
    """A name or a reason as the value of a variable; empty when it is no word."""
    return text if _WORD.fullmatch(text) else ""


def transfer_target(text: str) -> str:
    """A transfer's target as the value of a variable; empty when it is none."""
    return text if _TARGET.fullmatch(text) else ""


def caller_id(text: str) -> str | None:
    """A number as the caller's id of a call that we place; None when it is none.

    The number of somebody who calls is what their telephone says, not what anybody has checked.
    """
    return text if _CALLER_ID.fullmatch(text) else None
