"""When the kernel took data in (SO_TIMESTAMPNS), so that a busy event loop does not look like a bad
line."""

from __future__ import annotations

import socket
import struct
import sys
import time

SO_TIMESTAMPNS = 35 if sys.platform == "linux" else None
_TIMESPEC = struct.Struct("@ll")


def ask_for_times(sock: socket.socket) -> None:
    """Let a socket tell when data came, where the kernel can."""
    if SO_TIMESTAMPNS is not None:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def arrival_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """When the kernel took the data in, on the wall clock; now where it does not say."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
