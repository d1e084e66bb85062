"""How a call ends, whatever the line is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["us", "far", "network"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call came to its end."""

    by: Side
    status: int
    """200 for a call that was hung up; the final SIP status of one that was never answered."""
    reason: str
    cause: int | None = None
    """The Q.850 cause of the far end's Reason field (RFC 3326), when it sent one."""
