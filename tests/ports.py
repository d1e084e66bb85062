"""Ports for what a test starts as a program of its own."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

from lab.asterisk.ports import FIRST_PORT

_IN_A_ROW: Final = 8
_given: set[int] = set()


def free_port() -> int:
    """Return a port of loopback that is free with the seven after it, for more workers.

    It is given once, and lies below those of the lab's Asterisks and those that the system chooses
    by itself, which may be anybody's a moment later.
    """
    while True:
        port = random.randrange(2048, FIRST_PORT - _IN_A_ROW, _IN_A_ROW)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for number in range(port, port + _IN_A_ROW):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            if port not in _given:
                _given.add(port)
                return port
