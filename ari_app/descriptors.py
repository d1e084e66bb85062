"""File descriptors: every connection is one, and a process without any takes no calls."""

from __future__ import annotations

import resource
from typing import Final

from ari_app.settings import Settings

_OUR_OWN: Final = 200
"""Log, database, timers, the connections to Asterisk, to pre-call services and to tools."""
_PER_CALL: Final = 3
"""The agent's socket, the request for its address, a recording; the line counts by its limit."""
_MOST: Final = 1 << 20


def needed(settings: Settings) -> int:
    """How many this process may need at most."""
    return (
        _OUR_OWN
        + _PER_CALL * settings.max_concurrent_calls
        + settings.audiosocket_limits().connections
        + settings.api_limits().connections
    )


def available() -> int:
    """How many this process may have, if it asks for them."""
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
