"""Ports that belong to one Asterisk alone, however many run on this machine; and ports for what is
started beside them."""

from __future__ import annotations

import contextlib
import random
import socket
from dataclasses import dataclass

from lab.asterisk.errors import LabError

LOOPBACK = "127.0.0.1"
FIRST_PORT = 10_000
"""Windows lie below 32768, where Linux begins to hand out ports for outgoing connections: a port
found free there stays free until Asterisk binds it."""
WINDOW = 1_000
WINDOWS = 22
_FIRST_FREE_PORT = 2_048
_IN_A_ROW = 8
_given: set[int] = set()


@dataclass(frozen=True, slots=True)
class PortWindow:
    """A thousand neighbouring loopback ports, held until `release`.

    The first of them is a lock: it stays bound by this process, so no other instance takes the
    window, and it comes free by itself when this process dies.
    """

    base: int
    _lock: socket.socket

    @property
    def http_port(self) -> int:
        """TCP, for ARI."""
        return self.base + 1

    @property
    def sip_port(self) -> int:
        """UDP."""
        return self.base + 2

    @property
    def rtp_first(self) -> int:
        """UDP; Asterisk takes an even port for RTP and the next for RTCP. Room for 490 streams."""
        return self.base + 20

    @property
    def rtp_last(self) -> int:
        """UDP, the last of the window."""
        return self.base + WINDOW - 1

    def release(self) -> None:
        """Let others have the window. May be called again."""
        self._lock.close()


def claim_ports() -> PortWindow:
    """Return a window that nobody holds. Raises LabError where all are taken."""
    numbers = list(range(WINDOWS))
    random.shuffle(numbers)
    for number in numbers:
        window = _claim(FIRST_PORT + number * WINDOW)
        if window is not None:
            return window
    last = FIRST_PORT + WINDOWS * WINDOW
    raise LabError(
        f"No free ports for Asterisk between {FIRST_PORT} and {last}: end programs that hold them."
    )


def free_port() -> int:
    """Return a TCP port that nobody listens on, nor on the seven after it, for more workers.

    It is given once, and lies below all windows: a program that is restarted comes back to it.
    """
    while True:
        port = random.randrange(_FIRST_FREE_PORT, FIRST_PORT, _IN_A_ROW)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for number in range(port, port + _IN_A_ROW):
                stack.enter_context(socket.socket()).bind((LOOPBACK, number))
            if port not in _given:
                _given.add(port)
                return port


def _claim(base: int) -> PortWindow | None:
    lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        lock.bind((LOOPBACK, base))
        window = PortWindow(base, lock)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as http:
            # As Asterisk does it; connections of the last instance may still linger.
            http.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            http.bind((LOOPBACK, window.http_port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sip:
            sip.bind((LOOPBACK, window.sip_port))
    except OSError:
        lock.close()
        return None
    return window
