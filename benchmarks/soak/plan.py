"""Which calls are made: a seeded, endless mix. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

AGENT_FORMATS = ("pcm_16000", "pcm_8000", "ulaw_8000")
CODECS = ("PCMU", "PCMA")
_SHORT_SECONDS, _LONG_SECONDS = (6.0, 16.0), (40.0, 80.0)


class Kind(StrEnum):
    """What happens in a call, and who ends it."""

    TALK = "talk"
    """A few turns, then the caller hangs up."""
    LONG = "long"
    """The same for a minute or so."""
    AGENT_ENDS = "agent_ends"
    BLIND = "blind_transfer"
    ATTENDED = "attended_transfer"
    BARGE_IN = "barge_in"
    DIGITS = "digits"
    """Keys in both directions."""
    HOLD = "hold"
    """Held and taken back over HTTP."""
    TOOL = "http_tool"
    WATCHED = "watched"
    """A client follows the session's events to their end."""
    WAITING = "waiting"
    """The caller waits in the application until a dialer names the agent."""
    HANGS_UP_EARLY = "hangs_up_early"
    """Before or while the agent is fetched."""
    AGENT_DROPS = "agent_drops"
    """The agent's connection breaks in the middle of an answer."""
    PLACED = "placed"
    PLACED_BUSY = "placed_busy"
    PLACED_UNANSWERED = "placed_unanswered"
    VANISHES = "vanishes"
    """The phone stops sending and never says good-bye."""
    STRANDED = "stranded"
    """Planted to see that it is found: an extension that answers and leaves the caller alone."""


_DECK: dict[Kind, int] = {
    Kind.TALK: 6,
    Kind.LONG: 4,
    Kind.AGENT_ENDS: 3,
    Kind.BLIND: 2,
    Kind.ATTENDED: 2,
    Kind.BARGE_IN: 3,
    Kind.DIGITS: 2,
    Kind.HOLD: 2,
    Kind.TOOL: 2,
    Kind.WATCHED: 2,
    Kind.WAITING: 2,
    Kind.HANGS_UP_EARLY: 3,
    Kind.AGENT_DROPS: 1,
    Kind.PLACED: 2,
    Kind.PLACED_BUSY: 1,
    Kind.PLACED_UNANSWERED: 1,
    Kind.VANISHES: 1,
}
MIX = tuple(_DECK)
"""The kinds of which a mix consists."""


@dataclass(frozen=True, slots=True)
class CallPlan:
    """One call to make."""

    number: int
    kind: Kind
    agent_format: str
    codec: str
    talk_seconds: float
    """How long turns are taken, where the plan has turns at all."""
    early_seconds: float
    """After how long a caller who hangs up early does so."""

    @property
    def name(self) -> str:
        """The caller's number as Asterisk and the service see it."""
        return f"soak{self.number}"

    def to_json(self) -> dict[str, Any]:
        """For the pipe to the phones."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(**{**body, "kind": Kind(body["kind"])})


def mix(seed: int, kinds: tuple[Kind, ...] = MIX, *, first: int = 0) -> Iterator[CallPlan]:
    """Plans without end, numbered from `first`; the same ones for the same arguments.

    Kinds come as from a shuffled deck of cards, so that each has its share in any long stretch, and
    each of them comes at least once in every deck.
    """
    rng = random.Random(seed)
    cards = [kind for kind in kinds for _ in range(_DECK.get(kind, 1))]
    if not cards:
        raise ValueError("a mix needs at least one kind of call")
    number = first
    while True:
        rng.shuffle(cards)
        for kind in cards:
            yield CallPlan(
                number,
                kind,
                rng.choice(AGENT_FORMATS),
                rng.choice(CODECS),
                round(rng.uniform(*(_LONG_SECONDS if kind is Kind.LONG else _SHORT_SECONDS)), 1),
                round(rng.uniform(0.0, 1.5), 2),
            )
            number += 1
