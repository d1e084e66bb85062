"""What a worker is told at its birth, and the words on the line between parent and worker. Pure.

The worker sends one byte every :data:`BEAT_SECONDS`, which says how it stands: so no word can be
lost for good, whatever becomes of a single one. The parent sends a byte when it wants something.
The end of the line says that the other one is gone.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

BEAT_SECONDS: Final = 0.2


class Mode(StrEnum):
    """What a worker is for."""

    FIRST = "first"
    """Serve. Nothing has been served yet: what is wrong with the set-up ends the command."""
    AGAIN = "again"
    """Serve after a worker that was lost: what is wrong may pass."""
    MEND = "mend"
    """Give back what a lost worker has left in Asterisk, and end."""


class Standing(bytes, Enum):
    """How a worker stands: what its beats say."""

    STARTING = b"s"
    SERVING = b"u"
    REPLACED = b"r"
    """Another process has the application; this one only finishes its calls."""


class Order(bytes, Enum):
    """What a parent wants."""

    DRAIN = b"d"
    """Refuse new calls, let the running ones finish, and end."""
    END = b"e"
    """End the running calls too."""


@dataclass(frozen=True, slots=True)
class Duty:
    """What a worker is told at its birth.

    Attributes:
        mode: What it is for.
        restarts: How many workers were started in place of one that was lost, this one included.
        channel: Its end of the line to the parent; not blocking.
    """

    mode: Mode
    restarts: int
    channel: socket.socket
