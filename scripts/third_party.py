"""Writes THIRD-PARTY.md: what in the packages and images is other people's, and its terms.

`python -m scripts.third_party` writes it anew, from the metadata of the very packages that the
locks in deploy/ name; they are fetched for the oldest and the newest Python. With `--check` nothing
is fetched: the file must name what the locks and the Dockerfiles name, with the licences that are
installed here, and a licence that asks for more than a notice must be explained.

Exit codes: 0 it is as it should be; 1 it is not.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.markers import Marker, default_environment

ROOT = Path(__file__).resolve().parents[1]
NOTICE = ROOT / "THIRD-PARTY.md"
DOCKERFILES = [*ROOT.glob("deploy/*.Dockerfile"), *ROOT.glob("deploy/*/Dockerfile")]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")

# A package under such terms is explained in NOTES.
ASKS_FOR_MORE = re.compile(
    r"GPL|MPL|EPL|CDDL|EUPL|OSL|CC-BY|Mozilla|General Public|libgfortran|libquadmath", re.I
)
NOTES = {
    "certifi": "Mozilla's list of certificate authorities, under the MPL 2.0: its source, changed "
    "or not, is to be had under it. It is used unchanged, and is its own source.",
    "numpy": "Its wheels for Python 3.11 hold GCC's libgfortran (GPL 3.0 with the Runtime Library "
    "Exception) and libquadmath (LGPL 2.1 or later), unchanged; numpy's licence files name them, "
    "and GCC has the source.",
    "orjson": "Parts are under the MPL 2.0: their source, changed or not, is to be had under it. "
    "It is used unchanged; its source is the archive of that version at its home page.",
    "soundfile": "Holds libsndfile, and LAME and mpg123 in it, under the LGPL 2.1 or later, as a "
    "library that can be replaced: install another build of `soundfile`, or the one without "
    "libsndfile and the system's own. It is used unchanged; its source is the archive of that "
    "version at its home page.",
    "soxr": "Holds libsoxr under the LGPL 2.1 or later, as a library that can be replaced: "
    "install another build of `soxr` into the same environment. It is used unchanged; its source "
    "is the archive of that version at its home page.",
}

# What the Dockerfiles install by name, with the licence of the program itself. All that each brings
# along is in the image's own list.
DEBIAN = {
    "asterisk": "GPL-2.0-only",
    "asterisk-modules": "GPL-2.0-only",
    "baresip-core": "BSD-3-Clause",
    "ca-certificates": "MPL-2.0 and GPL-2.0-or-later",
    "espeak-ng": "GPL-3.0-or-later",
    "python3": "PSF-2.0",
    "sip-tester": "GPL-2.0-or-later",
}
# Only in stages that are thrown away.
_BUILD_ONLY = {"gcc", "libc6-dev", "python3-dev", "python3-venv"}

_STANZA = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>.+?))? \\$", re.M)
_ROW = re.compile(r"^\| (?P<name>[\w.-]+) \| (?P<version>\d[^ |]*) \| (?P<licence>[^|]+) \|", re.M)
_INSTALLED = re.compile(r"install -y --no-install-recommends ([^&\n]+)")


# Where a package's own pages are, the best first.
_PAGES = ("homepage", "source", "source code", "repository", "github")


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One version of a Python package that a lock names."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What a package says of itself: its licence, its page, the libraries in its wheel."""

    licence: str
    page: str
    libraries: tuple[str, ...] = ()


def main() -> int:
    """Write the notice, or check it."""
    parser = argparse.ArgumentParser(description="Write THIRD-PARTY.md, or check it.")
    parser.add_argument("--check", action="store_true", help="change nothing and fetch nothing")
    check = parser.parse_args().check
    debian = {name for path in DOCKERFILES for name in debian_packages(path.read_text())}
    serve, lab = (
        locked((ROOT / f"deploy/{name}.lock").read_text(encoding="utf-8"))
        for name in ("serve", "lab")
    )
    if check:
        found = {package: terms for package, terms in installed() if package in lab}
        written = NOTICE.read_text(encoding="utf-8") if NOTICE.exists() else ""
        problems = [*differences(written, lab, found), *unknown(debian)]
    else:
        found = fetched()
        NOTICE.write_text(notice(serve, lab, found, debian), encoding="utf-8")
        problems = [*unexplained(found), *unknown(debian)]
    for problem in problems:
        sys.stdout.write(f"THIRD-PARTY.md: {problem}\n")
    return 1 if problems else 0


def locked(lock: str) -> set[Package]:
    """What a lock file installs on Linux, with any of the Pythons that there are."""
    found = set()
    for stanza in _STANZA.finditer(lock):
        marker = Marker(stanza["marker"]) if stanza["marker"] else None
        if marker is None or any(marker.evaluate(_environment(python)) for python in PYTHONS):
            found.add(Package(stanza["name"], stanza["version"]))
    return found


def _environment(python: str) -> dict[str, str]:
    here = {name: str(text) for name, text in default_environment().items()}
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    return {**here, **linux, "python_version": python, "python_full_version": f"{python}.0"}


def debian_packages(dockerfile: str) -> set[str]:
    """The Debian packages that a Dockerfile installs by name, and keeps."""
    lines = _INSTALLED.findall(dockerfile.replace("\\\n", " "))
    return {name for line in lines for name in line.split()} - _BUILD_ONLY


