"""Sockets and timers without waiting, in C (`_native.c`) where that has been compiled."""

from __future__ import annotations

import contextlib
import os
from typing import Any


def receive(fd: int, size: int, /) -> bytes | None:
    """Return what a socket that does not block has received; None: nothing yet, b"": the peer has
    ended.

    Raises:
        OSError: The connection is lost.
    """
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return None


def send(fd: int, data: bytes | bytearray | memoryview[Any], /) -> int:
    """Let a socket that does not block send, and return how many bytes it has taken.

    Raises:
        OSError: The connection is lost.
    """
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0


def drain(fd: int, /) -> None:
    """Take from a timer of the kernel's that it has fired, so that it is not ready any more."""
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 8)


with contextlib.suppress(ImportError):
    from linekit._native import drain, receive, send  # noqa: F401
