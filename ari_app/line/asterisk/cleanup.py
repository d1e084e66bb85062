"""Cleaning up: what no call holds any more is given back to Asterisk, and what was missed is told.

A *look* (`Mender.look`) compares what Asterisk holds with the calls that we know. It is
needed when a process has died (`Mender.mend`), after every connection of the event socket,
for events in between are lost (`Sweeper.catch_up`), and now and then in between, for a
request that failed leaves something behind (`Sweeper.sweep_forever`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriError, AriMalformed, AriNotFound, AriServerError
from ari_app.line.asterisk.ari.events import AriEvent, StasisStart
from ari_app.line.asterisk.ari.models import Bridge, Channel
from ari_app.line.asterisk.channels import give_back_caller, quietly
from ari_app.line.asterisk.line import AsteriskLine
from ari_app.line.asterisk.names import (
    BridgeName,
    Owner,
    adopter,
    bridge_id,
    media_channel_id,
    placed_channel_id,
    target_channel_id,
)
from ari_app.line.asterisk.reconcile import (
    Differences,
    Held,
    Prefixes,
    Snapshot,
    compare,
    is_in,
    missed,
)
from ari_app.line.interface import WORKER_LOST, Outcome, Status

log = structlog.get_logger(__name__)

LOST: Final = Outcome(Status.FAILED, "session_lost")

GIVE_BACK_SECONDS: Final = 22.0
"""How long giving all calls back may take where Asterisk does not answer: see
`ari_app.call.calls.Calls.drain`."""

T = TypeVar("T")

_LOOK_AGAIN_SECONDS = 0.2
_MEND_SECONDS = 3.0
# How many are given back at once, each with five requests: Asterisk queues ten new connections
# (`listen` in main/tcptls.c), and one more would be tried again only after a second. So it begins
# with two, and each one that is done makes room for another, while its connections are kept.
_AT_FIRST, _AT_ONCE = 2, 10
_SWEEP_SECONDS = 15.0
# In between only the names in our application are looked at: a caller whose entrance was not
# reported hears nothing until somebody finds them.
_WATCH_SECONDS = 2.0
_WATCH_AGAIN_SECONDS = 0.5
# Between two sweeps, however many reasons there are.
_PAUSE_SECONDS = 0.5
# What looks left behind may be on its way: only what is so at two looks in a row is given back.
_CONFIRM_SECONDS = 1.0
INDESCRIBABLE: Final = (AriServerError, AriMalformed)
"""Asterisk is there, and fails to put it into words."""


@dataclass(frozen=True, slots=True)
class Stock:
    """The lists of things that Asterisk gives.

    Attributes:
        channels, bridges: What it could describe.
        obscure: The ids of channels that are there, and that it could not describe.
        listed: The ids of the channels that our application names: those inside, and those that it
            has subscribed to.
    """

    channels: tuple[Channel, ...]
    obscure: frozenset[str]
    bridges: tuple[Bridge, ...]
    listed: frozenset[str]


class Mender:
    """Finds what is left behind in Asterisk, and gives it back.

    Args:
        ari: Asterisk.
        app: Our application.
        amd_context: Where channels that we have placed go for answering machine detection.
    """

    def __init__(self, ari: Client, app: str, amd_context: str) -> None:
        self._ari = ari
        self._app = app
        self._amd_context = amd_context
        self._prefixes = Prefixes(
            media=media_channel_id(app, ""),
            bridge=bridge_id(app, ""),
            placed=placed_channel_id(app, ""),
            target=target_channel_id(app, ""),
        )

    async def mend(
        self, *, expected: bool = False, patience: float | None = None, callers: bool = True
    ) -> None:
        """Give back all that a process has left that ended without doing so itself.

        To be done before the events are subscribed to: then nothing can enter the application
        meanwhile, and whatever is there without live media belongs to nobody. Looks until nothing
        is found twice in a row, for requests of the lost process may still be at work. Never
        raises for Asterisk's sake.

        Args:
            expected: Such a process is known to have been; otherwise one clean look is enough.
            patience: For how long it is tried, also where Asterisk cannot be asked. None: there is
                a sweep that finds what is left, so it is tried for 3 s, and not without Asterisk.
            callers: Those who wait for nobody, too; otherwise somebody else looks after them.
        """
        until = asyncio.get_running_loop().time() + (patience or _MEND_SECONDS)
        wanted = 2 if expected else 1
        clean, told = 0, False
        while True:
            try:
                found = await self.look(())
            except AriError as error:
                clean = 0
                if not told:
                    told = True
                    log.warning("mending_failed", code=error.code, error=str(error))
                if patience is None:
                    return
            else:
                if not callers:
                    found = replace(found, stray_callers=frozenset())
                clean = 0 if found.strays else clean + 1
                if found.strays:
                    wanted = 2
                    log.warning(
                        "left_behind",
                        callers=len(found.stray_callers),
                        placed=len(found.stray_legs),
                        media=len(found.stray_media),
                        bridges=len(found.stray_bridges),
                    )
                    await self.give_back(found, WORKER_LOST)
            if clean >= wanted or asyncio.get_running_loop().time() >= until:
                return
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def look(self, calls: Collection[Held]) -> Differences:
        """Compare what Asterisk holds with the calls that we know.

        Args:
            calls: All calls that have not ended, as they were before this was called.

        Raises:
            AriError: Asterisk could not be asked.
        """
        stock = await self.take_stock(calls)
        names = {
            bridge.id: BridgeName.parse(bridge.name)
            for bridge in stock.bridges
            if bridge.id.startswith(self._prefixes.bridge)
        }
        owners = {bridge.id: _owner(bridge, names.get(bridge.id)) for bridge in stock.bridges}
        # Hundreds of calls have few owners, and each is looked for in /proc.
        gone = {owner for owner in set(owners.values()) if owner is not None and owner.is_gone}
        snapshot = Snapshot(
            channels=stock.obscure.union(channel.id for channel in stock.channels),
            bridges={bridge.id: frozenset(bridge.channels) for bridge in stock.bridges},
            # Of what it cannot describe it at least says that it is there.
            in_application=(stock.listed & stock.obscure) | self._inside(stock),
            on_the_way=frozenset(filter(None, map(self._on_the_way, stock.channels))),
            callers={bridge: name.caller for bridge, name in names.items() if name.caller},
            lost=frozenset(bridge for bridge, owner in owners.items() if owner in gone),
        )
        return compare(snapshot, calls, self._prefixes)

    def newcomers(self, stock: Stock) -> frozenset[str]:
        """Return the channels that have entered our application and are no part of any call."""
        in_calls = {channel for bridge in stock.bridges for channel in bridge.channels}
        in_calls |= {BridgeName.parse(bridge.name).caller for bridge in stock.bridges}
        ours = (self._prefixes.media, self._prefixes.placed, self._prefixes.target)
        inside = self._inside(stock)
        return frozenset(name for name in inside if not name.startswith(ours)) - in_calls

    def _inside(self, stock: Stock) -> frozenset[str]:
        return frozenset(
            channel.id for channel in stock.channels if is_in(channel, self._app, stock.listed)
        )

    async def take_stock(self, calls: Collection[Held]) -> Stock:
        """Ask Asterisk what it holds.

        Its lists are all or nothing: one thing that Asterisk cannot describe, wherever it comes
        from, and there is no list for as long as that lives. Then each thing is asked for alone
        that our application, our bridges or our calls name.

        Args:
            calls: All calls that have not ended.

        Raises:
            AriError: Asterisk could not be asked.
        """
        listed, bridge_ids = await self.listed()
        try:
            bridges = await self._ari.bridges.list()
        except INDESCRIBABLE as error:
            log.warning("list_of_bridges_failed", code=error.code, error=str(error))
            named = bridge_ids.union(call.bridge for call in calls)
            # One that cannot be described is none of ours.
            bridges, _ = await describe_each(self._ari.bridges.get, named)
        obscure: frozenset[str] = frozenset()
        try:
            channels = await self._ari.channels.list()
        except INDESCRIBABLE as error:
            log.warning("list_of_channels_failed", code=error.code, error=str(error))
            named = listed | self._named_by(bridges)
            named |= {name for call in calls for name in (call.caller, call.media, call.target)}
            channels, obscure = await describe_each(self._ari.channels.get, named - {""})
        return Stock(channels, obscure, bridges, listed)

    async def listed(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the ids of the channels and of the bridges in our application.

        Raises:
            AriError: Asterisk could not be asked.
        """
        try:
            ours = await self._ari.applications.get(self._app)
        except AriNotFound:
            # Without subscriber, channels and bridges there is none.
            return frozenset(), frozenset()
        return frozenset(ours.channel_ids), frozenset(ours.bridge_ids)

    def _named_by(self, bridges: Collection[Bridge]) -> frozenset[str]:
        named: set[str] = set()
        for bridge in bridges:
            if bridge.id.startswith(self._prefixes.bridge):
                session = bridge.id.removeprefix(self._prefixes.bridge)
                caller = BridgeName.parse(bridge.name).caller
                named |= {*bridge.channels, caller, f"{self._prefixes.media}{session}"}
        return frozenset(named)

    async def give_back(
        self, found: Differences, outcome: Outcome, transferred: Set[str] = frozenset()
    ) -> None:
        """Give back all strays.

        Args:
            found: The strays.
            outcome: What their callers are told.
            transferred: Sessions that had handed their caller over: for them all went well.
        """
        await _all(
            [
                *map(self.remove_channel, found.stray_media | found.stray_legs),
                *map(self._remove_bridge, found.stray_bridges),
            ]
        )
        releases = []
        for caller in found.stray_callers:
            session = found.sessions.get(caller, "")
            told = Outcome(Status.COMPLETED, "transferred") if session in transferred else outcome
            releases.append(self._release_caller(caller, session, told))
        await _all(releases)

    async def _release_caller(self, caller: str, session: str, told: Outcome) -> None:
        if await give_back_caller(self._ari, caller, told, session_id=session):
            log.warning("stray_caller_released", call=caller, session=session, reason=told.reason)

    async def remove_channel(self, channel_id: str) -> None:
        """Hang up a channel of ours whose call is over."""
        if await quietly(partial(self._ari.channels.hangup, channel_id)):
            log.warning("stray_channel_removed", channel=channel_id)

    async def _remove_bridge(self, bridge: str) -> None:
        if await quietly(partial(self._ari.bridges.destroy, bridge)):
            log.warning("stray_bridge_removed", bridge=bridge)

    def _on_the_way(self, channel: Channel) -> str | None:
        placed = channel.id.startswith((self._prefixes.placed, self._prefixes.target))
        # Up and elsewhere in the dialplan is one whom we have passed on.
        on_the_way = channel.state != "Up" or channel.dialplan.context == self._amd_context
        return channel.id if placed and on_the_way else None


