"""Who is connected, and who makes room when there are too many. Pure: `now` is an argument.

A connection is half-open until it has said who it is. When there are too many of those, the oldest
makes room for the newest, not the other way round: Asterisk sends its UUID within a millisecond of
connecting, so a connection that has been silent for longer is the likelier stranger, and a flood of
silent ones cannot keep a caller out.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Key = TypeVar("Key", bound=Hashable)
OverLimit = Literal["limit", "address_limit"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be at once."""

    connections: int = 2000
    """In all."""
    connections_per_address: int = 2000
    """From one address. Asterisk is usually one, so it has to hold all calls."""
    half_open: int = 400
    """Those that have not said who they are."""
    half_open_per_address: int = 200


@dataclass(frozen=True, slots=True)
class Arrival(Generic[Key]):
    """What becomes of a new connection."""

    refused: OverLimit | None = None
    """Why it is refused; None when it is let in."""
    made_room: tuple[Key, OverLimit] | None = None
    """A half-open connection that has to go instead, and why."""


class Census(Generic[Key]):
    """Counts connections, in all and by address."""

    def __init__(self, limits: ConnectionLimits, *, identify_seconds: float) -> None:
        """`identify_seconds`: how long a connection may be half-open."""
        self._limits = limits
        self._identify_seconds = identify_seconds
        self._addresses: dict[Key, str] = {}
        self._per_address: Counter[str] = Counter()
        # By age, and each with the time at which it has been half-open for too long.
        self._half_open: OrderedDict[Key, float] = OrderedDict()
        self._half_open_by_address: dict[str, OrderedDict[Key, None]] = {}

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._addresses)

    @property
    def half_open(self) -> int:
        """How many have not said who they are."""
        return len(self._half_open)

    @property
    def next_deadline(self) -> float | None:
        """When the oldest half-open connection has been so for too long."""
        return next(iter(self._half_open.values()), None)

    def arrive(self, key: Key, address: str, *, now: float) -> Arrival[Key]:
        """A connection has come. What `made_room` names has left."""
        limits = self._limits
        here = self._half_open_by_address.get(address, OrderedDict())
        over: OverLimit | None = None
        oldest: Key | None = None
        if (
            self._per_address[address] >= limits.connections_per_address
            or len(here) >= limits.half_open_per_address
        ):
            over, oldest = "address_limit", next(iter(here), None)
        elif len(self) >= limits.connections or self.half_open >= limits.half_open:
            over, oldest = "limit", next(iter(self._half_open), None)
        if over is None:
            made_room = None
        elif oldest is None:
            return Arrival(refused=over)
        else:
            self.leave(oldest)
            made_room = (oldest, over)
        self._addresses[key] = address
        self._per_address[address] += 1
        self._half_open[key] = now + self._identify_seconds
        self._half_open_by_address.setdefault(address, OrderedDict())[key] = None
        return Arrival(made_room=made_room)

    def identify(self, key: Key) -> None:
        """A connection has said who it is, and stays. Has no effect on one that has left."""
        if self._half_open.pop(key, None) is not None:
            address = self._addresses[key]
            here = self._half_open_by_address[address]
            del here[key]
            if not here:
                del self._half_open_by_address[address]

    def leave(self, key: Key) -> None:
        """A connection is gone. May be told twice."""
        self.identify(key)
        address = self._addresses.pop(key, None)
        if address is not None:
            self._per_address[address] -= 1
            if not self._per_address[address]:
                del self._per_address[address]

    def take_late(self, now: float) -> list[Key]:
        """The connections that have been half-open for too long; they have left."""
        late = []
        for key, deadline in self._half_open.items():
            if deadline > now:
                break
            late.append(key)
        for key in late:
            self.leave(key)
        return late
