"""The limits of this process: file descriptors, and how long a thread may have the interpreter."""

from __future__ import annotations

import resource
import sys
from typing import Final

_TURN_SECONDS: Final = 0.001


def share_interpreter() -> None:
    """Let the event loop wait for a thread of ours for 1 ms at most before it gets its turn.

    Python's own choice is 5 ms, a quarter of a frame; such threads write recordings, the log and
    the call log.
    """
    sys.setswitchinterval(_TURN_SECONDS)


_OUR_OWN: Final = 200
"""Log, database, timers, the connections to Asterisk, to pre-call services and to tools."""
_PER_CALL: Final = 3
"""The agent's socket, the request for its address, a recording; the line counts by its limit."""
_MOST: Final = 1 << 20


def needed(calls: int, connections: int) -> int:
    """Return how many file descriptors this process may need at most.

    Every connection is one, and a process without any takes no calls.

    Args:
        calls: How many may run at once.
        connections: How many may come in from outside at once.
    """
    return _OUR_OWN + _PER_CALL * calls + connections


def available() -> int:
    """Return how many file descriptors this process may have, if it asks for them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if hard == resource.RLIM_INFINITY else hard


def raise_limit() -> int:
    """Ask for as many as this process may have; how many it has got.

    The usual 1024 are a limit for programs that use `select(2)`, which this is not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < available():
        resource.setrlimit(resource.RLIMIT_NOFILE, (available(), hard))
    return available()
