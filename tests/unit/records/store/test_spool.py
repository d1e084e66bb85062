"""The journal on disk: its lines, its files, and what others find of them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.records.store import spool as module
from ari_app.records.store.spool import (
    AMEND,
    BEGAN,
    KEEP,
    Counts,
    Left,
    Segment,
    Share,
    Spool,
    adopt,
    decode_line,
    encode_line,
    is_left,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner),
    max_leaves=10,
)


@given(JSON)
def test_what_is_encoded_is_decoded(value: Any) -> None:
    line = encode_line(AMEND, "s1", "part", value)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode_line(line[:-1]) == [AMEND, "s1", "part", value]


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_torn_or_changed_line_is_known(place: int, byte: int) -> None:
    line = encode_line(KEEP, {"session_id": "s1", "turns": ["a", "b"]})[:-1]
    assert decode_line(line[: place % len(line)]) is None
    changed = bytearray(line)
    changed[place % len(line)] = byte
    assert decode_line(bytes(changed)) in (None, decode_line(line))


@pytest.mark.parametrize("size", [10, 64, 1_000_000])
def test_a_file_is_read_in_whole_lines(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    lines = [encode_line(KEEP, {"session_id": n * "x"}) for n in range(100)]
    path.write_bytes(b"".join(lines) + b"torn")
    segment = Segment(path, path.stat().st_size, sealed=True)
    read: list[bytes] = []
    while not segment.is_done:
        some, segment.read_to = segment.read(size, 7)
        read += some
    assert [each + b"\n" for each in read] == lines


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path, Counts(), lambda: None)
    made.start()
    yield made
    made.close(5)
    made.give_back()


def done(spool: Spool) -> None:
    """All that was given has been written."""
    assert spool.flushed().wait(5)


def sealed(spool: Spool) -> None:
    spool.seal()
    done(spool)


def lines_of(spool: Spool) -> list[Any]:
    found = []
    for segment in spool.segments:
        lines, _ = segment.read(1_000_000, 1000)
        found += [decode_line(line) for line in lines]
    return found


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "calls.journal", Counts(), lambda: None)
    spool.start()
    spool.put(KEEP, {"session_id": "s1"})
    done(spool)
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    assert spool.own.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in spool.own.iterdir())
    spool.close(5)
    spool.give_back()


def test_a_new_file_begins_with_the_calls_that_run(spool: Spool) -> None:
    spool.put(BEGAN, {"session_id": "s1"})
    spool.put(BEGAN, {"session_id": "s2"})
    spool.put(KEEP, {"session_id": "s1"})
    sealed(spool)
    old, new = spool.segments
    assert (old.sealed, new.sealed) == (True, False)
    assert new.begins == new.size
    assert lines_of(spool)[-1] == [BEGAN, {"session_id": "s2"}]


def test_a_file_does_not_grow_for_ever(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_FILE_BYTES", 1000)
    for n in range(100):
        spool.put(KEEP, {"session_id": f"s{n}", "text": 100 * "x"})
        if n % 10 == 0:
            done(spool)
    done(spool)
    assert len(spool.segments) >= 10
    assert [line[1]["session_id"] for line in lines_of(spool)] == [f"s{n}" for n in range(100)]


@pytest.mark.parametrize(
    ("share", "taken"),
    [
        (Share(), {"alone", "1", "2", "3"}),
        (Share(1, 2), {"alone", "1", "3"}),
        (Share(2, 2), {"2"}),
        (Share(3, 3), {"3"}),
    ],
)
def test_a_lost_process_leaves_its_journal_to_the_one_in_its_place(
    tmp_path: Path, share: Share, taken: set[str]
) -> None:
    for name, place in {"alone": Share(), **{str(n): Share(n, 3) for n in (1, 2, 3)}}.items():
        lost = Spool(tmp_path, Counts(), lambda: None, place)
        lost.start()
        lost.put(BEGAN, {"session_id": name})
        lost.close(60)
        lost.give_back()
    left, _ = adopt(tmp_path, tmp_path / "own", share)
    found = set()
    for each in left:
        lines = [line for segment in each.segments for line in segment.read(1 << 20, 10)[0]]
        found |= {entry[1]["session_id"] for entry in map(decode_line, lines) if entry}
        each.leave()
    assert found == taken


def test_a_journal_of_one_that_ran_beside_is_left_to_its_successor_at_first(
    spool: Spool, tmp_path: Path
) -> None:
    here, one = tmp_path / "own", Share()
    spool.put(BEGAN, {"session_id": "s1"})
    done(spool)
    spool.close(5)
    spool.give_back()
    began = spool.since

    def find(since: float) -> list[Path]:
        found = [each.path for each in found_by(since)]
        assert is_left(tmp_path, here, one, since) is bool(found)
        return found

    def found_by(since: float) -> list[Left]:
        left, _ = adopt(tmp_path, here, one, since)
        for each in left:
            each.leave()
        return left

    assert find(began - 1) == [], "its successor goes on with the call, and may be about to begin"
    assert find(time.time() + 1) == [spool.own], "it may be its successor itself"
    for gone_for in (3600.0, -3600.0):
        for segment in spool.segments:
            os.utime(segment.path, times=(time.time() - gone_for,) * 2)
        assert find(began - 7200) == [spool.own]


def test_nobody_takes_a_journal_that_is_held(spool: Spool, tmp_path: Path) -> None:
    spool.put(BEGAN, {"session_id": "s1"})
    spool.put(KEEP, {"session_id": "s2"})
    spool.put(AMEND, "s2", "part", 1)
    done(spool)
    assert adopt(tmp_path, tmp_path, Share()) == ([], [])
    spool.close(5)
    spool.give_back()
    (left,), _ = adopt(tmp_path, tmp_path, Share())
    assert left.entries == 2
    assert adopt(tmp_path, tmp_path, Share()) == ([], [])
    left.finished()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_journal_leaves_no_folder(spool: Spool, tmp_path: Path) -> None:
    assert spool.close(5)
    spool.give_back()
    assert list(tmp_path.iterdir()) == []


Write = Callable[[int, Any], int]


class Disk:
    """Takes so many bytes, and then none."""

    def __init__(self, write: Write) -> None:
        self.room = 10**9
        self._write = write

    def __call__(self, file: int, data: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(self.room, len(data))
        self.room -= taken
        return self._write(file, data[:taken])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(os.write)
    monkeypatch.setattr(os, "write", disk)
    return disk


def test_a_full_disk_tears_nothing_and_memory_takes_the_rest(spool: Spool, disk: Disk) -> None:
    spool.put(BEGAN, {"session_id": "s0"})
    spool.put(KEEP, {"session_id": "s1"})
    done(spool)
    disk.room = 20
    spool.put(KEEP, {"session_id": "s2"})
    spool.put(BEGAN, {"session_id": "s3"})
    done(spool)
    assert "No space left on device" in str(spool.problem)
    assert [decode_line(line[:-1]) for line in spool.held] == [[KEEP, {"session_id": "s2"}]]
    disk.room = 10**9
    spool.put(KEEP, {"session_id": "s4"})
    done(spool)
    assert str(spool.problem) == "None"
    written = lines_of(spool)
    assert None not in written
    assert [KEEP, {"session_id": "s1"}] in written and [KEEP, {"session_id": "s4"}] in written
    # What began while the disk was full is known again.
    assert [BEGAN, {"session_id": "s3"}] in written
    spool.put(KEEP, {"session_id": "s0"})
    spool.put(KEEP, {"session_id": "s3"})
    spool.read_held(1)
    spool.segments.clear()


def test_what_neither_disk_nor_memory_takes_is_counted(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_HELD_BYTES", 100)
    disk.room = 0
    counts = Counts()
    spool = Spool(tmp_path, counts, lambda: None)
    spool.start()
    for n in range(10):
        spool.put(KEEP, {"session_id": f"s{n}"})
    spool.put(AMEND, "s1", "part", 200 * "x")
    spool.close(5)
    assert (counts.given, counts.lost_room, counts.dropped) == (11, 8, 9)
    assert len(spool.held) == 2


def test_too_much_before_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 3)
    spool = Spool(tmp_path, Counts(), lambda: None)
    assert [spool.put(KEEP, {"session_id": "s1"}) for _ in range(4)] == [True, True, True, False]