def terms(distribution: Distribution) -> Terms:
    """Read a distribution's metadata; old packages say less, and elsewhere."""

    def all_of(field: str) -> list[str]:
        return distribution.metadata.get_all(field) or []

    said = [text for text in all_of("License-Expression") or all_of("License") if "\n" not in text]
    kinds = [kind.rpartition(" :: ")[2] for kind in all_of("Classifier") if "License ::" in kind]
    urls = dict(url.split(", ", 1) for url in all_of("Project-URL"))
    pages = {name.lower(): url for name, url in urls.items()}
    named = [pages[name] for name in _PAGES if name in pages]
    page = next(iter([*named, *all_of("Home-page"), *urls.values()]), "")
    libraries = {
        file.name.partition(".so")[0].partition("-")[0]
        for file in distribution.files or []
        if ".libs" in file.parts[0] and ".so" in file.name
    }
    licence = said[0] if said else " or ".join(kinds)
    return Terms(licence.strip(), page.strip(), tuple(sorted(libraries)))


def installed(*folders: str) -> Iterator[tuple[Package, Terms]]:
    """The distributions in `folders`, or where this Python looks for them, and their terms."""
    for distribution in distributions(path=list(folders)) if folders else distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        yield Package(name, distribution.version), terms(distribution)


def fetched() -> dict[Package, Terms]:
    """Everything that the lab's lock names, fetched for the oldest and the newest Python."""
    uv = shutil.which("uv") or str(ROOT / ".cache/uv/bin/uv")
    found: dict[Package, Terms] = {}
    for python in (PYTHONS[0], PYTHONS[-1]):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [
                    *(uv, "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"),
                    *("--target", folder, "--python-version", python, "--require-hashes"),
                    *("-r", str(ROOT / "deploy/lab.lock")),
                ],
                check=True,
            )
            found |= dict(installed(folder))
    return found


def differences(written: str, wanted: set[Package], found: dict[Package, Terms]) -> Iterator[str]:
    """What the notice lacks, has too much, or says otherwise than the packages do."""
    rows = {Package(row["name"], row["version"]): row["licence"] for row in _ROW.finditer(written)}
    for package in sorted(wanted - rows.keys()):
        yield f"{package.name} {package.version} is missing; `make notice` writes it anew."
    for package in sorted(rows.keys() - wanted):
        yield f"{package.name} {package.version} is no longer used; `make notice` writes it anew."
    for package in sorted(rows.keys() & found.keys()):
        said = found[package].licence
        if rows[package] != said:
            yield f"{package.name} {package.version} is under {said}; `make notice` writes it anew."
    yield from unexplained({package: Terms(text, "") for package, text in rows.items()})


def unexplained(found: dict[Package, Terms]) -> Iterator[str]:
    """Packages whose terms nobody has looked at."""
    for package, said in sorted(found.items()):
        if not said.licence:
            yield f"{package.name} {package.version} names no licence."
        elif package.name not in NOTES and ASKS_FOR_MORE.search(
            " ".join((said.licence, *said.libraries))
        ):
            yield (
                f"{package.name} is under {said.licence}: say in NOTES of scripts/third_party.py "
                "what that asks for and how it is met."
            )


def unknown(debian: Iterable[str]) -> Iterator[str]:
    """Debian packages of the images whose licence nobody has looked up."""
    for name in sorted(set(debian) - DEBIAN.keys()):
        yield f"say the licence of Debian's {name} in DEBIAN of scripts/third_party.py."
    for name in sorted(DEBIAN.keys() - set(debian)):
        yield f"no image has Debian's {name} any more; take it out of scripts/third_party.py."


def notice(
    serve: set[Package], lab: set[Package], found: dict[Package, Terms], debian: set[str]
) -> str:
    """The whole text of THIRD-PARTY.md."""
    notes = [
        f"* **{name}**: {NOTES[name]}" for name in sorted({p.name for p in lab} & NOTES.keys())
    ]
    programs = [f"| {name} | {DEBIAN.get(name, '')} |" for name in sorted(debian)]
    return "\n".join(
        [
            "# Third parties",
            "",
            "ari-app is under the [MIT licence](LICENSE). It runs with the work of others, under",
            "their terms. `make notice` writes this page from what the packages say of themselves.",
            "",
            "ari-app's wheel holds none of it: pip fetches it. The images hold all of it, and",
            "beside each Python package its licence, in `NAME-VERSION.dist-info`.",
            "",
            "## Python packages of the service",
            "",
            *_table(serve, found),
            "",
            "## More Python packages, of the demo and the lab",
            "",
            *_table(lab - serve, found),
            "",
            "## What asks for more than to be named",
            "",
            *notes,
            "",
            "## Programs of Debian in the images",
            "",
            "| package | licence of the program |",
            "|---|---|",
            *programs,
            "",
            "These and all that they need are Debian's packages, unchanged. In each image",
            "`/usr/share/doc/debian-sources` lists them as source packages with versions, and",
            "`/usr/share/doc/NAME/copyright` has the terms of each. Debian has the sources:",
            "`apt-get source NAME=VERSION`, and its snapshot archive keeps the old ones.",
            "",
        ]
    )


def _table(packages: set[Package], found: dict[Package, Terms]) -> Iterator[str]:
    yield "| package | version | licence | in its wheel | page |"
    yield "|---|---|---|---|---|"
    for package in sorted(packages):
        said = found[package]
        yield (
            f"| {package.name} | {package.version} | {said.licence} | "
            f"{', '.join(said.libraries)} | <{said.page}> |"
        )


if __name__ == "__main__":
    sys.exit(main())