def _owner(bridge: Bridge, name: BridgeName | None) -> Owner | None:
    """Return the process that serves the call of a bridge; None: it is not known, or none of
    ours."""
    if name is None:
        return None
    adopters = [found for channel in bridge.channels if (found := adopter(channel))]
    return adopters[-1] if adopters else name.owner


async def describe_each(
    get: Callable[[str], Awaitable[T]], ids: Collection[str]
) -> tuple[tuple[T, ...], frozenset[str]]:
    """Ask Asterisk for each thing alone, where it gives no list of them.

    Returns:
        What it describes, and the ids of what is there and cannot be described.
    """
    found: list[T] = []
    obscure: set[str] = set()

    async def one(name: str) -> None:
        try:
            found.append(await get(name))
        except AriNotFound:
            pass
        except INDESCRIBABLE:
            obscure.add(name)

    await _all([one(name) for name in ids])
    return tuple(found), frozenset(obscure)


async def _all(work: Collection[Coroutine[Any, Any, object]]) -> None:
    room, places = asyncio.Semaphore(_AT_FIRST), _AT_FIRST

    async def one(step: Coroutine[Any, Any, object]) -> None:
        nonlocal places
        async with room:
            await step
        if places < _AT_ONCE:
            places += 1
            room.release()

    await asyncio.gather(*map(one, work))


