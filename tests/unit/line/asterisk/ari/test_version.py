from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.line.asterisk.ari.version import FLOOR, AsteriskVersion, Capabilities, assess


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22.10.1~dfsg+~cs6.15.60671435-1", (22, 10, 1)),
        ("1:22.10.1+dfsg+~cs6.17.60671434-1", (22, 10, 1)),
        ("Asterisk 22.10.1", (22, 10, 1)),
        ("18.26.4", (18, 26, 4)),
        ("20.17.0-rc1", (20, 17, 0)),
        ("16.28.0~dfsg-0+deb11u4", (16, 28, 0)),
        ("1.8.32.3", (1, 8, 32)),
        (" 23.1\n", (23, 1, 0)),
    ],
)
def test_releases(text: str, expected: tuple[int, int, int]) -> None:
    version = AsteriskVersion.parse(text)
    assert version is not None
    assert (version.major, version.minor, version.patch) == expected
    assert not version.tip
    assert not version.certified
    assert version.text == text.strip()


@pytest.mark.parametrize("text", ["certified/20.7-cert5", "certified-20.7-cert5", "20.7-cert5"])
def test_certified_versions_count_as_the_release_they_started_from(text: str) -> None:
    version = AsteriskVersion.parse(text)
    assert version == AsteriskVersion(20, 7, 0, certified=True, text=text)
    assert assess(text).capabilities == FLOOR


def test_builds_from_a_branch() -> None:
    master = AsteriskVersion.parse("GIT-master-f0c1c1a7")
    assert master is not None
    assert master.tip
    assert Capabilities.of(master).slin_wide

    branch = AsteriskVersion.parse("Asterisk GIT-22-f0c1c1a7M")
    assert branch == AsteriskVersion(22, tip=True, text="Asterisk GIT-22-f0c1c1a7M")
    assert Capabilities.of(branch).slin_wide

    # No release of this series ever had it, so neither has its branch.
    old = AsteriskVersion.parse("GIT-18-0123456")
    assert old is not None
    assert not Capabilities.of(old).slin_wide


@pytest.mark.parametrize(
    "text", ["", "unknown", "SVN-branch-1.8-r3", "22", "GIT-feature-x", "GIT-22.4-abc", "v22.1.0"]
)
def test_what_cannot_be_read_is_treated_as_the_floor(text: str) -> None:
    assert AsteriskVersion.parse(text) is None
    found = assess(text)
    assert found.version is None
    assert found.capabilities == FLOOR
    assert found.problem == "unknown_version"
    assert repr(text) in found.message


@pytest.mark.parametrize("text", ["16.28.0", "17.9.4", "1.8.32"])
def test_too_old(text: str) -> None:
    found = assess(text)
    assert found.problem == "too_old"
    assert text in found.message
    assert not found.capabilities.audiosocket


def test_the_floor_is_the_first_version_that_can_serve_a_call() -> None:
    found = assess("18.0.0")
    assert found.problem is None
    assert found.message == ""
    assert found.capabilities == FLOOR
    assert not found.capabilities.slin_wide


def test_the_main_version_has_everything() -> None:
    assert assess("22.10.1~dfsg+~cs6.15.60671435-1").capabilities == Capabilities(
        audiosocket=True,
        keys=True,
        slin_wide=True,
        websocket=True,
    )


@pytest.mark.parametrize(
    ("capability", "first", "last_without"),
    [
        ("keys", ["20.14.0", "21.9.0", "22.4.0", "23.0.0"], ["18.26.4", "20.13.9", "22.3.9"]),
        ("slin_wide", ["20.17.0", "21.12.0", "22.7.0", "23.1.0"], ["20.16.0", "22.6.9", "23.0.9"]),
        ("websocket", ["20.18.0", "22.8.0", "23.2.0"], ["18.26.4", "20.17.9", "21.12.1", "22.7.9"]),
    ],
)
def test_first_releases(capability: str, first: list[str], last_without: list[str]) -> None:
    for text in first:
        assert getattr(assess(text).capabilities, capability), text
    for text in last_without:
        assert not getattr(assess(text).capabilities, capability), text


@given(
    major=st.integers(0, 30),
    earlier=st.tuples(st.integers(0, 40), st.integers(0, 5)),
    later=st.tuples(st.integers(0, 40), st.integers(0, 5)),
)
def test_a_series_only_gains(major: int, earlier: tuple[int, int], later: tuple[int, int]) -> None:
    earlier, later = sorted([earlier, later])
    before = asdict(Capabilities.of(AsteriskVersion(major, *earlier)))
    after = asdict(Capabilities.of(AsteriskVersion(major, *later)))
    assert all(after[name] >= before[name] for name in before)


@given(st.text())
def test_every_text_gets_an_answer(text: str) -> None:
    found = assess(text)
    assert (found.version is None) == (found.problem == "unknown_version")
