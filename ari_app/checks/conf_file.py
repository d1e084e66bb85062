"""Reads Asterisk's configuration files: the dialect of ini that `main/config.c` reads. Pure.

Understood are comments (`;`, `\\;`, `;-- --;`), sections with templates (`[a](!)`,
`[b](a)`, `[a](+)`), `key = value` and `key => value`, `#include` and `#tryinclude` with
wildcards and braces. A byte order mark at a file's beginning is passed over, and only a line feed
ends a line. `#exec` runs a program, so it is passed over. What Asterisk cannot understand, and an
`#include` of what is not there, end the reading of its file, as they do in Asterisk, which then
takes nothing at all where it is no included one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

Read = Callable[[str], Sequence[tuple[str, str]] | None]
"""The files that the name in an `#include` stands for: their names and their texts, as far as they
can be read; None: there are none."""

_SECTION: Final = re.compile(r"\[(?P<name>[^\]]*)\]\s*(?:\((?P<options>[^)]*)\))?")
_INCLUDE: Final = re.compile(
    r"#(?P<word>(?:try)?include)\s+[\"<]?(?P<name>[^\">]+)[\">]?", re.IGNORECASE
)
_DEEPEST_INCLUDE: Final = 10
_FIRST_COUNTS: Final = ("rtp.conf", "modules.conf")
"""Asterisk looks keys of these up, and is given the first; through others it goes to the end."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key = value`, and where it stands."""

    key: str
    value: str
    file: str
    line: int

    @property
    def where(self) -> str:
        """`extensions.conf:12`."""
        return f"{self.file}:{self.line}"


@dataclass(slots=True)
class Section:
    """A section with what it inherits before what is its own.

    Attributes:
        is_template: Marked with `(!)`: it is nothing by itself.
        first_counts: Of several entries of a key; otherwise the last one does.
    """

    name: str
    file: str
    line: int
    is_template: bool = False
    first_counts: bool = False
    entries: list[Entry] = field(default_factory=list)

    @property
    def where(self) -> str:
        """`pjsip.conf:40`."""
        return f"{self.file}:{self.line}"

    def get(self, key: str) -> Entry | None:
        """Return the entry of this key that counts."""
        found = [entry for entry in self.entries if _same(entry.key, key)]
        return found[0 if self.first_counts else -1] if found else None

    def value(self, key: str, default: str = "") -> str:
        """Return the value of this key that counts."""
        entry = self.get(key)
        return default if entry is None else entry.value


@dataclass(slots=True)
class ConfFile:
    """A file with all that it includes.

    Attributes:
        sections: In order; several may have one name. Templates are among them.
        broken: Where the reading of a file ended before its end, and why: a sentence each.
    """

    sections: list[Section] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def named(self, name: str) -> list[Section]:
        """Return all sections of this name that are no templates."""
        return [s for s in self.sections if _same(s.name, name) and not s.is_template]

    def first(self, name: str) -> Section | None:
        """Return the section that Asterisk looks at where only one is to be."""
        return next(iter(self.named(name)), None)


def parse_conf(name: str, text: str, read: Read) -> ConfFile:
    """Read a file.

    Args:
        name: How places in it are called.
        text: What it holds.
        read: Called for each `#include` and `#tryinclude`.
    """
    conf = ConfFile()
    _Parser(conf, read, first_counts=name in _FIRST_COUNTS).take(name, text, 0)
    return conf


def alternatives(pattern: str) -> list[str]:
    """Return the names that one with `{a,b}` stands for, in their order: Asterisk's `#include`
    looks for each of them."""
    before, _, rest = pattern.partition("{")
    parts, depth = [""], 0
    for at, character in enumerate(rest):
        if depth == 0 and character == "}":
            after = rest[at + 1 :]
            return [each for part in parts for each in alternatives(before + part + after)]
        if depth == 0 and character == ",":
            parts.append("")
            continue
        depth += (character == "{") - (character == "}")
        parts[-1] += character
    return [pattern]  # no brace, or one that is never closed


class _Parser:
    def __init__(self, conf: ConfFile, read: Read, *, first_counts: bool) -> None:
        self._conf = conf
        self._read = read
        self._first_counts = first_counts
        self._section: Section | None = None

    def take(self, name: str, text: str, depth: int) -> None:
        for number, line in _lines(text):
            problem, said = "", line
            if line.startswith("#"):
                problem = self._include(_INCLUDE.fullmatch(line), depth)
            elif line.startswith("["):
                problem = self._begin(name, number, _SECTION.match(line))
            elif self._section is None:
                problem, said = "before any section", line.partition("=")[0].strip()
            elif "=" in line:
                key, _, value = line.partition("=")
                value = value.removeprefix(">").strip()
                # `key += value` of a section that inherits is one more entry, too.
                entry = Entry(key.rstrip(" \t+"), value, name, number)
                self._section.entries.append(entry)
            if problem:
                ends = "reads no further there" if depth else f"takes nothing of {name} then"
                where = f"{name}:{number}"
                self._conf.broken.append(f"{where} says {said}, {problem}. Asterisk {ends}.")
                return

    def _include(self, found: re.Match[str] | None, depth: int) -> str:
        """Read what a line includes; what is wrong with it, empty when nothing is."""
        if found is None or depth >= _DEEPEST_INCLUDE:
            return ""
        files = self._read(found["name"].strip())
        if files is None and found["word"].lower() == "include":
            return "and there is no such file; #tryinclude would let it be missing"
        for included, content in files or ():
            self.take(included, content, depth + 1)
        return ""

    def _begin(self, file: str, line: int, head: re.Match[str] | None) -> str:
        """Begin a section; what is wrong with its head, empty when nothing is."""
        if head is None:
            return "without a closing bracket"
        name = head["name"]
        words = [word.strip() for word in (head["options"] or "").split(",") if word.strip()]
        section = self._find(name) if "+" in words else None
        if section is None:
            if "+" in words:
                return f"and there is no section {name} before it to add to"
            section = Section(
                name, file, line, is_template="!" in words, first_counts=self._first_counts
            )
        inherited = []
        for word in words:
            if word in ("!", "+"):
                continue
            parent = self._find(word)
            if parent is None:
                return f"and there is no section {word} before it to inherit from"
            inherited += parent.entries
        section.entries.extend(inherited)
        if "+" not in words:
            self._conf.sections.append(section)
        self._section = section
        return ""

    def _find(self, name: str) -> Section | None:
        return next((s for s in self._conf.sections if _same(s.name, name)), None)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Return the lines that say something, without comments, with their numbers."""
    in_block = False
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        kept, in_block = _without_comments(line, in_block)
        if kept := kept.strip():
            yield number, kept


def _without_comments(line: str, in_block: bool) -> tuple[str, bool]:
    kept = []
    at = 0
    while at < len(line):
        if in_block:
            end = line.find("--;", at)
            if end < 0:
                break
            in_block, at = False, end + 3
        elif line.startswith("\\;", at):
            kept.append(";")
            at += 2
        elif line[at] == ";":
            if not line.startswith(";--", at) or line.startswith(";---", at):
                break
            in_block, at = True, at + 3
        else:
            kept.append(line[at])
            at += 1
    return "".join(kept), in_block


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()
