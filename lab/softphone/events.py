"""What the SIP core tells whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lab.softphone.incoming import IncomingLeg
    from lab.softphone.leg import Leg
    from lab.softphone.sdp import Agreement


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


@dataclass(frozen=True, slots=True)
class Invited:
    """Somebody calls. The leg waits for `prepare`, then `ring`, `answer` or `reject`."""

    leg: IncomingLeg


@dataclass(frozen=True, slots=True)
class Progressed:
    """A provisional answer to our INVITE; with an agreement when early media comes with it."""

    leg: Leg
    status: int
    reason: str
    agreement: Agreement | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The call is up, whoever called."""

    leg: Leg
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class MediaChanged:
    """A re-INVITE, ours or theirs, changed what was agreed."""

    leg: Leg
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class ChangeRefused:
    """Our re-INVITE was refused; what was agreed before stays."""

    leg: Leg
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event of every leg."""

    leg: Leg
    ending: Ending


@dataclass(frozen=True, slots=True)
class Registration:
    """The registrar's final answer, 408 when there was none."""

    status: int
    reason: str


Event = Invited | Progressed | Answered | MediaChanged | ChangeRefused | Ended | Registration
