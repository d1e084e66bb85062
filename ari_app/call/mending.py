"""Gives back to Asterisk what no call holds any more."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Set
from functools import partial
from typing import Any, Final

import structlog

from ari_app.ari import AriError, AriNotFound, Channel, Client
from ari_app.call.owner import BridgeName
from ari_app.call.reconcile import Differences, Held, Prefixes, Snapshot, compare
from ari_app.call.release import (
    bridge_id,
    give_back_caller,
    media_channel_id,
    placed_channel_id,
    quietly,
    target_channel_id,
)
from ari_app.call.signals import Outcome, Status

log = structlog.get_logger(__name__)

LOST: Final = Outcome(Status.FAILED, "session_lost")
WORKER_LOST: Final = Outcome(Status.FAILED, "worker_lost")

_LOOK_AGAIN_SECONDS = 0.2
_MEND_SECONDS = 3.0
# How many are given back at once, each with five requests: Asterisk queues ten new connections
# (`listen` in main/tcptls.c), and one more would be tried again only after a second. So it begins
# with two, and each one that is done makes room for another, while its connections are kept.
_AT_FIRST, _AT_ONCE = 2, 10


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

    async def mend(self, *, expected: bool = False) -> None:
        """Give back all that a process has left that ended without doing so itself.

        To be done before the events are subscribed to: then nothing can enter the application
        meanwhile, and whatever is there without live media belongs to nobody. Looks until nothing
        is found twice in a row, for requests of the lost process may still be at work; for 3 s at
        most. Never raises for Asterisk's sake: the sweep finds what is left.

        Args:
            expected: Such a process is known to have been; otherwise one clean look is enough.
        """
        until = asyncio.get_running_loop().time() + _MEND_SECONDS
        wanted = 2 if expected else 1
        clean = 0
        while True:
            try:
                found = await self.look((), frozenset())
            except AriError as error:
                log.warning("mending_failed", code=error.code, error=str(error))
                return
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

    async def look(self, calls: Collection[Held], arriving: Set[str]) -> Differences:
        """Compare what Asterisk holds with the calls that we know.

        Args:
            calls: All calls that have not ended, as they were before this was called.
            arriving: Channels that have entered and are about to become calls.

        Raises:
            AriError: Asterisk could not be asked.
        """
        channels = await self._ari.channels.list()
        bridges = await self._ari.bridges.list()
        try:
            listed = (await self._ari.applications.get(self._app)).channel_ids
        except AriNotFound:
            # Without subscriber, channels and bridges there is none.
            listed = ()
        names = {
            bridge.id: BridgeName.parse(bridge.name)
            for bridge in bridges
            if bridge.id.startswith(self._prefixes.bridge)
        }
        snapshot = Snapshot(
            channels=frozenset(channel.id for channel in channels),
            bridges={bridge.id: frozenset(bridge.channels) for bridge in bridges},
            in_application=frozenset(listed).union(filter(None, map(self._entered, channels)))
            - arriving,
            on_the_way=frozenset(filter(None, map(self._on_the_way, channels))),
            callers={bridge: name.caller for bridge, name in names.items() if name.caller},
            lost=frozenset(
                bridge for bridge, name in names.items() if name.owner and name.owner.is_gone
            ),
        )
        return compare(snapshot, calls, self._prefixes)

    async def give_back(
        self, found: Differences, outcome: Outcome, transferred: Set[str] = frozenset()
    ) -> None:
        """Give back all strays.

        Args:
            found: The strays.
            outcome: What their callers are told.
            transferred: Sessions that had handed their caller over: for them all went well.
        """
        ari = self._ari
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
            log.warning("stray_caller_released", call=caller, session=session, reason=told.reason)
            releases.append(give_back_caller(ari, caller, told, session_id=session))
        await _all(releases)

    async def remove_channel(self, channel_id: str) -> None:
        """Hang up a channel of ours whose call is over."""
        log.warning("stray_channel_removed", channel=channel_id)
        await quietly(partial(self._ari.channels.hangup, channel_id))

    async def _remove_bridge(self, bridge: str) -> None:
        log.warning("stray_bridge_removed", bridge=bridge)
        await quietly(partial(self._ari.bridges.destroy, bridge))

    def _entered(self, channel: Channel) -> str | None:
        place = channel.dialplan
        ours = place.app_name == "Stasis" and place.app_data.partition(",")[0] == self._app
        return channel.id if ours else None

    def _on_the_way(self, channel: Channel) -> str | None:
        placed = channel.id.startswith((self._prefixes.placed, self._prefixes.target))
        # Up and elsewhere in the dialplan is one whom we have passed on.
        on_the_way = channel.state != "Up" or channel.dialplan.context == self._amd_context
        return channel.id if placed and on_the_way else None


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
