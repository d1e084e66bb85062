from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.records.recording.names import for_log, recording_name, session_of

BEGAN = datetime(2026, 11, 28, 15, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("number", "in_name"),
    [
        ("+493023125001", "+493023125001"),
        ("0049 (30) 2312-5001", "00493023125001"),
        ("../../etc/passwd", "etcpasswd"),
        ("", "unknown"),
        ("*", "unknown"),
        ("9" * 100, "9" * 32),
        ("anonymous", "anonymous"),
    ],
)
def test_a_person_finds_it(number: str, in_name: str) -> None:
    name = recording_name(BEGAN, number, "crm-17_b")
    assert str(name) == f"2026-11-28/153012-{in_name}-crm-17_b.wav"
    assert session_of(name.name) == "crm-17_b"


@pytest.mark.parametrize(
    ("name", "session_id"),
    [
        ("153012-+49-a-2.2.wav", "a-2"),
        ("153012-+49-a.wav.part", "a"),
        ("153012-+49-a.opus", "a"),
        ("153012-+49-a.3.flac.part", "a"),
        ("0123456789abcdef.wav", "0123456789abcdef"),
        ("calls.db", None),
        ("a b.wav", None),
        ("a.wav.gz", None),
        ("../a.wav", None),
        (".wav", None),
    ],
)
def test_a_program_knows_whose_it_is(name: str, session_id: str | None) -> None:
    assert session_of(name) == session_id


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("153012-+493023125001-a-2.wav.part", "153012-*001-a-2.wav.part"),
        ("153012-4711-a.flac", "153012-4711-a.flac"),
        ("0123456789abcdef.wav", "0123456789abcdef.wav"),
    ],
)
def test_the_log_shows_no_whole_number(name: str, shown: str) -> None:
    assert for_log(name) == shown


@given(st.text(max_size=60), st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_no_number_leaves_its_place(number: str, session_id: str) -> None:
    name = recording_name(BEGAN, number, session_id)
    assert len(name.parts) == 2
    assert session_of(name.name) == session_id
