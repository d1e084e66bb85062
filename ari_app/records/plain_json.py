"""Plain JSON of whatever somebody has sent, as every database and every reader takes it. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

_MAX_DEPTH: Final = 64
_MAX_INTEGER: Final = 2**53
# What no database takes: halves of characters, and the character that ends texts in C.
_NO_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")


def plain_text(text: str) -> str:
    """Return a text without what no database takes."""
    if text.isascii() and "\0" not in text:
        return text
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


def plain_json(value: Any, depth: int = 0) -> Any:
    """Return a copy of a value of plain JSON: what is not is written as a text, what is too deep
    left out."""
    # Nearly everything is of one of these very types.
    kind = type(value)
    if kind is str:
        return plain_text(value)
    if value is None or kind is bool:
        return value
    match value:
        case int():
            return value if abs(value) <= _MAX_INTEGER else str(value)
        case float():
            return value if math.isfinite(value) else None
        case str():
            return plain_text(value)
        case _ if depth >= _MAX_DEPTH:
            return "…"
        case Mapping():
            return {
                plain_text(str(name)): plain_json(each, depth + 1) for name, each in value.items()
            }
        case list() | tuple():
            return [plain_json(each, depth + 1) for each in value]
        case _:
            return plain_text(str(value))


def stamp(moment: datetime | None) -> str | None:
    """Write a moment down, in UTC, to the microsecond: as text it sorts by time."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
