"""Finds a secret in a text that may repeat it, also in another spelling. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

HIDDEN: Final = "[secret]"
"""What stands in a secret's place."""

_SHORTEST: Final = 8
_BASE64_LINE_END: Final = r"(?:\s|\\{1,16}[rn]|%0[AD]){0,8}"
_NAMED_ENTITIES: Final = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "(?:apos|#39)"}


def hide_secrets(text: str, headers: Iterable[str]) -> str:
    """Return a server's words without what stands in the `headers` that were sent to it.

    An error may repeat the request; the agent, the transcript and whoever reads it shall not see
    the key: neither as it was sent, nor escaped as in JSON, a URL or HTML, nor in hexadecimal or
    base64, whole or within more. Words of less than eight characters are no keys.

    The first time takes 0.1 s and more, and each megabyte half a second: ask `may_hold_secrets`
    first, and do it in a thread.
    """
    headers = tuple(headers)
    if not _secrets(headers):
        return text
    pattern, mark = _pattern(headers), _mark_between(headers)
    # Piece by piece, for while one is looked through no other thread runs.
    pieces = [text] if mark is None else text.split(mark)
    return (mark or "").join([pattern.sub(HIDDEN, piece) for piece in pieces])


def may_hold_secrets(text: str, headers: Iterable[str]) -> bool:
    """Return False where `hide_secrets` has nothing to do, as with nearly all that servers say.

    Of letters and digits in a row either all stand there as they are, or one of them is escaped,
    which nobody needs to do. To find that out takes milliseconds for a megabyte.
    """
    secrets = _secrets(tuple(headers))
    if not secrets:
        return False
    small = text.lower()
    if any(_in_hexadecimal(secret) in small or _longest_run(secret) in text for secret in secrets):
        return True
    if _ESCAPED_NEEDLESSLY.search(text) is not None:
        return True
    in_one_line = _ESCAPED_LINE_END.sub("", "".join(text.split()))
    # What stood before may have been taken, with the first two, for the end of a line.
    return any(
        _longest_run(_in_base64(secret, before))[2:] in in_one_line
        for secret in secrets
        for before in range(3)
    )


_CODE_OF_ALNUM: Final = "(?:3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa])"
_ESCAPED_NEEDLESSLY: Final = re.compile(
    rf"%(?:25){{0,4}}{_CODE_OF_ALNUM}|\\(?:u00|x){_CODE_OF_ALNUM}"
    rf"|#x0{{0,4}}{_CODE_OF_ALNUM};|#0{{0,4}}(?:4[89]|5[0-7]|6[5-9]|[78][0-9]|9[0789]|1[01][0-9]|12[0-2]);"
)
"""A letter or a digit in an escape of `_character`, by its end."""
_ESCAPED_LINE_END: Final = re.compile(r"\\{1,16}[rn]|%0[AD]")


def _longest_run(text: str) -> str:
    return max(re.findall("[A-Za-z0-9]+", text), key=len, default="")


@cache
def _secrets(headers: tuple[str, ...]) -> tuple[str, ...]:
    # The longest first: one may be the beginning of another.
    found = {word for value in headers for word in _words(value)}
    return tuple(sorted(found, key=len, reverse=True))


@cache
def _pattern(headers: tuple[str, ...]) -> re.Pattern[str]:
    spellings = [spelling for secret in _secrets(headers) for spelling in _spellings(secret)]
    return re.compile("|".join(spellings))


def _mark_between(headers: tuple[str, ...]) -> str | None:
    """Return a character that stands in no spelling of a secret; None: each may."""
    secrets = "".join(_secrets(headers))
    return next((mark for mark in ',"{}<>' if mark not in secrets), None)


def _words(header: str) -> Iterator[str]:
    for word in header.split():
        if len(word) >= _SHORTEST:
            yield word
            yield from _within(word)


def _within(word: str) -> Iterator[str]:
    """Return what a word says in base64, such as the password in `Basic dXNlcjpwYXNzd29yZA==`."""
    try:
        plain = base64.b64decode(word, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return
    if plain.isprintable():
        yield from (part for part in (plain, *plain.split(":")) if len(part) >= _SHORTEST)


def _spellings(secret: str) -> Iterator[str]:
    yield "".join(map(_character, secret))
    yield "".join(f"[{digit}{digit.upper()}]" for digit in _in_hexadecimal(secret))
    for before in range(3):
        yield _BASE64_LINE_END.join(
            "[+-]" if sign in "+-" else _character(sign) + "|_" if sign == "/" else _character(sign)
            for sign in _in_base64(secret, before)
        )


def _in_hexadecimal(secret: str) -> str:
    return secret.encode().hex()


def _in_base64(secret: str, before: int) -> str:
    """Return the signs that are the same whatever stands around it, after so many bytes modulo
    3."""
    data = bytes(before) + secret.encode()
    signs = base64.b64encode(data).decode().rstrip("=")
    first = (before * 8 + 5) // 6
    # The last sign may hold bits of what follows.
    return signs[first : len(data) * 8 // 6]


def _character(character: str) -> str:
    """Return a pattern for one character in any spelling, also escaped more than once."""
    code = f"{ord(character):02x}"
    hexadecimal = "".join(f"[{digit}{digit.upper()}]" for digit in code)
    ways = [
        rf"%(?:25){{0,4}}{hexadecimal}",
        rf"\\{{1,16}}(?:u00|x){hexadecimal}",
        rf"&(?:amp;){{0,4}}#(?:x0{{0,4}}{hexadecimal}|0{{0,4}}{ord(character)});",
    ]
    if not character.isalnum():
        ways.append(rf"\\{{1,16}}{re.escape(character)}")
    if character in _NAMED_ENTITIES:
        ways.append(f"&(?:amp;){{0,4}}{_NAMED_ENTITIES[character]};")
    return f"(?:{re.escape(character)}|{'|'.join(ways)})"
