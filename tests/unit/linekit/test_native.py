"""Sockets and timers that never wait: the same in C (`ARI_APP_COMPILED=1`) and in Python."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from linekit.native import drain, receive, send


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_what_has_come_is_received(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    assert receive(ours.fileno(), 100) is None
    theirs.sendall(b"frames")
    assert receive(ours.fileno(), 4) == b"fram"
    assert receive(ours.fileno(), 100) == b"es"
    theirs.close()
    assert receive(ours.fileno(), 100) == b""


def test_what_is_given_is_sent_as_far_as_it_goes(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    assert send(ours.fileno(), bytearray(b"fra")) == 3
    assert send(ours.fileno(), memoryview(b"mes")) == 3
    assert theirs.recv(100) == b"frames"
    piece = bytes(1 << 20)
    sent: list[int] = []
    while not sent or sent[-1]:
        sent.append(send(ours.fileno(), piece))
    assert any(0 < size < len(piece) for size in sent), sent


def test_a_lost_connection_is_an_error(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    reset(theirs)
    with pytest.raises(ConnectionResetError):
        receive(ours.fileno(), 100)
    with pytest.raises(BrokenPipeError):
        send(ours.fileno(), b"too late")


def test_what_has_fired_is_not_ready_any_more() -> None:
    ready, fire = os.pipe()
    os.set_blocking(ready, False)
    drain(ready)
    os.write(fire, bytes(8))
    drain(ready)
    with pytest.raises(BlockingIOError):
        os.read(ready, 8)
    os.close(ready)
    os.close(fire)
