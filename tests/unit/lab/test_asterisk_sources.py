"""Where apt says that packages come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.asterisk.apt_sources import (
    AptEntry,
    Recipe,
    parse_deb822,
    parse_one_line,
    parse_os_release,
    recipes,
)

DEBIAN = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
UBUNTU = {"ID": "ubuntu", "UBUNTU_CODENAME": "noble"}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def test_reads_one_line_sources() -> None:
    text = """
    # deb http://off.example/debian bookworm main
    deb http://mirror.example/debian bookworm main contrib # the mirror
    deb-src http://mirror.example/debian bookworm main
    deb [arch=amd64 signed-by=/keys/a.gpg trusted=yes] http://other.example/ stable main
    nonsense
    """
    assert list(parse_one_line(text)) == [
        AptEntry("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        AptEntry("http://other.example/", "stable", ("main",), "/keys/a.gpg", trusted=True),
    ]


def test_reads_deb822_sources() -> None:
    text = f"""\
Types: deb deb-src
# a comment within
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: {KEYRING}

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
"""
    assert list(parse_deb822(text)) == [
        AptEntry("http://mirror.example/debian", "bookworm", ("main",), KEYRING),
        AptEntry("http://mirror.example/debian", "bookworm-updates", ("main",), KEYRING),
    ]


def test_keeps_a_key_that_stands_in_the_file() -> None:
    text = """\
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm
Components: main
Trusted: yes
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----
"""
    (entry,) = parse_deb822(text)
    assert "\n mQINBF\n" in entry.signed_by
    assert entry.trusted
    assert list(parse_deb822(Recipe("bookworm", (entry,)).as_deb822())) == [entry]


@pytest.mark.parametrize("text", ["", "garbage", " leading: space", ":", "Types: deb"])
def test_passes_over_what_is_no_source(text: str) -> None:
    assert list(parse_deb822(text)) == []


def test_takes_forky_from_the_machines_own_mirror() -> None:
    entries = [
        AptEntry("http://mirror.example/debian", "bookworm", ("main", "contrib"), KEYRING),
        AptEntry("http://mirror.example/debian", "bookworm-updates", ("main",), KEYRING),
        AptEntry("http://mirror.example/debian-security", "bookworm-security", ("main",), KEYRING),
        AptEntry("https://vendor.example/apt", "nodistro", ("main",)),
        AptEntry("https://vendor.example/docker", "bookworm", ("stable",)),
        AptEntry("cdrom:[Debian 12]/", "bookworm", ("main",)),
    ]
    forky = AptEntry("http://mirror.example/debian", "forky", ("main",), KEYRING)
    assert recipes(entries, DEBIAN) == [Recipe("forky", (forky,))]


def test_tries_debians_own_mirror_before_a_vendors() -> None:
    entries = [
        AptEntry("https://vendor.example/db", "bookworm", ("main",), "/keys/vendor.gpg"),
        AptEntry("http://mirror.example/debian", "bookworm", ("main",), KEYRING),
        AptEntry("http://mirror.example/debian", "trixie", ("main",), KEYRING),
    ]
    found = recipes(entries, DEBIAN)
    assert [recipe.entries[0].uri for recipe in found] == [
        "http://mirror.example/debian",
        "https://vendor.example/db",
    ]


def test_takes_ubuntus_own_asterisk() -> None:
    noble = [
        AptEntry("http://ubuntu.example/ubuntu", "noble", ("main", "universe")),
        AptEntry("http://ubuntu.example/ubuntu", "noble-updates", ("main", "universe")),
    ]
    other = AptEntry("https://vendor.example/apt", "stable", ("contrib",))
    assert recipes([*noble, other], UBUNTU) == [Recipe("noble", tuple(noble))]


@pytest.mark.parametrize(
    ("entries", "os_release"),
    [
        ([], DEBIAN),
        ([], {}),
        ([AptEntry("http://ubuntu.example/ubuntu", "noble", ("main",))], UBUNTU),
        ([AptEntry("https://vendor.example/apt", "nodistro", ("main",))], DEBIAN),
    ],
    ids=["no sources", "no os-release", "no universe", "vendors only"],
)
def test_knows_no_place_where_there_is_none(
    entries: list[AptEntry], os_release: dict[str, str]
) -> None:
    assert recipes(entries, os_release) == []


def test_reads_os_release() -> None:
    text = 'ID=ubuntu\nNAME="Ubuntu Linux"\n\n# comment\nUBUNTU_CODENAME=noble\n'
    assert parse_os_release(text) == {
        "ID": "ubuntu",
        "NAME": "Ubuntu Linux",
        "UBUNTU_CODENAME": "noble",
    }


WORD = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789-./:"), min_size=1).filter(
    lambda word: not word.startswith("-")
)


@given(
    st.builds(
        AptEntry,
        uri=WORD,
        suite=WORD,
        components=st.lists(WORD).map(tuple),
        signed_by=WORD.map(lambda word: f"/{word}") | st.just(""),
        trusted=st.booleans(),
    )
)
def test_what_is_written_reads_the_same(entry: AptEntry) -> None:
    assert list(parse_deb822(Recipe("any", (entry,)).as_deb822())) == [entry]


@given(st.text())
def test_no_text_is_too_odd_to_read(text: str) -> None:
    for entry in [*parse_deb822(text), *parse_one_line(text)]:
        assert entry.uri
        assert entry.suite
