from __future__ import annotations

import io
import os
import socket

from ari_app.supervisor.output import HurriedStream


def test_what_the_reader_has_room_for_is_written() -> None:
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as stream:
        assert HurriedStream(stream).write("worker_died\n") == 12
        assert os.read(reader, 64) == b"worker_died\n"
    os.close(reader)


def test_a_reader_that_has_stopped_holds_nothing_up() -> None:
    reader, writer = socket.socketpair()
    with reader, writer, writer.makefile("w", encoding="utf-8") as stream:
        hurried = HurriedStream(stream)
        for _ in range(2000):
            hurried.write("x" * 1000 + "\n")
        written = reader.recv(1 << 24)
        assert written and set(written.splitlines()) == {b"x" * 1000}
        hurried.write("y" * 5000)
        hurried.write("room again\n")
        rest = bytearray()
        while not rest.endswith(b"room again\n"):
            rest += reader.recv(1 << 20)
        assert b"y" not in rest, "more than fits at once is left out as a whole"


def test_what_has_no_file_is_written_to_as_it_is() -> None:
    stream = io.StringIO()
    HurriedStream(stream).write("x" * 10_000)
    assert len(stream.getvalue()) == 10_000
