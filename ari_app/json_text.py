"""Reads JSON that somebody else has written. Pure."""

from __future__ import annotations

import codecs
from typing import Any, Final

import orjson

MAX_DEPTH: Final = 100
"""How deep lists and objects may stand in each other: what is deeper cannot be written again."""


class NotJson(ValueError):
    """It cannot be read. The text is a clause, such as `it is not JSON: line 1, column 5`."""


class TooDeep(NotJson):
    """Lists and objects stand in each other deeper than is taken."""


def read_json(text: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Read JSON in UTF-8; a byte order mark before it is passed over.

    Raises:
        TooDeep: It is deeper than `max_depth`.
        NotJson: It is not JSON, or not UTF-8. What stands in it is not repeated: it may be
            personal.
    """
    text = text.removeprefix(codecs.BOM_UTF8)
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise NotJson(
            f"it is not UTF-8: byte {error.start + 1} is 0x{text[error.start]:02X}. "
            "It may be Latin-1 or UTF-16; send UTF-8"
        ) from None
    if not text.strip():
        raise NotJson("it is empty")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotJson(f"it is not JSON: line {error.lineno}, column {error.colno}") from None
    if _is_deeper(text, value, max_depth):
        raise TooDeep(f"lists and objects stand in each other more than {max_depth} deep in it")
    return value


def _is_deeper(text: bytes, value: object, depth: int) -> bool:
    if text.count(b"[") + text.count(b"{") <= depth:
        return False
    level = [value]
    for _ in range(depth):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        if not inner:
            return False
        level = inner
    return any(isinstance(each, dict | list) for each in level)
