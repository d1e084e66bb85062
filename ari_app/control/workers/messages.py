"""What workers and their front tell each other: pure.

A worker connects, says `Hello`, and then everything that the front cannot know by itself; after a
front has died all of it again to the next one. What is not understood is passed over, for while one
after the other is replaced two versions speak with each other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from ari_app.records.spend.shares import Change

# --- from a worker


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker is there.

    Attributes:
        number: Which one; from 1.
        pid: Its process.
        app: Its application in Asterisk.
    """

    number: int
    pid: int
    app: str


@dataclass(frozen=True, slots=True)
class Room:
    """How a worker stands.

    Attributes:
        used: How many calls hold a place.
        takes: It can take calls in.
        draining: It finishes its calls, and refuses others.
    """

    used: int
    takes: bool
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Has:
    """A worker has a call, or still knows one that has ended.

    Attributes:
        session_id: Its name.
        line_id: Its line's.
    """

    session_id: str
    line_id: str


@dataclass(frozen=True, slots=True)
class HasNot:
    """A worker knows nothing more of a call."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to an `Offer`."""

    offer: int
    takes: bool


@dataclass(frozen=True, slots=True)
class Entered:
    """A channel that was moved to a worker has arrived there."""

    channel: str


@dataclass(frozen=True, slots=True)
class TakenIn:
    """An arrival has become a call, which `Room` counts, or has been refused."""

    channel: str


@dataclass(frozen=True, slots=True)
class Enter:
    """A worker wants a place for a call.

    Attributes:
        wish: Its number among those of this worker.
        paced: The limit in calls a second holds for it.
        wait_seconds: How long it may wait; 0: not at all.
    """

    wish: int
    paced: bool
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class Leave:
    """A worker no longer wants the place of a wish, or `Room` counts its call by now."""

    wish: int


@dataclass(frozen=True, slots=True)
class Spending(Change):
    """What is new of what a worker counts against the limits of a day.

    Attributes:
        worker: Whose it is; from 1.
    """

    worker: int = 0

    @classmethod
    def of(cls, worker: int, change: Change) -> Spending:
        """Return what is to be told of a worker's change."""
        return cls(**_values(change) | {"worker": worker})


@dataclass(frozen=True, slots=True)
class Deleted:
    """A call is being deleted from the call log.

    Attributes:
        session_id: Which.
        recordings: The paths of its recordings.
    """

    session_id: str
    recordings: list[str]


# --- from the front


@dataclass(frozen=True, slots=True)
class Forget:
    """Another has deleted a call: remove what there is of it; see `Deleted`."""

    session_id: str
    recordings: list[str]


@dataclass(frozen=True, slots=True)
class DeletionTold:
    """The answer to `Deleted`.

    Attributes:
        session_id: Which.
        told: All others hear of it, also those that are away now.
    """

    session_id: str
    told: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """Can you take this channel? It comes by `move` if the answer is yes.

    Attributes:
        offer: Its number.
        channel: The channel.
        anyhow: It is yours whatever becomes of it, or nobody else takes calls.
    """

    offer: int
    channel: str
    anyhow: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """A wish has its place."""

    wish: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A wish gets no place; see `ari_app.call.admission.NoRoom`."""

    wish: int
    code: str
    retry_after: float


@dataclass(frozen=True, slots=True)
class Places:
    """Whether a place is free for those who come and do not wait."""

    full: bool


FromWorker = (
    Hello | Room | Has | HasNot | Answered | Entered | TakenIn | Enter | Leave | Spending | Deleted
)
FromFront = Offer | Granted | Refused | Places | Spending | Forget | DeletionTold
Told = FromWorker | FromFront

_KINDS: Final[dict[str, type[Any]]] = {
    each.__name__: each
    for each in (
        Hello,
        Room,
        Has,
        HasNot,
        Answered,
        Entered,
        TakenIn,
        Enter,
        Leave,
        Spending,
        Deleted,
        Forget,
        DeletionTold,
        Offer,
        Granted,
        Refused,
        Places,
    )
}


def as_message(told: Told) -> dict[str, Any]:
    """Return what is told as an object for JSON."""
    # Not `asdict`: that copies what is in them, and a list may be long.
    return {"kind": type(told).__name__, **_values(told)}


def _values(told: Change | Told) -> dict[str, Any]:
    return {field.name: getattr(told, field.name) for field in fields(told)}


def read(message: dict[str, Any]) -> Told | None:
    """Return what a message tells; None where it is of another version and says nothing to us."""
    kind = _KINDS.get(message.get("kind", ""))
    if kind is None:
        return None
    known = {field.name for field in fields(kind)}
    try:
        told: Told = kind(**{name: value for name, value in message.items() if name in known})
    except TypeError:
        return None
    return told
