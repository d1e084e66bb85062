"""What can be asked of the call log: filters, words to look for, pages. Pure."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ari_app.errors import AppError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TERM: Final = re.compile(r'"([^"]*)"?|(\S+)')
_MAX_TERMS: Final = 32
_MAX_ID: Final = 2**63 - 1


class BadCursor(AppError):
    """A cursor is not one that a page has given."""

    default_code = "invalid_cursor"


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls are wanted; what is None does not matter.

    Attributes:
        from_, to: When they began: from this moment on, and before that one.
        status, result, agent_id, trunk, direction, campaign_id: As in the document.
        number: Part of the caller's, the called or a leg's number, however it is written.
        text: Words that all must have been said; what stands in quotation marks in this order.
    """

    from_: datetime | None = None
    to: datetime | None = None
    status: str | None = None
    result: str | None = None
    agent_id: str | None = None
    trunk: str | None = None
    number: str | None = None
    text: str | None = None
    direction: str | None = None
    campaign_id: str | None = None


@dataclass(frozen=True, slots=True)
class CallPage:
    """Some calls, the newest first.

    Attributes:
        calls: Their documents.
        cursor: Where the next page begins; None: there is none.
    """

    calls: list[dict[str, Any]]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """A place between two calls: after the one that began at `started_at` and is `row`."""

    started_at: datetime
    row: int

    def cursor(self) -> str:
        """Write it as a text that goes into a URL."""
        micros = (self.started_at - _EPOCH) // timedelta(microseconds=1)
        return base64.urlsafe_b64encode(f"{micros}.{self.row}".encode()).decode().rstrip("=")

    @classmethod
    def read(cls, cursor: str) -> Place:
        """Read what `cursor` has written.

        Raises:
            BadCursor: It is another text.
        """
        try:
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
            micros, _, row = text.partition(".")
            place = cls(_EPOCH + timedelta(microseconds=int(micros)), int(row))
        except (ValueError, binascii.Error, OverflowError):
            place = None
        if place is None or not 0 <= place.row <= _MAX_ID or place.cursor() != cursor:
            raise BadCursor("The cursor is none that a page has given. Begin without one.")
        return place


def plain(text: str) -> str:
    """Write words so that they are found however they are written: no accents, no capitals."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(each for each in decomposed if not unicodedata.combining(each))


def terms(text: str) -> list[str]:
    """Take apart what is looked for: words, and phrases in quotation marks; all must be there.

    Returns:
        Each as `plain` writes it; what has neither a letter nor a digit is left out.
    """
    found = [plain(phrase or word) for phrase, word in _TERM.findall(text.replace("\0", " "))]
    return [term for term in found if any(each.isalnum() for each in term)][:_MAX_TERMS]


def plain_number(number: str) -> str:
    """Write a number, or the name that stands for one, without what people put in between."""
    return "".join(each for each in number.casefold() if each.isalnum())


def number_to_find(number: str) -> str:
    """Write part of a number so that it is found in what `numbers_of` returns: `030 12` stands in
    `+49 30 12`."""
    number = plain_number(number)
    return number.lstrip("0") or number


def numbers_of(document: Mapping[str, Any]) -> str:
    """Return all numbers of a call, to look for one in."""
    legs = document.get("legs")
    of_legs = [leg.get("number") for leg in legs if isinstance(leg, dict)] if legs else []
    named = (document.get("caller_number"), document.get("called_number"), *of_legs)
    return " ".join(dict.fromkeys(plain_number(str(each)) for each in named if each))


def words_of(document: Mapping[str, Any], max_bytes: int) -> str:
    """Return what was said in a call and noted about it, to look for words in.

    Args:
        document: The call.
        max_bytes: So much of it, in UTF-8; a database cannot take any amount.
    """
    said = [
        str(each.get("text") or "")
        for name in ("turns", "notes")
        for each in document.get(name) or ()
        if isinstance(each, dict)
    ]
    text = plain("\n".join(said)).replace("\0", " ")
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore")
