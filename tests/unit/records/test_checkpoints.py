"""The files of calls that run: written, left behind by a process that was killed, taken over."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.checkpoint import is_poison
from ari_app.records import checkpoints as checkpoints_module
from ari_app.records.checkpoints import (
    CheckpointFile,
    Checkpoints,
    Unreadable,
    _line,
    are_lost,
    forget_left,
    has_calls,
    read_lines,
    thinned,
)
from ari_app.records.events import Noted, ToolRan
from tests.waiting import wait_until

LONG_AGO = 100.0
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.call"))


def die(checkpoints: Checkpoints) -> None:
    """The process is killed: nothing is tidied up, and the kernel takes its lock."""
    wait_until(checkpoints._queue.empty)
    time.sleep(0.05)
    os.close(checkpoints._lock)
    checkpoints._lock = os.open(os.devnull, os.O_RDWR)


def killed(folder: Path, calls: int = 1) -> None:
    """A process has so many calls, and is killed."""
    checkpoints = Checkpoints(folder)
    checkpoints.open()
    for _ in range(calls):
        checkpoints.begin().add("call", {})
    wait_until(lambda: len(files(folder)) == calls)
    die(checkpoints)


@given(st.lists(st.tuples(st.text(), PLAIN), min_size=1))
def test_what_was_written_is_read(entries: list[tuple[str, object]]) -> None:
    data = b"".join(_line(kind, (part,)) for kind, part in entries)
    lines, size = read_lines(data)
    assert size == len(data)
    assert len(lines) == len(entries)
    if data.isascii():
        assert [tuple(line) for line in lines] == entries


@given(st.integers(1, 200))
def test_a_line_that_was_torn_at_the_end_is_left_out(cut: int) -> None:
    whole = _line("a", (1,))
    data = whole + _line("b", ("x" * 300,))[:cut]
    assert read_lines(data) == ([["a", 1]], len(whole))
    assert read_lines(data + b"\n") == ([["a", 1]], len(whole))


@pytest.mark.parametrize("data", [b"", b"torn", b"torn\n" + _line("a", (1,))])
def test_what_is_torn_elsewhere_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable):
        read_lines(data)


def test_whatever_was_said_can_be_written() -> None:
    tool = ToolRan("x", name="n", arguments={"half": "\ud800", "deep": {"n": float("nan")}})
    (line,), _ = read_lines(_line("event", (1.5, tool)))
    assert line[:2] == ["event", 1.5]
    assert line[2]["arguments"]["deep"] == {"n": None}


def test_a_call_that_ends_leaves_nothing(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "app")
    assert checkpoints.open() == ([], [])
    file = checkpoints.begin()
    file.add("call", {"a": 1})
    wait_until(lambda: files(tmp_path))
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert checkpoints.own.stat().st_mode & 0o777 == 0o700
    file.remove()
    wait_until(lambda: not files(tmp_path))
    checkpoints.close()
    checkpoints.close()
    assert not list((tmp_path / "app").iterdir())


def test_the_next_process_goes_on_in_the_same_file(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path)
    first.open()
    file = first.begin()
    file.add("call", {"a": 1})
    file.add("event", Noted("half"))
    wait_until(lambda: files(tmp_path))
    die(first)
    with files(tmp_path)[0].open("ab") as torn:
        torn.write(b"0badbeef [torn")
    second = Checkpoints(tmp_path)
    (left,), refused = second.open()
    assert not refused
    assert [line[0] for line in left.lines] == ["call", "event"]
    assert left.lines[1][1] == {"text": "half"}
    assert time.monotonic() - left.last_seen < 5
    assert len(left.taken) == 1
    left.file.add("event", Noted("goes on"))
    wait_until(lambda: b"goes on" in files(tmp_path)[0].read_bytes())
    die(second)
    third = Checkpoints(tmp_path)
    (left,), _ = third.open()
    assert [line[0] for line in left.lines] == ["call", "event", "taken", "event"]
    assert len(left.taken) == 2
    third.close()
    assert [each for each in tmp_path.iterdir() if each.is_dir()] == []


@pytest.mark.parametrize("untouched", [True, False])
def test_who_could_not_serve_has_not_had_it(tmp_path: Path, untouched: bool) -> None:
    killed(tmp_path)
    for _ in range(3):
        fails = Checkpoints(tmp_path)
        fails.open()
        fails.close(leave=True, untouched=untouched)
    last = Checkpoints(tmp_path)
    (left,), _ = last.open()
    assert (len(left.taken), left.was_read) == ((1, True) if untouched else (4, False))
    last.close()


@given(st.lists(st.tuples(st.sampled_from(["call", "event", "taken"]), PLAIN), min_size=1))
def test_of_what_is_told_anew_the_last_counts(entries: list[tuple[str, object]]) -> None:
    data = b"".join(_line(kind, (part,)) for kind, part in entries)
    before, _ = read_lines(data)
    states = [line for line in before if line[0] == "call"]
    after, _ = read_lines(thinned(data))
    assert [line for line in after if line[0] == "call"] == states[-1:]
    assert after == [line for line in before if line[0] != "call" or line is states[-1]]


def test_a_call_of_hours_takes_little_more_than_what_happened_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints_module, "_GROWS_BYTES", 4000)
    monkeypatch.setattr(checkpoints_module, "_MAX_FILE_BYTES", 60_000)
    first = Checkpoints(tmp_path)
    first.open()
    file = first.begin()
    for n in range(300):
        file.add("call", {"n": n, "prompt": 1000 * "p"})
        file.add("event", Noted(f"said {n}"))
        wait_until(first._queue.empty)
    wait_until(lambda: b"said 299" in files(tmp_path)[0].read_bytes())
    assert (first.counts.failed, file.path.stat().st_mode & 0o777) == (0, 0o600)
    assert file.path.stat().st_size < 60_000 < 300 * 1000
    # A kill while a file is written anew.
    file.path.with_name(f"{file.path.stem}.new.call").write_bytes(_line("call", ({"n": 0},)))
    die(first)
    second = Checkpoints(tmp_path)
    (left,), refused = second.open()
    assert not refused
    assert [line[1]["n"] for line in left.lines if line[0] == "call"][-1] == 299
    said = [line[1]["text"] for line in left.lines if line[0] == "event"]
    assert said == [f"said {n}" for n in range(300)]
    assert files(tmp_path) == [left.file.path]
    second.close()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_anew_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints_module, "_GROWS_BYTES", 4000)

    def full(path: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    checkpoints.open()
    file = checkpoints.begin()
    monkeypatch.setattr(Path, "rename", full)
    for n in range(20):
        file.add("call", {"n": n, "prompt": 1000 * "p"})
        wait_until(checkpoints._queue.empty)
    wait_until(lambda: b'"n":19,' in files(tmp_path)[0].read_bytes())
    assert (checkpoints.counts.failed, files(tmp_path)) == (0, [file.path])
    checkpoints.close()


def test_a_process_that_cannot_serve_leaves_them_to_the_next_one(tmp_path: Path) -> None:
    killed(tmp_path)
    second = Checkpoints(tmp_path)
    assert len(second.open()[0]) == 1
    second.close(leave=True)
    third = Checkpoints(tmp_path)
    (left,), _ = third.open()
    assert len(left.taken) == 2
    assert not left.was_read, "reading it may be what has ended the second one"
    third.close()


def test_the_calls_of_a_process_that_lives_are_its_own(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path)
    first.open()
    first.begin().add("call", {})
    wait_until(lambda: files(tmp_path))
    second = Checkpoints(tmp_path)
    assert second.open() == ([], [])
    forget_left(tmp_path)
    assert len(files(tmp_path)) == 1
    second.close()
    first.close()


def test_who_has_waited_too_long_is_known_as_such(tmp_path: Path) -> None:
    killed(tmp_path)
    second = Checkpoints(tmp_path, now=lambda: time.monotonic() + LONG_AGO)
    (left,), refused = second.open()
    assert (left.stale, refused) == (True, [])
    assert left.was_read
    die(second)
    # One that is killed only after it has stood still for long had its callers wait as long.
    later = time.monotonic() + 2 * LONG_AGO
    third = Checkpoints(tmp_path, stall_seconds=LONG_AGO, now=lambda: later)
    (left,), _ = third.open()
    assert not left.stale
    third.close()
    assert not files(tmp_path)


def test_what_cannot_be_read_is_told_and_removed(tmp_path: Path) -> None:
    killed(tmp_path, calls=2)
    files(tmp_path)[0].write_bytes(b"nothing of ours\n")
    second = Checkpoints(tmp_path)
    left, refused = second.open()
    assert (len(left), refused) == (1, ["unreadable"])
    assert len(files(tmp_path)) == 1
    second.close()


def test_nobody_goes_on_with_what_is_to_be_forgotten(tmp_path: Path) -> None:
    killed(tmp_path)
    forget_left(tmp_path)
    assert not list(tmp_path.iterdir())
    forget_left(tmp_path / "never")


def test_a_file_that_cannot_be_written_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.open()
    file = CheckpointFile(checkpoints._put, str(tmp_path / "no such folder" / "1.call"))
    file.add("call", {})
    wait_until(lambda: checkpoints.counts.failed)
    file.add("call", {})
    assert checkpoints.counts.failed == 1
    (warning,) = checkpoints.warnings()
    assert f"{tmp_path.parent} cannot be written: No such file or directory." in warning
    monkeypatch.setattr(checkpoints_module, "_LOSS_SECONDS", -1.0)
    again = CheckpointFile(checkpoints._put, file.name)
    again.add("call", {})
    wait_until(lambda: checkpoints.counts.failed == 2)
    assert checkpoints.warnings() == []
    checkpoints.close()


def test_a_folder_that_cannot_be_made_is_told_for_good(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    checkpoints = Checkpoints(tmp_path / "file")
    assert checkpoints.warnings() == []
    with pytest.raises(NotADirectoryError):
        checkpoints.open()
    assert "Not a directory" in checkpoints.warnings()[0]


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("it has no words")


def test_what_cannot_be_put_into_words_is_given_up_and_the_others_are_kept(
    tmp_path: Path,
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.open()
    odd, usual = checkpoints.begin(), checkpoints.begin()
    odd.add("call", {})
    odd.add("call", Odd())
    usual.add("call", {"n": 1})
    wait_until(lambda: odd.failed and files(tmp_path) == [usual.path])
    assert checkpoints.counts.failed == 1
    checkpoints.close()


def test_what_cannot_be_taken_over_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    second = Checkpoints(tmp_path)
    monkeypatch.setattr(second, "_append", full)
    assert second.open() == ([], ["unreadable"])
    assert not files(tmp_path)
    second.close()


def test_a_kill_loses_no_more_than_the_last_moment(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from ari_app.records.checkpoints import Checkpoints\n"
        "checkpoints = Checkpoints(Path(sys.argv[1]))\n"
        "checkpoints.open()\n"
        "file = checkpoints.begin()\n"
        "for number in range(100):\n"
        "    file.add('call', number)\n"
        "time.sleep(0.3)\n"
        "print('written', flush=True)\n"
        "while True:\n"
        "    pass\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    checkpoints = Checkpoints(tmp_path)
    (left,), _ = checkpoints.open()
    assert [line[1] for line in left.lines] == list(range(100))
    checkpoints.close()


@pytest.mark.parametrize(
    ("taken", "poison"),
    [([1.0], False), ([1.0, 2.0], False), ([1.0, 2.0, 3.0], True), ([1.0, 100.0, 101.0], False)],
)
def test_what_ends_one_process_after_the_other(taken: list[float], poison: bool) -> None:
    assert is_poison(taken) is poison


def test_what_an_application_has_left_in_whose_place_nobody_comes(tmp_path: Path) -> None:
    ours, lost = tmp_path / "ours", tmp_path / "lost"
    assert not are_lost(lost)
    first = Checkpoints(lost)
    first.open()
    assert not are_lost(lost), "it lives"
    first.begin().add("call", {})
    wait_until(lambda: files(lost))
    assert not has_calls(lost), "they are its own"
    die(first)
    assert are_lost(lost)
    assert has_calls(lost)
    second = Checkpoints(ours, foreign=[lost, tmp_path / "nothing"])
    (left,), refused = second.open()
    assert (left.foreign, left.stale, refused) == (True, False, [])
    assert not lost.exists()
    die(second)
    third = Checkpoints(ours)
    (left,), _ = third.open()
    assert not left.foreign
    third.close()
