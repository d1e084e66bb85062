"""What a phone does when it is called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """Ring, then answer. With `after_s` of 0 the call is answered at once, without ringing."""

    after_s: float = 0.0
    early_media: bool = False
    """Ring by 183 with a session description instead of 180."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse: 486 busy, 603 declined, 480 not available, ..."""

    status: int = 486
    after_s: float = 0.0
    """Ring that long first; 0 refuses at once."""
    contact: str = ""
    """Whom to call instead, as a SIP URI: with 302, call forwarding."""


@dataclass(frozen=True, slots=True)
class Ring:
    """Ring, and leave the rest to `Call.answer` and `Call.reject`: by itself it never ends."""


Policy = Answer | Reject | Ring

BUSY = Reject(486)
