"""The `.env` file and the environment: what in them looks like a setting and is none."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dotenv.parser import parse_stream

from ari_app.settings import Settings

_ALIKE: Final = 0.89
_SHORTEST_BEGINNING: Final = 7
_VARIABLE: Final = re.compile(r"\$\{([^}:]*)\}")
"""What python-dotenv puts another value in place of, also between single quotes."""
_NAME_INSIDE: Final = re.compile(r"(?:[\w./:-]|\s)([A-Z_]{5,})=")
_OPENED: Final = re.compile(r"\s*(?:export\s+)?[^=\s]+\s*=\s*['\"]")
_PREFIXES: Final = (
    *("ARI_", "AUDIOSOCKET_", "ELEVENLABS_", "PRECALL_", "DTMF_", "TWILIO_", "SPEND_"),
    "CLUSTER_",
)
"""What begins like this in our own file is meant for us."""


def doubtful_names(env_file: str | None) -> list[str]:
    """Say what in the file and in the environment looks like a setting and is none.

    Returns:
        A sentence each. Names that are like none of ours are somebody else's and are not told.
    """
    found: dict[str, str] = {}
    values: dict[str, Any] = {}
    last: dict[str, Any] = {}
    sentences = []
    given = {name.upper() for name, value in os.environ.items() if value}
    bindings = _bindings(env_file)
    written = {binding.key for binding in bindings}
    for binding in bindings:
        where = f"{env_file}:{_line(binding)}"
        unknown = set(_VARIABLE.findall(binding.value or "")) - written - os.environ.keys()
        if unknown and binding.key is not None and binding.key.lower() in Settings.model_fields:
            sentences.append(
                f"{where}: what ${{...}} names in the value of {binding.key} is not there, so it "
                "is left out of the value. A text with these signs has to be set in the "
                "environment."
            )
        if binding.error or (binding.key is not None and binding.value is None):
            sentences.append(f"{where} {_what_is_wrong(binding)}")
        elif binding.key is not None:
            first = values.setdefault(binding.key.upper(), binding)
            if first.value != binding.value and binding.key.lower() in Settings.model_fields:
                sentences.append(
                    f"{where} sets {binding.key.upper()} again, after line {_line(first)}. "
                    "The last one counts."
                )
            if (other := _swallowed(binding)) is not None:
                sentences.append(
                    f"{where}: the value of {binding.key} has {other}= in it, so {other} is not "
                    "set. Let it begin a line of its own."
                )
            found.setdefault(binding.key.upper(), where)
            given |= {binding.key.upper()} if binding.value else set()
            last[binding.key.upper()] = binding
    known = {name.upper() for name in Settings.model_fields}
    for name, value in os.environ.items():
        binding = last.get(name.upper()) if name.upper() in known else None
        if binding is not None and binding.value != value:
            sentences.append(
                f"{env_file}:{_line(binding)} says {name.upper()}, and the environment says "
                "something else, which counts."
            )
    free = {each.replace("_", ""): each for each in known - given}
    for name in found.keys() | given - known:
        ours = name in found and name.startswith(_PREFIXES) and not name.startswith("ARI_APP_")
        meant = _meant(name, free, loosely=name in found)
        if meant is None and name in found:
            # What is given already is meant by a slip alone.
            meant = next((each for each in sorted(known) if _is_a_slip(name, each)), None)
        if name not in known and (meant or ours):
            likely = f"It is likely {meant}" if meant else "docs/settings.md has all that there are"
            where = found.get(name, "The environment")
            likely += ", which is set as well" if meant in given else ""
            sentences.append(f"{where} says {name}, which is no setting. {likely}.")
    return sorted(sentences)


def _bindings(env_file: str | None) -> list[Any]:
    if env_file is None or not Path(env_file).is_file():
        return []
    with Path(env_file).open(encoding="utf-8-sig") as file:
        return list(parse_stream(file))


def _swallowed(binding: Any) -> str | None:
    """Return the setting that stands in the value of another one: a line's end is missing before
    it, as where something is added to a file whose last line has none."""
    names = _NAME_INSIDE.findall(binding.value or "")
    ends = [name for name in Settings.model_fields if any(n.endswith(name.upper()) for n in names)]
    return max(ends, key=len).upper() if ends else None


def _line(binding: Any) -> int:
    """Return the line in which a binding begins: python-dotenv counts from the empty ones before
    it."""
    string = binding.original.string
    return int(binding.original.line) + _line_ends(string[: len(string) - len(string.lstrip())])


def _line_ends(text: str) -> int:
    return len(re.findall(r"\r\n|\n|\r", text))


def _what_is_wrong(binding: Any) -> str:
    """Say what is wrong with what python-dotenv could not read; the end of a sentence."""
    if _OPENED.match(binding.original.string) is None:
        return "is not NAME=value, so it is passed over."
    # A quote that is not closed takes all up to the next one.
    first = _line(binding)
    last = first + _line_ends(binding.original.string.strip())
    more = f", with the lines up to {last}" if last > first else ""
    return (
        "has a quote that does not end where the value ends, so it is passed over"
        f"{more}. Close it at the line's end, or take both quotes out."
    )


def _meant(name: str, plain: Mapping[str, str], *, loosely: bool) -> str | None:
    """Return the setting that somebody meant who wrote this name; None: none that can be told.

    Args:
        name: What was written.
        plain: What it may be, each by its name without underscores.
        loosely: The beginning of a setting's name is enough.
    """
    said = name.replace("_", "")
    alike = difflib.get_close_matches(said, plain, 1, _ALIKE)
    if not alike and loosely:
        begun = len(name) > _SHORTEST_BEGINNING
        likely = [
            spelt
            for spelt, each in plain.items()
            if (begun and each.startswith(name)) or _is_a_slip(name, each)
        ]
        alike = difflib.get_close_matches(said, likely, 1, 0.0)
    return plain[alike[0]] if alike else None


def _is_a_slip(name: str, meant: str) -> bool:
    """Whether one letter is wrong, missing or too many, or two have changed places."""
    while name and meant and name[0] == meant[0]:
        name, meant = name[1:], meant[1:]
    while name and meant and name[-1] == meant[-1]:
        name, meant = name[:-1], meant[:-1]
    return max(len(name), len(meant)) <= 1 or (len(name) == 2 and name == meant[::-1])
