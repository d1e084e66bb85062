"""What a machine knows of the others, and what follows from it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ari_app.control.cluster.lease import TTL
from ari_app.errors import AppError

_MAX_ROOM: Final = 100_000
_FIND_AGAIN_SECONDS: Final = 2 * TTL


class StoreAway(AppError):
    """The store cannot be reached, or does not do as it should."""

    default_code = "store_away"
    default_retryable = True


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine tells of itself.

    Attributes:
        name: Unique among the machines.
        run: Tells this run of it from the one before.
        url: Where others reach its HTTP interface.
        asterisk: The Asterisk that it serves, with the application that the dialplan names; empty:
            it serves none, or does not know it yet.
        room: How many more calls it can take.
        calls: How many it has, or is about to have.
        ready: It takes calls at all.
    """

    name: str
    run: str
    url: str
    asterisk: str = ""
    room: int = 0
    calls: int = 0
    ready: bool = False

    def to_json(self) -> bytes:
        """Return it as it stands in the store."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> Machine | None:
        """Read what another has written; None: it is of a version that we do not understand."""
        try:
            value: Any = orjson.loads(data)
        except orjson.JSONDecodeError:
            return None
        match value:
            case {
                "name": str(name),
                "run": str(run),
                "url": str(url),
                "asterisk": str(asterisk),
                "room": int(room),
                "calls": int(calls),
                "ready": bool(ready),
            }:
                room, calls = (max(0, min(each, _MAX_ROOM)) for each in (room, calls))
                return cls(name, run, url, asterisk, room, calls, ready)
            case _:
                return None


class View:
    """The machines that were there when the store was last asked.

    Attributes:
        machines: By name, this one too.
        places: How many places for calls all of them hold.
        reachable: The store answers.
    """

    def __init__(self) -> None:
        self.machines: Mapping[str, Machine] = {}
        self.places = 0
        self.reachable = False
        self._forgiving_until = 0.0

    def update(self, machines: Iterable[Machine], places: int, now: float) -> list[Machine]:
        """Take what the store says; return the machines that have gone.

        After a time without it, nobody is taken for gone who may only not have found it again.
        """
        if not self.reachable:
            self._forgiving_until = now + _FIND_AGAIN_SECONDS
        found = {each.name: each for each in machines}
        if now < self._forgiving_until:
            found = {**self.machines, **found}
        gone = [each for each in self.machines.values() if each.name not in found]
        self.machines, self.places, self.reachable = found, places, True
        return gone

    def others(self, name: str) -> list[Machine]:
        """Return all machines but this one."""
        return [each for each in self.machines.values() if each.name != name]

    def share(self, name: str, limit: int) -> int:
        """Return how many calls this machine may have where nobody can be asked.

        The shares of all machines that see the same ones add up to the limit.
        """
        names = sorted({name, *self.machines})
        even, rest = divmod(limit, len(names))
        return even + (names.index(name) < rest)


def choose(machines: Collection[Machine], asterisk: str, given: Mapping[str, int]) -> list[Machine]:
    """Return the machines that may take a call of an Asterisk's, the one with most room first.

    Args:
        machines: All of them.
        asterisk: Whose call it is.
        given: How many were given to each since it has told its room, by name.
    """
    room = {
        each.name: each.room - given.get(each.name, 0)
        for each in machines
        if each.ready and each.asterisk == asterisk
    }
    able = [each for each in machines if room.get(each.name, 0) > 0]
    return sorted(able, key=lambda each: (-room[each.name], each.name))
