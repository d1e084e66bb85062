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
    """
    pattern = _pattern(tuple(headers))
    return text if pattern is None else pattern.sub(HIDDEN, text)


@cache
def _pattern(headers: tuple[str, ...]) -> re.Pattern[str] | None:
    # The longest first: one may be the beginning of another.
    secrets = sorted({word for value in headers for word in _words(value)}, key=len, reverse=True)
    spellings = [spelling for secret in secrets for spelling in _spellings(secret)]
    return re.compile("|".join(spellings)) if spellings else None


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
    yield "".join(f"[{digit}{digit.upper()}]" for digit in secret.encode().hex())
    for before in range(3):
        yield _BASE64_LINE_END.join(
            "[+-]" if sign in "+-" else _character(sign) + "|_" if sign == "/" else _character(sign)
            for sign in _in_base64(secret, before)
        )


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