class Sweeper:
    """Keeps Asterisk and the lines that we know alike.

    Args:
        mender: Looks, and gives back.
        ari: Asterisk.
        lines: Each line by its channels; it is looked at, not changed.
        tell: Takes an event of Asterisk's.
    """

    def __init__(
        self,
        mender: Mender,
        ari: Client,
        lines: Mapping[str, AsteriskLine],
        tell: Callable[[AriEvent], None],
    ) -> None:
        self._mender = mender
        self._app = ari.app
        self._link = ari.link
        self._lines = lines
        self._tell = tell
        self._replaced = self._takes_up = False
        self._elsewhere: frozenset[str] = frozenset()
        self._handed_over: frozenset[str] = frozenset()
        self._strangers: frozenset[str] = frozenset()
        self._wanted = asyncio.Event()
        self._reconciling = asyncio.Lock()

    @property
    def replaced(self) -> bool:
        """Another process has the application: its calls are none of ours to clean up."""
        return self._replaced

    @replaced.setter
    def replaced(self, replaced: bool) -> None:
        self._replaced = replaced
        self._wanted.set()

    async def take_up(self) -> None:
        """Give back what a lost process has left that is no call's of ours, before the events are
        subscribed to; who has come and was in no call yet comes anew once they are.

        One look only, for callers wait: requests of the lost process that are still at work are
        seen by the sweep. Never raises for Asterisk's sake.
        """
        self._takes_up = True
        try:
            found = await self._look()
        except AriError as error:
            log.warning("mending_failed", code=error.code, error=str(error))
            return
        await self._end_lost_calls(found)
        left = replace(found, stray_callers=found.stray_callers & found.sessions.keys())
        await self._mender.give_back(left, WORKER_LOST, self._handed_over)
        self._wanted.set()

    def channel_gone(self, channel_id: str) -> None:
        """Look soon if a channel that is no call's of ours has left, and another process served
        it."""
        if channel_id in self._elsewhere:
            self._wanted.set()

    async def sweep_forever(self) -> None:
        """Look for what is left behind now and then, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + _SWEEP_SECONDS
        while True:
            next_look = min(loop.time() + _WATCH_SECONDS, due)
            await asyncio.sleep(_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_look):
                    await self._wanted.wait()
            try:
                # Without events a sweep is the only way to see that a caller has hung up.
                if (
                    self._wanted.is_set()
                    or self._replaced
                    or loop.time() >= due
                    or await self._sees_strangers()
                ):
                    self._wanted.clear()
                    due = loop.time() + _SWEEP_SECONDS
                    await self.reconcile()
            except Exception:
                log.exception("sweep_failed")

    async def reconcile(self) -> None:
        """Compare Asterisk with the calls that we know and mend what differs.

        Never raises for Asterisk's sake: what fails now is found again by the next sweep.
        """
        async with self._reconciling:
            try:
                first = await self._look()
                await self._end_lost_calls(first)
                if self._replaced or not first.strays:
                    return
                await asyncio.sleep(_CONFIRM_SECONDS)
                second = await self._look()
            except AriError as error:
                log.warning("reconcile_failed", code=error.code, error=str(error))
                return
            await self._mender.give_back(second.confirmed_by(first), LOST, self._handed_over)

    async def catch_up(self) -> None:
        """Find out what happened to the calls while no events came, then mend what differs."""
        try:
            stock = await self._mender.take_stock(self._held())
        except AriError as error:
            log.warning("catch_up_failed", code=error.code, error=str(error))
        else:
            anew = self._arrivals(stock)
            for channel_id, event in missed(stock.channels, stock.bridges, self._app, stock.listed):
                line = self._lines.get(channel_id)
                # A caller who is being given back has not entered anew.
                if line is not None and not line.closing:
                    self._tell(event)
                elif line is None and channel_id in anew and isinstance(event, StasisStart):
                    log.info("caller_comes_anew", call=channel_id)
                    self._tell(event)
        await self.reconcile()

    def _arrivals(self, stock: Stock) -> frozenset[str]:
        """Return who has come to a process that was lost, and was in no call yet."""
        takes_up, self._takes_up = self._takes_up, False
        return self._mender.newcomers(stock) if takes_up else frozenset()

    async def _sees_strangers(self) -> bool:
        """Return whether somebody is in our application whom no sweep has seen, and stays there."""
        if not self._link.up:
            return False
        try:
            if strangers := (await self._mender.listed())[0] - self._known() - self._strangers:
                await asyncio.sleep(_WATCH_AGAIN_SECONDS)
                strangers &= (await self._mender.listed())[0] - self._known()
        except AriError as error:
            log.debug("watch_failed", code=error.code, error=str(error))
            return False
        return bool(strangers)

    def _known(self) -> frozenset[str]:
        return self._elsewhere.union(self._lines)

    def _held(self) -> list[Held]:
        # Two may have one caller: who has come back before all of their last call was given back.
        return [line.held for line in dict.fromkeys(self._lines.values())]

    async def _end_lost_calls(self, differences: Differences) -> None:
        """Tell lines what they have lost.

        Hundreds of callers may have gone at once, and each takes a millisecond: the loop turns in
        between, for the frames of the others. What a call may get anew is told of at once.
        """
        gone = differences.callers_gone
        for line_id in (differences.media_gone | differences.targets_gone) - gone:
            if (line := self._lines.get(line_id)) is not None:
                self._tell_lost(line, line_id, differences)
        for line_id, line in [(each, self._lines.get(each)) for each in gone]:
            if line is not None:
                line.gone()
                self._tell_lost(line, line_id, differences)
                await asyncio.sleep(0)

    def _tell_lost(self, line: AsteriskLine, line_id: str, differences: Differences) -> None:
        if line_id in differences.media_gone:
            line.media_gone()
        if line_id in differences.targets_gone:
            line.target_gone(None, None)

    async def _look(self) -> Differences:
        # Taken before Asterisk is asked: a call that begins meanwhile can only look stray, and
        # strays are confirmed by a second look.
        found = await self._mender.look(self._held())
        self._elsewhere = found.elsewhere
        self._strangers = found.strangers
        # One who is no longer there needs no memory.
        self._handed_over = found.handed_over | (
            self._handed_over & frozenset(found.sessions.values())
        )
        return found
