"""All calls: takes them in, hands events to them, and keeps the limit."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol

import structlog

from ari_app.ari import (
    Channel,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelEnteredBridge,
    ChannelHangupRequest,
    ChannelHold,
    ChannelStateChange,
    ChannelUnhold,
    Dial,
    StasisEnd,
    StasisStart,
)
from ari_app.ari import Event as AriEvent
from ari_app.call.admission import Admission
from ari_app.call.arguments import CallArguments, parse_arguments
from ari_app.call.legs import Party
from ari_app.call.plan import CallPlan, Services
from ari_app.call.release import (
    give_back_caller,
    media_channel_id,
    placed_channel_id,
    target_channel_id,
)
from ari_app.call.session import CallSession
from ari_app.call.signals import (
    CalleeAnswered,
    CalleeRings,
    CalleeScreened,
    CallerAnswered,
    CallerEntered,
    CallerJoined,
    CallerLeft,
    CallerWaits,
    CallWanted,
    EndRequested,
    MediaEntered,
    MediaJoined,
    MediaLost,
    Outcome,
    Refused,
    Status,
    TargetAnswered,
    TargetJoined,
)
from ari_app.call.states import State
from ari_app.call.sweeper import Sweeper
from ari_app.errors import AppError
from ari_app.logs import Number

log = structlog.get_logger(__name__)

# An ended session stays visible for so long.
_KEEP_ENDED_SECONDS = 60.0
_MAX_ENDED = 1000
# Giving a call back takes 16 s where Asterisk does not answer: see `ari_app.ari.link.Persistent`.
_RELEASE_SECONDS = 16.0
# After that its requests are given up, and each has a deadline of its own.
_GIVE_UP_SECONDS = 6.0
# Whoever asks for a call's end waits no longer, though Asterisk may be away.
_END_SECONDS = 10.0

_AMD = frozenset({"amd_status", "amd_cause"})
_RINGING_STATUSES = frozenset({"RINGING", "PROGRESS"})


class CallPlanner(Protocol):
    """Decides about calls that come in."""

    async def for_caller(
        self, session_id: str, channel: Channel, arguments: CallArguments
    ) -> CallPlan:
        """Plan for a call; raises an AppError when that fails."""
        ...

    def for_waiting(self, session_id: str, arguments: CallArguments) -> CallPlan:
        """Plan for a call that waits until somebody names an agent."""
        ...


class SessionManager:
    """Manages multiple concurrent call sessions.

    Args:
        services: What every call uses.
        planner: Decides about a call.
        max_concurrent_calls: One more is ``REJECTED``.
        calls_per_second: How many we may place; 0: any number.
        queue_size: How many requests may wait for room.

    Attributes:
        admission: The places of the calls.
        draining: New calls are ``REJECTED``.
    """

    def __init__(
        self,
        services: Services,
        planner: CallPlanner,
        *,
        max_concurrent_calls: int,
        calls_per_second: float = 0.0,
        queue_size: int = 100,
    ) -> None:
        self.sessions: dict[str, CallSession] = {}
        self.max_concurrent_calls = max_concurrent_calls
        self.admission = Admission(
            max_concurrent_calls,
            self.get_active_sessions_count,
            per_second=calls_per_second,
            max_waiting=queue_size,
        )
        self.draining = False
        self._services = services
        self._planner = planner
        self._arriving: set[str] = set()
        self._by_channel: dict[str, CallSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking_in: set[asyncio.Task[None]] = set()
        self._sweeper = Sweeper(services, self.sessions, self._arriving)

    @property
    def replaced(self) -> bool:
        """Another process has the application: its calls are none of ours to clean up."""
        return self._sweeper.replaced

    @replaced.setter
    def replaced(self, replaced: bool) -> None:
        self._sweeper.replaced = replaced

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
        if arguments.wait_seconds:
            return self._let_wait(channel, arguments)
        session_id = uuid.uuid4().hex
        self._arriving.add(channel.id)
        failure: str | None = None
        try:
            plan = await self._planner.for_caller(session_id, channel, arguments)
        except AppError as error:
            plan, failure = self._planner.for_waiting(session_id, arguments), error.code
        finally:
            arrived = channel.id in self._arriving
            self._arriving.discard(channel.id)
        if not arrived:
            return None
        log.info(
            "call_entered",
            call=channel.id,
            session=session_id,
            caller=Number(channel.caller.number),
            called=Number(channel.dialplan.exten),
        )
        refusal = self._refusal(plan) if failure is None else Outcome(Status.FAILED, failure)
        session = self._add(plan, _party(channel), session_id)
        if refusal is None:
            status = arguments.variables.get("amd_status", "")
            session.metadata.update(
                {name: text for name, text in arguments.variables.items() if name in _AMD}
            )
            on_machine = self._services.policy.on_amd_status(status)
            session.post(CallerEntered(channel.state == "Up", on_machine))
        else:
            log.warning("call_refused", call=channel.id, reason=refusal.reason)
            session.post(Refused(refusal))
        return session

    def _let_wait(self, channel: Channel, arguments: CallArguments) -> CallSession:
        session_id = uuid.uuid4().hex
        plan = self._planner.for_waiting(session_id, arguments)
        session = self._add(plan, _party(channel), session_id)
        if self.draining:
            session.post(Refused(Outcome(Status.REJECTED, "draining")))
        else:
            session.post(CallerWaits(answered=channel.state == "Up"))
        return session

    def place_call(
        self,
        plan: CallPlan,
        party: Party,
        session_id: str,
        *,
        reference: str | None,
        metadata: Mapping[str, Any],
    ) -> CallSession:
        """Call somebody. The place for it must have been taken."""
        session = self._add(plan, party, session_id)
        session.reference = reference
        session.metadata.update(metadata)
        assert party.placement is not None, "a call that is placed says how"
        session.post(CallWanted(party.placement.screened))
        return session

    def assign(self, session: CallSession, plan: CallPlan, session_id: str) -> None:
        """Give a waiting call its agent, under the name ``session_id``."""
        for name in (session.session_id, session.media_id):
            self.sessions.pop(name, None)
            self._by_channel.pop(name, None)
        session.assign(plan, session_id)
        self.sessions[session_id] = session
        self._by_channel[session.media_id] = session

    def waiting_call(self, channel_id: str) -> CallSession | None:
        """The call that waits for an agent on a channel."""
        session = self._by_channel.get(channel_id)
        return session if session is not None and session.state is State.WAITING else None

    def placed_channel(self, session_id: str) -> str:
        """The id of the channel to somebody whom a session calls."""
        return placed_channel_id(self._services.app, session_id)

    def _add(self, plan: CallPlan, party: Party, session_id: str) -> CallSession:
        session = CallSession(self._services, plan, party, session_id=session_id)
        self.sessions[session_id] = session
        self._by_channel[session.call_id] = session
        self._by_channel[session.media_id] = session
        self._spawn(self._retire(session))
        return session

    def get_session(self, session_id: str) -> CallSession | None:
        """Get a session by its id; an ended one is there for another 60 seconds."""
        return self.sessions.get(session_id)

    async def end_session(self, session_id: str, reason: str = "end_requested") -> None:
        """End a call and wait until everything has been given back, for ten seconds at most.

        While Asterisk cannot be reached the call stays ``releasing``, and is given back later.

        Raises:
            KeyError: There is no such session.
        """
        session = self.sessions[session_id]
        session.post(EndRequested(Outcome(Status.COMPLETED, reason)))
        await _all_ended([session], _END_SECONDS)

    def get_active_sessions_count(self) -> int:
        """How many calls hold an agent, or are about to."""
        return sum(1 for session in self.sessions.values() if session.counts)

    async def drain(self, timeout: float) -> None:
        """Refuse new calls, let the running ones finish, and after ``timeout`` seconds end them.

        Returns within another 22 s, also where Asterisk cannot be reached.
        """
        self.draining = True
        for session in self._not_ended():
            if session.state is State.WAITING:
                session.post(EndRequested(Outcome(Status.REJECTED, "draining")))
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
        if left := self._not_ended():
            log.error("calls_not_given_back", calls=len(left))
            self._services.ari.link.abandon()
            await _all_ended(left, _GIVE_UP_SECONDS)

    def end_all(self, reason: str) -> None:
        """End every call now; the callers go on in the dialplan as ``FAILED``."""
        for session in self._not_ended():
            session.post(EndRequested(Outcome(Status.FAILED, reason)))

    async def sweep_forever(self) -> None:
        """Look for what is left behind now and then, until cancelled."""
        await self._sweeper.sweep_forever()

    async def reconcile(self) -> None:
        """Compare Asterisk with the calls that we know and mend what differs."""
        await self._sweeper.reconcile()

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
        if self.admission.full:
            return Outcome(Status.REJECTED, "at_capacity")
        if not plan.agent_id:
            return Outcome(Status.FAILED, "no_agent_id")
        return None

    async def _retire(self, session: CallSession) -> None:
        await session.ended.wait()
        self.admission.changed()
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
                session = self._session_of(channel.id)
                if session is not None and event.bridge.id == session.bridge_id:
                    match channel.id:
                        case session.media_id:
                            session.post(MediaJoined())
                        case session.call_id:
                            session.post(CallerJoined())
                        case _:
                            session.post(TargetJoined())
            case ChannelHangupRequest(channel=channel):
                session = self._by_channel.get(channel.id)
                if session is not None and channel.id == session.call_id:
                    session.caller_hung_up = True
                    session.caller_ended(event.cause, event.tech_cause)
            case Dial(peer=channel):
                if event.dialstatus in _RINGING_STATUSES:
                    self._rings(channel.id)
            case StasisEnd(channel=channel):
                self._left(channel.id)
            case ChannelDestroyed(channel=channel):
                self._destroyed(event)
            case (
                ChannelStateChange(channel=channel)
                | ChannelDtmfReceived(channel=channel)
                | ChannelHold(channel=channel)
                | ChannelUnhold(channel=channel)
            ):
                if channel.state == "Ringing":
                    self._rings(channel.id)
                session = self._by_channel.get(channel.id)
                if session is not None and channel.id == session.call_id:
                    _tell(session, event)
            case _:
                pass

    def _session_of(self, channel_id: str) -> CallSession | None:
        session = self._by_channel.get(channel_id)
        prefix = target_channel_id(self._services.app, "")
        if session is None and channel_id.startswith(prefix):
            session = self.sessions.get(channel_id.removeprefix(prefix).rpartition(".")[0])
            # One that has been given up may still report.
            return session if session is not None and session.target_id == channel_id else None
        return session

    def _entered(self, event: StasisStart) -> None:
        channel = event.channel
        session = self._session_of(channel.id)
        app = self._services.app
        ours = (media_channel_id(app, ""), placed_channel_id(app, ""), target_channel_id(app, ""))
        if session is not None and not session.ended.is_set():
            if self._came_back(session, channel.id):
                self._spawn_take_in(event)
            else:
                self._entered_again(session, event)
        elif channel.id.startswith(ours):
            # Its call ended while Asterisk was making it.
            self._spawn(self._sweeper.remove_channel(channel.id))
        else:
            self._spawn_take_in(event)

    def _came_back(self, session: CallSession, channel_id: str) -> bool:
        """Whether a dialplan brings a caller back before all of the last call has been given back.

        It may pass them from one agent to the next.
        """
        return channel_id == session.call_id and session.state is State.RELEASING

    def _spawn_take_in(self, event: StasisStart) -> None:
        task = self._spawn(self._take_in(event))
        self._taking_in.add(task)
        task.add_done_callback(self._taking_in.discard)

    def _entered_again(self, session: CallSession, event: StasisStart) -> None:
        channel_id = event.channel.id
        if channel_id == session.media_id:
            session.post(MediaEntered())
        elif channel_id == session.target_id:
            session.target_answered()
            session.post(TargetAnswered())
        elif session.state is State.SCREENING:
            found = parse_arguments(event.args).variables
            status = found.get("amd_status", "")
            session.callee_screened(status, found.get("amd_cause", ""))
            session.post(CalleeScreened(self._services.policy.on_amd_status(status)))
        elif session.placed_by_us:
            session.callee_answered()
            session.post(CalleeAnswered())

    async def _take_in(self, event: StasisStart) -> None:
        channel = event.channel
        try:
            await self.create_session(channel, parse_arguments(event.args))
        except Exception:
            log.exception("call_not_taken_in", call=channel.id)
            failed = Outcome(Status.FAILED, "internal_error")
            await give_back_caller(self._services.ari, channel.id, failed)

    def _rings(self, channel_id: str) -> None:
        session = self._session_of(channel_id)
        if session is None:
            return
        if channel_id == session.target_id:
            session.target_rings()
        elif session.placed_by_us:
            session.post(CalleeRings())

    def _left(self, channel_id: str) -> None:
        self._arriving.discard(channel_id)
        session = self._session_of(channel_id)
        if session is None:
            self._sweeper.channel_gone(channel_id)
            return
        if session.state is State.SCREENING:
            return  # the dialplan has it for a while
        if channel_id == session.call_id:
            # Without a hang-up somebody else has taken the caller: a transfer from outside, a
            # redirect.
            session.post(CallerLeft("caller_hung_up" if session.caller_hung_up else "caller_left"))
        elif channel_id == session.media_id:
            session.post(MediaLost("media_channel_gone"))
        else:
            session.post(session.target_ended(None, None))

    def _destroyed(self, event: ChannelDestroyed) -> None:
        channel_id = event.channel.id
        self._arriving.discard(channel_id)
        session = self._session_of(channel_id)
        if session is None:
            return
        if channel_id == session.target_id:
            session.post(session.target_ended(event.cause, event.tech_cause))
        elif channel_id == session.media_id:
            session.post(MediaLost("media_channel_gone"))
        else:
            session.caller_ended(event.cause, event.tech_cause)
            if session.state in (State.DIALLING, State.RINGING):
                session.post(session.callee_lost())
            else:
                session.post(CallerLeft("caller_hung_up"))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _party(channel: Channel) -> Party:
    return Party(channel.id, channel.caller.number, channel.dialplan.exten)


def _tell(session: CallSession, event: AriEvent) -> None:
    match event:
        case ChannelStateChange(channel=channel) if channel.state == "Up":
            session.post(CallerAnswered())
        case ChannelDtmfReceived():
            session.key_pressed(event.digit)
        case ChannelHold():
            session.held_by_phone(True)
        case ChannelUnhold():
            session.held_by_phone(False)
        case _:
            pass


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
