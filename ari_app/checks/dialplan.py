"""Finds callers who would be left alone: looks through extensions.conf. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ari_app.checks.conf_file import ConfFile, Entry

# A priority may have a label: `n(bye)`.
_STEP: Final = re.compile(r"\s*[^,(]+(?:\([^),]*\))?\s*,\s*(?P<step>.*)")
_STASIS: Final = re.compile(r"Stasis\(\s*(?P<app>[^,)]*)", re.IGNORECASE)
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]+")
_GLOBAL: Final = re.compile(r"\$\{(\w+)\}")
_CHECKED: Final = "STASISSTATUS"


@dataclass(slots=True)
class Extension:
    """The steps of one extension in a context."""

    context: str
    pattern: str
    steps: list[Entry] = field(default_factory=list)


class Dialplan:
    """What extensions.conf says, as far as the questions here go."""

    def __init__(self, conf: ConfFile) -> None:
        found = conf.first("globals")
        self._globals = {e.key: e.value for e in found.entries} if found is not None else {}
        self.contexts = {
            section.name
            for section in conf.sections
            if not section.is_template and section.name.lower() not in ("general", "globals")
        }
        self._extensions = list(_extensions(conf))

    def has(self, context: str, pattern: str) -> bool:
        """Whether a context has an extension of exactly this pattern."""
        return any(e.context == context and e.pattern == pattern for e in self._extensions)

    def hand_overs(self, app: str) -> list[tuple[Extension, int]]:
        """Every step that hands a call to the application: its extension, and its place there."""
        return [
            (extension, place)
            for extension in self._extensions
            for place, entry in enumerate(extension.steps)
            if (found := _STASIS.search(entry.value)) and self._resolved(found["app"]) == app
        ]

    def looks_after(self, extension: Extension, place: int) -> bool:
        """Whether the steps after this one, or those that they go to, look at STASISSTATUS.

        Where a step leads is not computed: every context that it names counts, and a name that
        only the call will tell counts as looked after.
        """
        texts = [entry.value for entry in extension.steps[place + 1 :]]
        seen: set[str] = set()
        while texts:
            text = texts.pop()
            if _CHECKED in text or re.search(r"Goto[^$]*\(\$\{", text):
                return True
            for name in (self.contexts & set(_WORD.findall(text))) - seen:
                seen.add(name)
                texts += [
                    entry.value
                    for each in self._extensions
                    if each.context == name
                    for entry in each.steps
                ]
        return False

    def _resolved(self, text: str) -> str:
        return _GLOBAL.sub(lambda found: self._globals.get(found[1], found[0]), text).strip()


def _extensions(conf: ConfFile) -> Iterator[Extension]:
    for section in conf.sections:
        if section.is_template:
            continue
        found: dict[str, Extension] = {}
        current = ""
        for entry in section.entries:
            match entry.key.lower():
                case "exten":
                    current, _, text = (part.strip() for part in entry.value.partition(","))
                case "same":
                    text = entry.value
                case _:
                    continue
            match = _STEP.fullmatch(text)
            if match is None:
                continue
            step = Entry(entry.key, match["step"], entry.file, entry.line)
            found.setdefault(current, Extension(section.name, current)).steps.append(step)
        yield from found.values()
