"""Gives back to Asterisk what is left behind, and finds the calls that have ended unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from functools import partial

import structlog

from ari_app.ari import AriError
from ari_app.call.plan import Services
from ari_app.call.reconcile import Differences, Snapshot, compare
from ari_app.call.release import (
    bridge_id,
    give_back_caller,
    media_channel_id,
    placed_channel_id,
    quietly,
    target_channel_id,
)
from ari_app.call.session import CallSession
from ari_app.call.signals import CallerLeft, Event, MediaLost, Outcome, Status, TargetLost

log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 15.0
# Without events this is the only way to see that a caller has hung up.
_BLIND_SWEEP_SECONDS = 2.0
# What looks left behind may be on its way: only what is so at two looks in a row is given back.
_CONFIRM_SECONDS = 1.0


class Sweeper:
    """Compares Asterisk with the calls that we know.

    Args:
        services: What every call uses.
        sessions: All calls; it is looked at, not changed.
        arriving: Channels that have entered and are about to become calls.

    Attributes:
        replaced: Another process has the application: its calls are none of ours to clean up.
    """

    def __init__(
        self, services: Services, sessions: Mapping[str, CallSession], arriving: Set[str]
    ) -> None:
        self.replaced = False
        self._services = services
        self._sessions = sessions
        self._arriving = arriving
        self._reconciling = asyncio.Lock()

    async def sweep_forever(self) -> None:
        """Look for what is left behind now and then, until cancelled."""
        while True:
            await asyncio.sleep(_BLIND_SWEEP_SECONDS if self.replaced else _SWEEP_SECONDS)
            try:
                await self.reconcile()
            except Exception:
                log.exception("sweep_failed")

    async def reconcile(self) -> None:
        """Compare Asterisk with the calls that we know and mend what differs.

        Never raises for Asterisk's sake: what fails now is found again by the next sweep.
        """
        ari, app = self._services.ari, self._services.app
        async with self._reconciling:
            try:
                first = await self._look()
                self._end_lost_calls(first)
                if self.replaced or not first.strays:
                    return
                await asyncio.sleep(_CONFIRM_SECONDS)
                second = await self._look()
            except AriError as error:
                log.warning("reconcile_failed", code=error.code, error=str(error))
                return
            for media in first.stray_media & second.stray_media:
                await self.remove_channel(media)
            for bridge in first.stray_bridges & second.stray_bridges:
                log.warning("stray_bridge_removed", bridge=bridge)
                await quietly(partial(ari.bridges.destroy, bridge))
            called_by_us = (placed_channel_id(app, ""), target_channel_id(app, ""))
            for caller in first.stray_callers & second.stray_callers:
                if caller.startswith(called_by_us):
                    await self.remove_channel(caller)
                else:
                    log.warning("stray_caller_released", call=caller)
                    await give_back_caller(ari, caller, Outcome(Status.FAILED, "session_lost"))

    async def remove_channel(self, channel_id: str) -> None:
        """Hang up a channel of ours whose call is over."""
        log.warning("stray_channel_removed", channel=channel_id)
        await quietly(partial(self._services.ari.channels.hangup, channel_id))

    def _end_lost_calls(self, differences: Differences) -> None:
        lost: tuple[tuple[frozenset[str], Event], ...] = (
            (differences.callers_gone, CallerLeft("caller_hung_up")),
            (differences.media_gone, MediaLost("media_channel_gone")),
            (differences.targets_gone, TargetLost("hung_up")),
        )
        for session_ids, event in lost:
            for session_id in session_ids:
                # One that waited may have got another name meanwhile.
                if (session := self._sessions.get(session_id)) is not None:
                    session.post(event)

    async def _look(self) -> Differences:
        ari, app = self._services.ari, self._services.app
        # Taken before Asterisk is asked: a call that begins meanwhile can only look stray, and
        # strays are confirmed by a second look.
        calls = [s.held for s in self._sessions.values() if not s.ended.is_set()]
        channels = await ari.channels.list()
        bridges = await ari.bridges.list()
        application = await ari.applications.get(app)
        snapshot = Snapshot(
            channels=frozenset(channel.id for channel in channels),
            bridges={bridge.id: frozenset(bridge.channels) for bridge in bridges},
            in_application=frozenset(application.channel_ids) - self._arriving,
        )
        return compare(
            snapshot,
            calls,
            media_prefix=media_channel_id(app, ""),
            bridge_prefix=bridge_id(app, ""),
            target_prefix=target_channel_id(app, ""),
        )
