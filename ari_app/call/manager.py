"""All calls: takes them in, hands events to them, keeps the limit, and gives back what is left
behind."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from ari_app.ari import (
    AriError,
    Channel,
    ChannelDestroyed,
    ChannelEnteredBridge,
    ChannelHangupRequest,
    ChannelStateChange,
    StasisEnd,
    StasisStart,
)
from ari_app.ari import Event as AriEvent
from ari_app.call.arguments import CallArguments, parse_arguments
from ari_app.call.reconcile import Differences, Snapshot, compare
from ari_app.call.release import bridge_id, give_back_caller, media_channel_id, quietly
from ari_app.call.session import CallPlan, CallSession, Services
from ari_app.call.signals import (
    CallerAnswered,
    CallerEntered,
    CallerJoined,
    CallerLeft,
    EndRequested,
    MediaEntered,
    MediaJoined,
    MediaLost,
    Outcome,
    Refused,
    Status,
)
from ari_app.logs import mask_number

log = structlog.get_logger(__name__)

# An ended session stays visible for so long.
_KEEP_ENDED_SECONDS = 60.0
_MAX_ENDED = 1000
_SWEEP_SECONDS = 15.0
# Without events this is the only way to see that a caller has hung up.
_BLIND_SWEEP_SECONDS = 2.0
# Giving a call back takes a few requests, each with a deadline of its own.
_RELEASE_SECONDS = 15.0
# What looks left behind may be on its way: only what is so at two looks in a row is given back.
_CONFIRM_SECONDS = 1.0

Planner = Callable[[str, Channel, CallArguments], Awaitable[CallPlan]]


class SessionManager:
    """Manages multiple concurrent call sessions.

    Args:
        services: What every call uses.
        plan: Decides about a call, given its session id, its channel and its arguments.
        max_concurrent_calls: One more is ``REJECTED``.

    Attributes:
        draining: New calls are ``REJECTED``.
        replaced: Another process has the application: its calls are none of ours to clean up.
    """

    def __init__(self, services: Services, plan: Planner, *, max_concurrent_calls: int) -> None:
        self.sessions: dict[str, CallSession] = {}
        self.max_concurrent_calls = max_concurrent_calls
        self.draining = False
        self.replaced = False
        self._services = services
        self._plan = plan
        self._arriving: set[str] = set()
        self._by_channel: dict[str, CallSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking_in: set[asyncio.Task[None]] = set()
        self._reconciling = asyncio.Lock()

    # --- sessions

    async def create_session(
        self, channel: Channel, arguments: CallArguments
    ) -> CallSession | None:
        """Take a call in, or refuse it: a refused one goes on in the dialplan at once.

        Returns:
            The call; None when the caller hung up before it could be taken in.
        """
        for problem in arguments.problems:
            log.warning("bad_stasis_argument", call=channel.id, problem=problem)
        session_id = uuid.uuid4().hex
        self._arriving.add(channel.id)
        try:
            plan = await self._plan(session_id, channel, arguments)
            if channel.id not in self._arriving:
                return None
        finally:
            self._arriving.discard(channel.id)
        refusal = self._refusal(plan)
        log.info(
            "call_entered",
            call=channel.id,
            session=session_id,
            caller=mask_number(channel.caller.number),
            called=mask_number(channel.dialplan.exten),
        )
        session = CallSession(self._services, plan, channel, session_id=session_id)
        self.sessions[session_id] = session
        self._by_channel[session.call_id] = session
        self._by_channel[session.media_id] = session
        self._spawn(self._retire(session))
        if refusal is None:
            session.post(CallerEntered(answered=channel.state == "Up"))
        else:
            log.warning("call_refused", call=channel.id, reason=refusal.reason)
            session.post(Refused(refusal))
        return session

    def get_session(self, session_id: str) -> CallSession | None:
        """Get a session by its id; an ended one is there for another 60 seconds."""
        return self.sessions.get(session_id)

    async def end_session(self, session_id: str, reason: str = "end_requested") -> None:
        """End a call and wait until everything has been given back.

        Raises:
            KeyError: There is no such session.
        """
        session = self.sessions[session_id]
        session.post(EndRequested(Outcome(Status.COMPLETED, reason)))
        await session.ended.wait()

    def get_active_sessions_count(self) -> int:
        """How many calls hold an agent, or are about to."""
        return sum(1 for session in self.sessions.values() if session.counts)

    async def drain(self, timeout: float) -> None:
        """Refuse new calls, let the running ones finish, and after ``timeout`` seconds end them."""
        self.draining = True
        running = self._not_ended()
        if running:
            log.info("draining", calls=len(running), limit_seconds=timeout)
            if not await _all_ended(running, timeout):
                self.end_all("shutting_down")
        with suppress(TimeoutError):
            async with asyncio.timeout(_RELEASE_SECONDS):
                # Who came meanwhile was refused, and is on the way back to the dialplan.
                if self._taking_in:
                    await asyncio.wait(self._taking_in)
                await _all_ended(self._not_ended(), None)

    def end_all(self, reason: str) -> None:
        """End every call now; the callers go on in the dialplan as ``FAILED``."""
        for session in self._not_ended():
            session.post(EndRequested(Outcome(Status.FAILED, reason)))

    async def close(self) -> None:
        """Stop what runs in the background. Calls must have ended: see :meth:`drain`."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _not_ended(self) -> list[CallSession]:
        return [session for session in self.sessions.values() if not session.ended.is_set()]

    def _refusal(self, plan: CallPlan) -> Outcome | None:
        if self.draining:
            return Outcome(Status.REJECTED, "draining")
        if self.get_active_sessions_count() >= self.max_concurrent_calls:
            return Outcome(Status.REJECTED, "at_capacity")
        if not plan.agent_id:
            return Outcome(Status.FAILED, "no_agent_id")
        return None

    async def _retire(self, session: CallSession) -> None:
        await session.ended.wait()
        for channel_id in (session.call_id, session.media_id):
            # A caller who came back is another session's.
            if self._by_channel.get(channel_id) is session:
                del self._by_channel[channel_id]
        ended = [key for key, held in self.sessions.items() if held.ended.is_set()]
        for key in ended[:-_MAX_ENDED]:
            del self.sessions[key]
        await asyncio.sleep(_KEEP_ENDED_SECONDS)
        self.sessions.pop(session.session_id, None)

    # --- Asterisk's events

    def handle(self, event: AriEvent) -> None:
        """Hand one of Asterisk's events to the call that it concerns."""
        match event:
            case StasisStart(channel=channel):
                self._entered(event)
            case ChannelEnteredBridge(channel=Channel() as channel):
                session = self._by_channel.get(channel.id)
                if session is not None and event.bridge.id == session.bridge_id:
                    is_media = channel.id == session.media_id
                    session.post(MediaJoined() if is_media else CallerJoined())
            case ChannelStateChange(channel=channel):
                session = self._by_channel.get(channel.id)
                if session is not None and channel.id == session.call_id and channel.state == "Up":
                    session.post(CallerAnswered())
            case ChannelHangupRequest(channel=channel):
                session = self._by_channel.get(channel.id)
                if session is not None and channel.id == session.call_id:
                    session.caller_hung_up = True
            case StasisEnd(channel=channel) | ChannelDestroyed(channel=channel):
                self._left(channel.id, destroyed=isinstance(event, ChannelDestroyed))
            case _:
                pass

    def _entered(self, event: StasisStart) -> None:
        channel = event.channel
        session = self._by_channel.get(channel.id)
        if session is not None and channel.id == session.media_id:
            session.post(MediaEntered())
        elif channel.id.startswith(media_channel_id(self._services.app, "")):
            # Its call ended while Asterisk was making it.
            self._spawn(self._remove_media(channel.id))
        elif session is None or session.outcome is not None:
            # A dialplan may pass a caller from one agent to the next, and bring them back before
            # all of the last call has been given back.
            task = self._spawn(self._take_in(event))
            self._taking_in.add(task)
            task.add_done_callback(self._taking_in.discard)

    async def _take_in(self, event: StasisStart) -> None:
        channel = event.channel
        try:
            await self.create_session(channel, parse_arguments(event.args))
        except Exception:
            log.exception("call_not_taken_in", call=channel.id)
            failed = Outcome(Status.FAILED, "internal_error")
            await give_back_caller(self._services.ari, channel.id, failed)

    def _left(self, channel_id: str, *, destroyed: bool) -> None:
        self._arriving.discard(channel_id)
        session = self._by_channel.get(channel_id)
        if session is None:
            return
        if channel_id == session.media_id:
            session.post(MediaLost("media_channel_gone"))
        else:
            # Without a hang-up somebody else has taken the caller: a transfer from outside, a
            # redirect.
            hung_up = destroyed or session.caller_hung_up
            session.post(CallerLeft("caller_hung_up" if hung_up else "caller_left"))

    # --- what is left behind

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
                await self._remove_media(media)
            for bridge in first.stray_bridges & second.stray_bridges:
                log.warning("stray_bridge_removed", bridge=bridge)
                await quietly(partial(self._services.ari.bridges.destroy, bridge))
            for caller in first.stray_callers & second.stray_callers:
                log.warning("stray_caller_released", call=caller)
                await give_back_caller(
                    self._services.ari, caller, Outcome(Status.FAILED, "session_lost")
                )

    def _end_lost_calls(self, differences: Differences) -> None:
        for session_id in differences.callers_gone:
            self.sessions[session_id].post(CallerLeft("caller_hung_up"))
        for session_id in differences.media_gone:
            self.sessions[session_id].post(MediaLost("media_channel_gone"))

    async def _look(self) -> Differences:
        ari = self._services.ari
        # Taken before Asterisk is asked: a call that begins meanwhile can only look stray, and
        # strays are confirmed by a second look.
        calls = [session.held for session in self._not_ended()]
        channels = await ari.channels.list()
        bridges = await ari.bridges.list()
        application = await ari.applications.get(self._services.app)
        snapshot = Snapshot(
            channels=frozenset(channel.id for channel in channels),
            bridges={bridge.id: frozenset(bridge.channels) for bridge in bridges},
            in_application=frozenset(application.channel_ids) - self._arriving,
        )
        return compare(
            snapshot,
            calls,
            media_prefix=media_channel_id(self._services.app, ""),
            bridge_prefix=bridge_id(self._services.app, ""),
        )

    async def _remove_media(self, channel_id: str) -> None:
        log.warning("stray_media_channel_removed", channel=channel_id)
        await quietly(partial(self._services.ari.channels.hangup, channel_id))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _all_ended(sessions: Collection[CallSession], timeout: float | None) -> bool:
    """Wait for calls to end, so long at most; whether they have."""
    waiting = [asyncio.ensure_future(session.ended.wait()) for session in sessions]
    if not waiting:
        return True
    try:
        _, late = await asyncio.wait(waiting, timeout=timeout)
    finally:
        for future in waiting:
            future.cancel()
    return not late
