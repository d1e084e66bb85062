"""How a call ends, in the dialplan's words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """``AGENT_STATUS``: what the dialplan is told when the agent's part has ended."""

    COMPLETED = "COMPLETED"
    TRANSFER = "TRANSFER"
    TIMEOUT = "TIMEOUT"
    REJECTED = "REJECTED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        status: For the dialplan.
        reason: A stable slug such as ``agent_ended`` or ``agent_timeout``.
        transfer_to: Where the agent wants the caller to go; only with ``TRANSFER``.
    """

    status: Status
    reason: str
    transfer_to: str | None = None
