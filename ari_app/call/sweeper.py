"""Finds what is left behind in Asterisk, and the calls that have ended unseen, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from contextlib import suppress

import structlog

from ari_app.ari import AriError
from ari_app.call.mending import LOST, Mender
from ari_app.call.plan import Services
from ari_app.call.reconcile import Differences
from ari_app.call.session import CallSession
from ari_app.call.signals import CallerLeft, Event, MediaLost, TargetLost

log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 15.0
# Without events this is the only way to see that a caller has hung up.
_BLIND_SWEEP_SECONDS = 2.0
# Between two sweeps, however many reasons there are.
_PAUSE_SECONDS = 0.5
# What looks left behind may be on its way: only what is so at two looks in a row is given back.
_CONFIRM_SECONDS = 1.0


class Sweeper:
    """Compares Asterisk with the calls that we know.

    Args:
        services: What every call uses.
        sessions: All calls; it is looked at, not changed.
        arriving: Channels that have entered and are about to become calls.
    """

    def __init__(
        self, services: Services, sessions: Mapping[str, CallSession], arriving: Set[str]
    ) -> None:
        self._mender = Mender(services.ari, services.app, services.policy.amd_context)
        self._sessions = sessions
        self._arriving = arriving
        self._replaced = False
        self._elsewhere: frozenset[str] = frozenset()
        self._handed_over: frozenset[str] = frozenset()
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

    def channel_gone(self, channel_id: str) -> None:
        """A channel that is no call's of ours has left; look soon if another process served it."""
        if channel_id in self._elsewhere:
            self._wanted.set()

    async def sweep_forever(self) -> None:
        """Look for what is left behind now and then, until cancelled."""
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            period = _BLIND_SWEEP_SECONDS if self._replaced else _SWEEP_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(period - _PAUSE_SECONDS):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
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
                self._end_lost_calls(first)
                if self._replaced or not first.strays:
                    return
                await asyncio.sleep(_CONFIRM_SECONDS)
                second = await self._look()
            except AriError as error:
                log.warning("reconcile_failed", code=error.code, error=str(error))
                return
            await self._mender.give_back(second.confirmed_by(first), LOST, self._handed_over)

    async def remove_channel(self, channel_id: str) -> None:
        """Hang up a channel of ours whose call is over."""
        await self._mender.remove_channel(channel_id)

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
        # Taken before Asterisk is asked: a call that begins meanwhile can only look stray, and
        # strays are confirmed by a second look.
        calls = [s.held for s in self._sessions.values() if not s.ended.is_set()]
        found = await self._mender.look(calls, self._arriving)
        self._elsewhere = found.elsewhere
        # One who is no longer there needs no memory.
        self._handed_over = found.handed_over | (
            self._handed_over & frozenset(found.sessions.values())
        )
        return found
