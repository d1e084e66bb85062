"""The store in memory, in the loop's time. `test_store.py` holds it and the real one together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from ari_app.control.cluster.lease import TTL, Grant
from ari_app.control.cluster.store import LEASE_SECONDS, Beat, Deletion, Leases
from ari_app.control.cluster.view import Machine, StoreAway

_NONE = Leases()


class FakeStore:
    """What all machines share. A machine's way to it is a `FakeLink`."""

    def __init__(self) -> None:
        self.machines: dict[str, tuple[float, Machine]] = {}
        self.fronts: dict[str, tuple[float, Grant]] = {}
        self.places: dict[str, float] = {}
        self.calls: dict[str, tuple[float, str]] = {}
        self.keys: dict[str, str] = {}
        self.deleted: list[Deletion] = []
        self.token = 0

    def empty(self) -> None:
        """Lose all that it holds, as a server without a disk that starts again."""
        token = self.token
        self.__init__()  # type: ignore[misc]
        self.token = token

    def purge(self, now: float) -> None:
        self.places = {place: until for place, until in self.places.items() if until > now}
        self.calls = {call: held for call, held in self.calls.items() if held[0] > now}
        self.machines = {name: held for name, held in self.machines.items() if held[0] > now}
        self.fronts = {name: held for name, held in self.fronts.items() if held[0] > now}


class FakeLink:
    """One machine's way to the store.

    Attributes:
        away: Nothing is answered.
        slow: Seconds until an answer comes; what was asked is done at once.
    """

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.away = False
        self.slow = 0.0

    async def _reach(self) -> float:
        if self.away:
            await asyncio.sleep(0.5)
            raise StoreAway("no answer")
        now = asyncio.get_running_loop().time()
        self.store.purge(now)
        return now

    async def beat(
        self,
        machine: Machine,
        *,
        holder: str,
        wants: bool,
        leases: Leases = _NONE,
    ) -> Beat:
        now = await self._reach()
        store = self.store
        before = store.machines.get(machine.name, (0.0, None))[1]
        store.machines[machine.name] = (now + TTL, machine)
        store.places |= dict.fromkeys(leases.held, now + LEASE_SECONDS)
        for place in leases.given_back:
            store.places.pop(place, None)
        store.calls |= dict.fromkeys(leases.here, (now + LEASE_SECONDS, machine.name))
        for call in leases.gone:
            if store.calls.get(call, (0.0, ""))[1] == machine.name:
                del store.calls[call]
        held = store.fronts.get(machine.asterisk)
        wants = wants and bool(machine.asterisk)
        if wants and held is None:
            store.token += 1
            held = (now + TTL, Grant(holder, store.token))
        if held is not None and held[1].holder == holder:
            held = (now + TTL, held[1]) if wants else None
        if held is None:
            store.fronts.pop(machine.asterisk, None)
        else:
            store.fronts[machine.asterisk] = held
        grant = Grant("", store.token) if held is None else held[1]
        there = tuple(each for _, each in store.machines.values())
        found = Beat(grant, there, len(store.places), before)
        if self.slow:
            await asyncio.sleep(self.slow)
        return found

    async def leave(self, machine: Machine, holder: str) -> None:
        await self._reach()
        if self.store.machines.get(machine.name, (0.0, None))[1] == machine:
            del self.store.machines[machine.name]
        held = self.store.fronts.get(machine.asterisk)
        if held is not None and held[1].holder == holder:
            del self.store.fronts[machine.asterisk]

    async def claim(self, place: str, limit: int) -> bool:
        now = await self._reach()
        if place not in self.store.places and len(self.store.places) >= limit:
            return False
        self.store.places[place] = now + LEASE_SECONDS
        return True

    async def owner(self, call: str) -> str | None:
        await self._reach()
        return self.store.calls.get(call, (0.0, None))[1]

    async def keep_key(self, key: str, machine: str) -> str:
        await self._reach()
        if self.store.keys.get(key) not in self.store.machines:
            self.store.keys[key] = machine
        return self.store.keys[key]

    async def tell_deleted(self, session_id: str, recordings: Sequence[str]) -> None:
        await self._reach()
        entry = f"{len(self.store.deleted) + 1}-0"
        self.store.deleted.append(Deletion(entry, session_id, tuple(recordings)))

    async def deletions(self, machine: str, after: str = "") -> AsyncIterator[Deletion]:
        seen = int(after.partition("-")[0] or 0)
        while True:
            await self._reach()
            for deletion in self.store.deleted[seen:]:
                seen += 1
                yield deletion
            await asyncio.sleep(0.05)
