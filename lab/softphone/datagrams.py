"""UDP sockets that say when each datagram came.

The times are the kernel's where it tells them, so that an answer never seems to come after the
sound that was sent behind it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

from lab.kernel_time import arrival_ns, ask_for_times
from lab.softphone.fields import Address

_MAX_DATAGRAM = 65_536
_MAX_READS = 64
"""Datagrams taken in one go, so that a flood leaves time for the rest of the loop."""
_OLDEST_S = 10.0
"""A kernel time further back than this comes from a clock that was set."""


def bind_udp(host: str, port: int) -> socket.socket:
    """Bind a socket that never blocks. Raise OSError when the port is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind((host, port))
        ask_for_times(sock)
    except OSError:
        sock.close()
        raise
    return sock


def received(sock: socket.socket) -> Iterator[tuple[bytes, Address, float]]:
    """Yield what has come, from whom, and when (monotonic seconds), until all is read or closed."""
    for _ in range(_MAX_READS):
        try:
            data, ancillary, _, source = sock.recvmsg(_MAX_DATAGRAM, 64)
        except OSError:
            return
        yield data, Address(*source[:2]), arrival_time(ancillary)


def arrival_time(ancillary: list[tuple[int, int, bytes]]) -> float:
    """The kernel's time of arrival on the monotonic clock; now when it tells none."""
    now, age = time.monotonic(), (time.time_ns() - arrival_ns(ancillary)) / 1e9
    return now - age if 0 <= age < _OLDEST_S else now
