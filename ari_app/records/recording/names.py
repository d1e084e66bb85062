"""The names of recordings, made so that a person finds one and a program knows whose it is. Pure.

`2026-11-28/153012-+493023125001-ID.wav`: the day and the time at which the call began, here; the
other party's number; the call. A second one of the same call is `…-ID.2.wav`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import count
from pathlib import PurePath, PurePosixPath
from typing import Any, Final, TypeVar

from ari_app.process.logs import mask_number

FORMATS: Final = {"wav": "audio/wav", "flac": "audio/flac", "opus": "audio/ogg"}
"""The formats, which are the ends of names too, with their media types."""

_NOT_IN_A_NUMBER: Final = re.compile(r"[^0-9A-Za-z+]+")
_MAX_NUMBER: Final = 32
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NAME: Final = re.compile(
    r"(?:[0-9]{6}-(?P<number>[0-9A-Za-z+]+)-)?(?P<session_id>[A-Za-z0-9_-]{1,64})(?:\.[0-9]+)?"
    r"\.(?:wav|flac|opus)(?:\.part)?"
)

P = TypeVar("P", bound=PurePath)


def recording_name(began: datetime, number: str, session_id: str) -> PurePosixPath:
    """Make the path of a call's recording, below the folder of all.

    Args:
        began: When the call began, in local time.
        number: The other party; what a file's name should not have in it is left out.
        session_id: The call: letters, digits, `_` and `-`.
    """
    known = _NOT_IN_A_NUMBER.sub("", number)[:_MAX_NUMBER] or "unknown"
    return PurePosixPath(f"{began:%Y-%m-%d}", f"{began:%H%M%S}-{known}-{session_id}.wav")


def name_of(document: Mapping[str, Any]) -> PurePosixPath | None:
    """Return the path that a call's recording has, if there is one, from the call's document; None:
    it does not say when the call began."""
    placed = document.get("direction") == "out"
    number = document.get("called_number" if placed else "caller_number")
    try:
        began = datetime.fromisoformat(str(document.get("started_at")))
        session_id = str(document["session_id"])
    except (ValueError, KeyError):
        return None
    masked = "numbers" in (document.get("hidden") or ())
    return recording_name(began.astimezone(), in_a_name(str(number or ""), masked), session_id)


def in_a_name(number: str, masked: bool) -> str:
    """Return a number as the name of a file has it.

    Args:
        number: The number, which may be masked already.
        masked: Its last digits alone.
    """
    return mask_number(number).replace("*", "x") if masked else number


def numbered(path: P) -> Iterator[P]:
    """Yield the paths of a call's recordings, of which `path` is the first; they do not end."""
    yield path
    for number in count(2):
        yield path.with_stem(f"{path.stem}.{number}")


def is_day(name: str) -> bool:
    """Whether a folder of this name has the recordings of a day."""
    return _DAY.fullmatch(name) is not None


def has_all(name: str) -> bool:
    """Whether a file's name is as `recording_name` makes it, with time and number."""
    return (found := _NAME.fullmatch(name)) is not None and found["number"] is not None


def for_log(name: str) -> str:
    """Return a recording's name as the log may show it: with the last digits of the number."""
    found = _NAME.fullmatch(name)
    if found is None or (number := found["number"]) is None:
        return name
    return name[: found.start("number")] + mask_number(number) + name[found.end("number") :]


def session_of(name: str) -> str | None:
    """Return the call that a file of this name is a recording of; None: it is none of ours."""
    found = _NAME.fullmatch(name)
    return None if found is None else found["session_id"]
