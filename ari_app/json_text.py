"""Reads JSON that somebody else has written. Pure."""

from __future__ import annotations

import codecs
from typing import Any, Final

import orjson

MAX_DEPTH: Final = 100
"""How deep lists and objects may stand in each other: what is deeper cannot be written again."""


class NotJson(ValueError):
    """It cannot be read. The text is a clause, such as `it is not JSON: line 1, column 5`."""


def read_json(text: bytes) -> Any:
    """Read JSON in UTF-8; a byte order mark before it is passed over.

    Raises:
        NotJson: It is not JSON, not UTF-8, or deeper than `MAX_DEPTH`. What stands in it is
            not repeated: it may be personal.
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
    if _is_deeper(value, MAX_DEPTH):
        raise NotJson(f"lists and objects stand in each other more than {MAX_DEPTH} deep in it")
    return value


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
