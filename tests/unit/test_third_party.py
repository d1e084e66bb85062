"""THIRD-PARTY.md: what is missing in it, too much, or not explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.third_party import (
    DEBIAN,
    DOCKERFILES,
    Package,
    Terms,
    debian_packages,
    differences,
    locked,
    notice,
    unexplained,
    unknown,
)

A, B = Package("a", "1.0"), Package("b", "2.0")
FOUND = {A: Terms("MIT", "https://a.invalid"), B: Terms("BSD", "https://b.invalid", ("libb",))}


def test_what_is_written_is_complete() -> None:
    written = notice({A}, {A, B}, FOUND, set(DEBIAN))
    assert list(differences(written, {A, B}, FOUND)) == []
    assert "| b | 2.0 | BSD | libb | <https://b.invalid> |" in written


def test_what_changed_is_found() -> None:
    written = notice({A}, {A, B}, FOUND, set())
    newer = Package("a", "1.1")
    again = "; `make notice` writes it anew."
    assert list(differences(written, {newer, B}, {B: Terms("MPL-2.0", "")})) == [
        f"a 1.1 is missing{again}",
        f"a 1.0 is no longer used{again}",
        f"b 2.0 is under MPL-2.0{again}",
    ]


def test_a_licence_that_asks_for_more_is_explained() -> None:
    terms = {A: Terms("LGPL-2.1-or-later", ""), B: Terms("", "")}
    first, second = unexplained(terms)
    assert first.startswith("a is under LGPL-2.1-or-later: say in NOTES")
    assert second == "b 2.0 names no licence."
    assert list(unexplained({Package("soxr", "1.1.0"): Terms("LGPL-2.1-or-later", "")})) == []


def test_a_debian_package_without_a_licence() -> None:
    dockerfile = """RUN apt-get ${APT_OPTIONS} update \\
        && apt-get ${APT_OPTIONS} install -y --no-install-recommends asterisk odd \\
        && rm -rf /var/lib/apt/lists/*
    RUN apt-get install -y --no-install-recommends python3-venv
    """
    assert debian_packages(dockerfile) == {"asterisk", "odd"}
    problems = list(unknown({*DEBIAN, "odd"} - {"python3"}))
    assert problems[0] == "say the licence of Debian's odd in DEBIAN of scripts/third_party.py."
    assert problems[1].startswith("no image has Debian's python3 any more")


def test_a_lock_is_read_for_linux_and_every_python() -> None:
    lock = """a==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:00
a==1.1 ; python_full_version >= '3.12' \\
    --hash=sha256:00
b==2.0 \\
    --hash=sha256:00
c==3.0 ; sys_platform == 'win32' \\
    --hash=sha256:00
"""
    assert locked(lock) == {A, Package("a", "1.1"), B}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_image_lists_the_sources_of_its_debian_packages(path: Path) -> None:
    stages = [stage for stage in path.read_text().split("\nFROM ") if "\nLABEL " in stage]
    assert stages
    assert all("-W | sort -u > /usr/share/doc/debian-sources" in stage for stage in stages)
