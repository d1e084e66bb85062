from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from ari_app.process.logs import DirectWriter, LineWriter, writable, write_to

PATIENCE_SECONDS = 30.0


def notice(dropped: int) -> bytes:
    return b"dropped %d\n" % dropped


class Disk:
    """Takes what is written once it `turns`."""

    def __init__(self) -> None:
        self.turns = threading.Event()
        self.asked = threading.Event()
        self.written = b""
        self.failures: list[OSError] = []

    def write(self, data: bytes) -> None:
        self.asked.set()
        assert self.turns.wait(PATIENCE_SECONDS)
        if self.failures:
            raise self.failures.pop()
        self.written += data


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.turns.set()


def test_lines_are_written_in_order(disk: Disk) -> None:
    lines = LineWriter(disk.write, notice)
    disk.turns.set()
    for number in range(1000):
        lines.put(b"%d\n" % number)
    assert lines.close(PATIENCE_SECONDS)
    assert disk.written == b"".join(b"%d\n" % number for number in range(1000))
    assert lines.dropped == 0


def test_no_thread_is_there_before_the_first_line(disk: Disk) -> None:
    before = threading.active_count()
    lines = LineWriter(disk.write, notice)
    assert threading.active_count() == before
    lines.put(b"a\n")
    assert threading.active_count() == before + 1


def test_what_does_not_fit_is_dropped_counted_and_told(disk: Disk) -> None:
    lines = LineWriter(disk.write, notice, max_waiting_bytes=100)
    lines.put(b"first\n")
    assert disk.asked.wait(PATIENCE_SECONDS)
    for number in range(50):
        lines.put(b"line %04d\n" % number)
    assert not lines.flush(0)
    assert lines.dropped == 41
    disk.turns.set()
    assert lines.flush(PATIENCE_SECONDS)
    kept = b"".join(b"line %04d\n" % number for number in range(9))
    told = (b"first\n" + kept + notice(41)).splitlines()
    assert sorted(disk.written.splitlines()) == sorted(told)
    lines.put(b"later\n")
    assert lines.close(PATIENCE_SECONDS)
    assert disk.written.endswith(b"later\n")
    assert disk.written.count(b"dropped") == 1


def test_a_disk_that_fails_loses_lines_and_is_tried_again(disk: Disk) -> None:
    lines = LineWriter(disk.write, notice)
    disk.failures.append(OSError(errno.ENOSPC, "full"))
    disk.turns.set()
    lines.put(b"lost\n")
    assert lines.flush(PATIENCE_SECONDS)
    lines.put(b"kept\n")
    assert lines.close(PATIENCE_SECONDS)
    assert disk.written == b"kept\ndropped 1\n"
    assert lines.dropped == 1


def test_the_end_waits_only_so_long(disk: Disk) -> None:
    lines = LineWriter(disk.write, notice)
    lines.put(b"a\n")
    assert not lines.close(0.01)
    lines.put(b"b\n")
    assert lines.dropped == 1
    disk.turns.set()
    assert lines.close(PATIENCE_SECONDS)
    assert disk.written.startswith(b"a\n")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="warns of a fork beside a thread")
def test_a_forked_process_writes_with_a_thread_of_its_own() -> None:
    reading, writing = os.pipe()
    lines = LineWriter(write_to(writing), notice)
    lines.put(b"parent\n")
    assert lines.flush(PATIENCE_SECONDS)
    child = os.fork()
    if child == 0:
        lines.put(b"child\n")
        os._exit(0 if lines.close(PATIENCE_SECONDS) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lines.close(PATIENCE_SECONDS)
    os.close(writing)
    with open(reading, "rb") as file:
        assert file.read() == b"parent\nchild\n"


def test_all_is_written_to_a_pipe_that_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = bytes(range(256)) * 2000
    writer = threading.Thread(target=write_to(writing), args=[data])
    writer.start()
    with open(reading, "rb") as file:
        assert file.read(len(data)) == data
    writer.join()
    os.close(writing)


def test_without_a_thread_a_line_is_written_or_dropped_at_once() -> None:
    reading, writing = os.pipe()
    lines = DirectWriter(write_to(writing), lambda: writable(writing), notice)
    before = threading.active_count()
    line = b"x" * 999 + b"\n"
    for _ in range(100):
        lines.put(line)
    assert threading.active_count() == before
    assert 0 < lines.dropped < 100
    # What is left fits into a pipe of 64 KiB: nothing was written that would have blocked.
    with open(reading, "rb", buffering=0) as file:
        taken = file.read(1 << 20)
        assert taken == line * (100 - lines.dropped)
        lines.put(b"later\n")
        assert file.read(1000) == notice(lines.dropped) + b"later\n"
    lines.put(b"to nobody\n")
    assert lines.dropped == 100 - len(taken) // 1000 + 1
    os.close(writing)
