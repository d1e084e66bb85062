"""This machine's part among the others: it says that it is there, and learns what they say."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from ari_app.control.cluster.lease import BEAT, TTL, FrontLease
from ari_app.control.cluster.store import LEASE_SECONDS, Beat, Deletion, Leases
from ari_app.control.cluster.view import Machine, StoreAway, View, choose

log = structlog.get_logger(__name__)

_RENEW_SECONDS: Final = LEASE_SECONDS / 3
_SOONEST: Final = 0.05
_ASK_SECONDS: Final = 5.0
"""Each beat says something within a second or so; only a loop that is late needs several."""
_AWAY_BEATS: Final = 2
"""After so many without an answer nobody waits for the store any more, until a beat gets one."""
_AGAIN_SECONDS: Final = 1.0
_CANCEL_SECONDS: Final = 0.2
_GIVEN_SECONDS: Final = 2 * BEAT
_NAMESAKE_BEATS: Final = 5
"""Another one has our name for sure when we have found it so often; it beats as often as we do."""


def awake() -> float:
    """Return seconds on a clock that goes on while this machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class CommonStore(Protocol):
    """What is common to the machines: `ari_app.control.cluster.store.Store`; all of it may raise
    `StoreAway`."""

    async def beat(
        self,
        machine: Machine,
        *,
        holder: str,
        wants: bool,
        leases: Leases = ...,
    ) -> Beat: ...

    async def leave(self, machine: Machine, holder: str) -> None: ...

    async def claim(self, place: str, limit: int) -> bool: ...

    async def owner(self, call: str) -> str | None: ...

    async def keep_key(self, key: str, machine: str) -> str: ...

    async def tell_deleted(self, session_id: str, recordings: Sequence[str]) -> None: ...

    def deletions(self, machine: str, after: str = "") -> AsyncIterator[Deletion]: ...


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who is told what.

    Attributes:
        tell: Says how this machine stands now.
        on_front: Called with whether it is the front of its Asterisk, when that changes.
        on_gone: Called with each machine that is no longer there, once, by every other.
        on_deleted: Removes what there is here of a call that was deleted; where it raises, it is
            asked again later.
    """

    tell: Callable[[], Machine]
    on_front: Callable[[bool], None] = lambda front: None
    on_gone: Callable[[Machine], None] = lambda machine: None
    on_deleted: Callable[[Deletion], Awaitable[None]] | None = None


class Member:
    """One machine of several: `async with Member(...) as member`.

    Args:
        store: What is common.
        hooks: Who is told what.
        run_id: Of this process: another one each time.
        limit: How many calls there may be on all machines; 0: what each of them can take.
        now: Seconds on a clock that never stands still.

    Attributes:
        view: What was last seen of the others.
        lease: Whether this machine is the front of its Asterisk.
        draining: It wants to be the front no more.
        calls: Those that are here; see `has`.
        namesake: Where the machine is that has the same name; empty: there is none.
    """

    def __init__(
        self,
        store: CommonStore,
        hooks: Hooks,
        *,
        run_id: str,
        limit: int = 0,
        now: Callable[[], float] = awake,
    ) -> None:
        self.view = View()
        self.draining = False
        self.namesake = ""
        self._met_namesake = 0
        self.name = hooks.tell().name
        self.lease = FrontLease(f"{self.name}/{run_id}")
        self._store = store
        self._hooks = hooks
        self._limit = limit
        self._now = now
        self._front = False
        self._unanswered_beats = 0
        self._places: set[int] = set()
        self.calls: set[str] = set()
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._renewed_at = float("-inf")
        self._given: deque[tuple[float, str]] = deque()
        self._hurry = asyncio.Event()
        self._beaten = asyncio.Condition()
        self._seen = ""
        self._asked_at = float("-inf")
        self._unseen: dict[str, Machine] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # --- life

    async def __aenter__(self) -> Member:
        tasks = {self._beats(): "machines", self._read_deletions(): "deletions of other machines"}
        self._tasks = [asyncio.create_task(work, name=name) for work, name in tasks.items()]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave the others. May be called twice."""
        while running := [task for task in self._tasks if not task.done()]:
            for task in running:
                task.cancel()
            # A cancellation that meets the client library at some moments is lost there.
            await asyncio.wait(running, timeout=_CANCEL_SECONDS)
        if self._tasks:
            self._tasks = []
            self.lease.lose()
            self._settle()
            with contextlib.suppress(StoreAway):
                await self._store.leave(self._hooks.tell(), self.lease.holder)

    async def _beats(self) -> None:
        while True:
            began = self._asked_at = self._now()
            try:
                await self._beat(began)
            except Exception:
                log.exception("beat_failed")
            await self._pause(began + BEAT)

    async def _pause(self, until: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until - self._now()):
                await asyncio.sleep(_SOONEST)
                await self._hurry.wait()
        self._hurry.clear()

    async def _beat(self, asked_at: float) -> None:
        machine = self._hooks.tell()
        others = any(each.asterisk == machine.asterisk for each in self.view.others(self.name))
        wants = not self.draining and self.lease.may_want(asked_at, others=others)
        all_again = asked_at - self._renewed_at >= _RENEW_SECONDS
        here, gone = set(self.calls if all_again else self._begun), set(self._ended)
        held, given_back = self._fit_places(machine.calls)
        leases = Leases(
            [self._place(each) for each in (self._places if all_again else held)],
            [self._place(each) for each in given_back],
            tuple(here),
            tuple(gone),
        )
        try:
            found = await self._store.beat(
                machine, holder=self.lease.holder, wants=wants, leases=leases
            )
        except StoreAway as error:
            self._unanswered(asked_at, error)
        else:
            # What has come or gone meanwhile is told the next time.
            self._begun -= here
            self._ended -= gone
            if all_again:
                self._renewed_at = asked_at
            self._answered(asked_at, found)
            self._look_for_namesake(machine, found.before)
        self._settle()
        async with self._beaten:
            self._beaten.notify_all()

    def _answered(self, asked_at: float, found: Beat) -> None:
        if not self.view.reachable:
            log.info("cluster_store_reached", machines=len(found.machines))
            # It may have come back empty.
            self._renewed_at = float("-inf")
        self._unanswered_beats = 0
        self.lease.answered(asked_at, found.grant)
        for machine in self.view.update(found.machines, found.places, asked_at):
            if machine.name != self.name:
                log.warning("machine_gone", machine=machine.name)
                self._unseen[machine.name] = machine
                self._hooks.on_gone(machine)
        for name in self._unseen.keys() & self.view.machines.keys():
            del self._unseen[name]

    def _look_for_namesake(self, machine: Machine, before: Machine | None) -> None:
        """Find out whether another machine has our name: each would take the other's calls and
        places for its own. The process before this one had our address."""
        met = before is not None and before.url != machine.url
        self._met_namesake = min(max(self._met_namesake + (1 if met else -1), 0), _NAMESAKE_BEATS)
        if before is not None and met and self._met_namesake == _NAMESAKE_BEATS:
            if not self.namesake:
                log.error("machine_name_taken", machine=machine.name, by=before.url)
            self.namesake = before.url
        elif not self._met_namesake:
            self.namesake = ""

    def _unanswered(self, asked_at: float, error: StoreAway) -> None:
        if not self._unanswered_beats:
            log.warning("cluster_store_away", error=str(error))
        self._unanswered_beats += 1
        self.view.reachable = False
        self.lease.unanswered(asked_at)

    def _reach(self) -> CommonStore:
        """Return the store, unless it is known to be away: each question would wait in vain.

        Raises:
            StoreAway: It is.
        """
        if self._unanswered_beats >= _AWAY_BEATS:
            raise StoreAway("it has not answered for a while")
        return self._store

    def _settle(self) -> None:
        if self.lease.is_ours != self._front:
            self._front = self.lease.is_ours
            if self._front:
                log.info("front", token=self.lease.token)
            else:
                log.info("front_no_more")
            self._hooks.on_front(self._front)

    # --- the front

    async def may_act(self) -> bool:
        """Return whether this machine is the front at this moment.

        One that has not run for a while asks the store first; the others may have gone on. Where
        the answer came late as well, it asks again: a caller of whom nobody knows waits for long.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ASK_SECONDS):
                while self.lease.is_ours and not self.lease.may_act(self._now()):
                    self._hurry.set()
                    async with self._beaten:
                        await self._beaten.wait()
        return self.lease.may_act(self._now())

    def replaced(self) -> None:
        """Take it that Asterisk has given the application to another."""
        self.lease.lose()
        self._settle()

    def targets(self) -> list[Machine]:
        """Return the machines that may take a call of our Asterisk's, this one too where it can:
        the one with most room first."""
        now = self._now()
        while self._given and self._given[0][0] < now - _GIVEN_SECONDS:
            self._given.popleft()
        given: dict[str, int] = {}
        for _, name in self._given:
            given[name] = given.get(name, 0) + 1
        here = self._hooks.tell()
        machines = {**self.view.machines, self.name: here}
        return choose(machines.values(), here.asterisk, given)

    def gave(self, machine: Machine) -> None:
        """Note that a machine was given a call, which it has not yet told of."""
        self._given.append((self._now(), machine.name))

    # --- calls

    async def take_place(self) -> bool:
        """Take a place for one more call; False: there are as many calls as there may be.

        `Machine.calls` counts the call already, and counts it no more as soon as this is refused.
        Where the store is away, this machine has its share of all places.
        """
        if not self._limit:
            return True
        number = next(each for each in itertools.count(1) if each not in self._places)
        self._places.add(number)
        try:
            taken = await self._reach().claim(self._place(number), self._limit)
        except StoreAway:
            taken = len(self._places) <= self.view.share(self.name, self._limit)
        if not taken:
            self._places.discard(number)
        return taken

    def _fit_places(self, calls: int) -> tuple[list[int], list[int]]:
        """Hold as many places as there are calls: those that are new, and those given back.

        Calls that are there have a place, also where others have taken theirs meanwhile.
        """
        if not self._limit:
            return [], []
        lacking = calls - len(self._places)
        free = (each for each in itertools.count(1) if each not in self._places)
        new = list(itertools.islice(free, max(0, lacking)))
        spare = sorted(self._places)[calls:]
        self._places.update(new)
        self._places.difference_update(spare)
        return new, spare

    def _place(self, number: int) -> str:
        return f"{self.name}#{number}"

    def has(self, calls: set[str]) -> None:
        """Note which calls are here now."""
        if calls != self.calls:
            self._begun = (self._begun & calls) | (calls - self.calls)
            self._ended = (self._ended - calls) | (self.calls - calls)
            self.calls = calls
            self._hurry.set()

    def is_awake(self) -> bool:
        """Return whether this machine has run all the time since it last asked the store."""
        return self._now() - self._asked_at < TTL

    def others(self) -> list[Machine]:
        """Return all other machines."""
        return self.view.others(self.name)

    def unseen(self) -> list[Machine]:
        """Return those that the store has no more, and that may only be cut off from it."""
        return list(self._unseen.values())

    def does_not_answer(self, machine: Machine) -> None:
        """Note that a machine does not answer either: if it was unseen, it is gone."""
        self._unseen.pop(machine.name, None)

    def most(self, limit: int) -> int:
        """Return how many calls there may be, where the machines have room for so many."""
        return min(limit, self._limit) if self._limit else limit

    async def keep_key(self, key: str) -> Machine | None:
        """Return which other machine has answered a request with this key first.

        Raises:
            StoreAway: Nobody can say.
        """
        name = await self._reach().keep_key(key, self.name)
        return None if name == self.name else self.view.machines.get(name)

    async def owner(self, call: str) -> Machine | None:
        """Return which other machine has a call; None: none that is known.

        Raises:
            StoreAway: Nobody can say.
        """
        name = await self._reach().owner(call)
        return None if name is None or name == self.name else self.view.machines.get(name)

    # --- what was deleted

    async def deleted(self, session_id: str, recordings: Sequence[str]) -> bool:
        """Tell the others that a call is deleted here; whether they will hear it, whatever becomes
        of this process."""
        try:
            await self._reach().tell_deleted(session_id, recordings)
        except StoreAway:
            return False
        return True

    async def _read_deletions(self) -> None:
        if self._hooks.on_deleted is None:
            return
        while True:
            try:
                async for deletion in self._store.deletions(self.name, self._seen):
                    await self._hooks.on_deleted(deletion)
                    self._seen = deletion.entry
            except StoreAway:
                pass
            except Exception as error:
                # A disk that is full, or not there: it is asked again.
                log.warning("deletion_not_followed", error=type(error).__name__)
            await asyncio.sleep(_AGAIN_SECONDS)
