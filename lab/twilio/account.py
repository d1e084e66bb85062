"""The plain data of an account: ids, numbers, whom it calls. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

CallStatus = Literal[
    "queued",
    "initiated",
    "ringing",
    "in-progress",
    "completed",
    "busy",
    "failed",
    "no-answer",
    "canceled",
]
TERMINAL: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
Outcome = Literal["answer", "busy", "no-answer", "failed"]


def new_sid(prefix: str) -> str:
    """Return a new SID: two letters and 32 hexadecimal digits."""
    return prefix + secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Note:
    """An entry of Twilio's debugger: an error or a warning.

    Attributes:
        at: Monotonic seconds.
    """

    code: int
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class Number:
    """A number of the account, and what happens when it is called.

    Attributes:
        voice_url: The webhook, with query and connection overrides if there are any.
        fallback_url: Asked when the webhook fails.
        status_url: Told when a call to the number has ended.
    """

    voice_url: str
    fallback_url: str = ""
    status_url: str = ""


@dataclass(frozen=True, slots=True)
class Callee:
    """How somebody takes a call.

    Attributes:
        outcome: What comes of it.
        ring_seconds: It rings so long before that; None: it never rings.
        sip_code: Of a call that is not answered.
        answered_by: What machine detection finds; empty: no verdict ever comes.
        verdict_seconds: When, after the answer.
        talk_seconds: The callee hangs up so long after the answer; None: never.
    """

    outcome: Outcome = "answer"
    ring_seconds: float | None = 0.1
    sip_code: int = 200
    answered_by: str = "human"
    verdict_seconds: float = 0.3
    talk_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """How status callbacks travel, by event (`initiated`, `ringing`, `answered`, `completed`).

    Attributes:
        delays: Seconds that one is late: what overtakes it comes first.
        copies: How often it comes; 0: never.
    """

    delays: Mapping[str, float] = field(default_factory=dict)
    copies: Mapping[str, int] = field(default_factory=dict)
