"""Where this machine's apt gets its packages from, and where Asterisk can be had from there.

Pure: text of `sources.list(5)` files in, package sources out. Debian ships an Asterisk with
AudioSocket in forky and later only, Ubuntu ships one in universe. The mirror is always the one that
the machine itself is configured for.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

DEBIAN_SUITE = "forky"
"""The first Debian release since bullseye with an Asterisk; bookworm and trixie have none."""

_DEBIAN_SUITES = frozenset(
    {"bullseye", "bookworm", "trixie", "forky", "sid"}
    | {"oldoldstable", "oldstable", "stable", "testing", "unstable"}
)
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<rest>\S+\s+\S+.*)")


@dataclass(frozen=True, slots=True)
class AptEntry:
    """One repository: a mirror, one suite of it, and what is read from that suite."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""
    """Path of a keyring, or a key block as in a deb822 file; empty: apt's own trust."""
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """One set of repositories from which Asterisk may be had."""

    name: str
    """What it is called in messages and in the cache: `forky`, `noble`."""
    entries: tuple[AptEntry, ...]

    def as_deb822(self) -> str:
        """The text of a `.sources` file."""
        return "\n".join(_stanza(entry) for entry in self.entries)


def parse_one_line(text: str) -> Iterator[AptEntry]:
    """Read a `*.list` file. Lines that name no binary packages are passed over."""
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is None:
            continue
        uri, suite, *components = match["rest"].split()
        options = dict(
            word.split("=", 1) for word in shlex.split(match["options"] or "") if "=" in word
        )
        yield AptEntry(
            uri=uri,
            suite=suite,
            components=tuple(components),
            signed_by=options.get("signed-by", ""),
            trusted=options.get("trusted", "no") == "yes",
        )


def parse_deb822(text: str) -> Iterator[AptEntry]:
    """Read a `*.sources` file. Stanzas that are switched off are passed over."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes") == "no":
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield AptEntry(
                    uri=uri,
                    suite=suite,
                    components=tuple(fields.get("components", "").split()),
                    signed_by=fields.get("signed-by", ""),
                    trusted=fields.get("trusted", "no") == "yes",
                )


def recipes(entries: Iterable[AptEntry], os_release: Mapping[str, str]) -> list[Recipe]:
    """Return where to look for an Asterisk with AudioSocket, the best place first.

    `os_release` holds the fields of /etc/os-release. The list is empty on a machine whose apt
    knows neither a Debian mirror nor an Ubuntu archive.
    """
    usable = [entry for entry in entries if not entry.uri.startswith("cdrom:")]
    found: list[Recipe] = []
    for mirror in _debian_mirrors(usable):
        recipe = Recipe(DEBIAN_SUITE, (replace(mirror, suite=DEBIAN_SUITE, components=("main",)),))
        if recipe not in found:
            found.append(recipe)
    codename = os_release.get("UBUNTU_CODENAME", "")
    suites = (codename, f"{codename}-updates", f"{codename}-security")
    ubuntu = tuple(entry for entry in usable if codename and entry.suite in suites)
    if any("universe" in entry.components for entry in ubuntu):
        found.append(Recipe(codename, ubuntu))
    return found


def parse_os_release(text: str) -> dict[str, str]:
    """Read os-release(5) into a dictionary, quotes taken off."""
    pairs = (line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z_0-9]+=", line))
    return {name: "".join(shlex.split(value)) for name, value in pairs}


def _debian_mirrors(entries: list[AptEntry]) -> list[AptEntry]:
    """Return one entry for each mirror of Debian's, those signed by Debian's keyring first.

    Other vendors publish suites of the same names, so a mirror is known by its `main` component
    too; where one of them still gets in, its lack of forky makes the next one be tried.
    """
    mirrors = [
        entry for entry in entries if entry.suite in _DEBIAN_SUITES and "main" in entry.components
    ]
    return sorted(mirrors, key=lambda entry: "debian-archive" not in entry.signed_by)


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')}\n{line}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _stanza(entry: AptEntry) -> str:
    lines = ["Types: deb", f"URIs: {entry.uri}", f"Suites: {entry.suite}"]
    if entry.components:
        lines.append(f"Components: {' '.join(entry.components)}")
    if entry.signed_by:
        lines.append(f"Signed-By: {entry.signed_by}")
    if entry.trusted:
        lines.append("Trusted: yes")
    return "\n".join(lines) + "\n"
