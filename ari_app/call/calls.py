"""All calls: takes them in, hands events to them, and keeps the limit."""

from __future__ import annotations

import asyncio
import uuid
import weakref
from collections.abc import Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol

import structlog

from ari_app.call.admission import Admission
from ari_app.call.call import CallSession
from ari_app.call.plan import CallPlan, Services
from ari_app.call.signals import CallerEntered, CallerWaits, CallWanted, EndRequested, Refused
from ari_app.call.states import State
from ari_app.errors import AppError
from ari_app.line.asterisk.ari.events import AriEvent, StasisStart
from ari_app.line.asterisk.ari.models import Channel
from ari_app.line.asterisk.cleanup import GIVE_BACK_SECONDS, Sweeper
from ari_app.line.asterisk.dialplan import CallArguments, parse_arguments
from ari_app.line.asterisk.gateway import EventRouter
from ari_app.line.asterisk.line import Party, give_back_caller, placed_channel_id, target_channel_id
from ari_app.line.interface import Outcome, Status
from ari_app.process.logs import Number


class Registry:
    """Finds calls.

    Args:
        app: Our Stasis application.

    Attributes:
        sessions: By session id; ended ones are there until they are forgotten.
        arriving: Channels that have entered and are about to become calls.
    """

    def __init__(self, app: str) -> None:
        self.sessions: dict[str, CallSession] = {}
        self.arriving: set[str] = set()
        self._by_channel: dict[str, CallSession] = {}
        self._target_prefix = target_channel_id(app, "")

    def add(self, session: CallSession) -> None:
        """Know a call."""
        self.sessions[session.session_id] = session
        self._by_channel[session.call_id] = session
        self._by_channel[session.media_id] = session

    def rename(self, session: CallSession, plan: CallPlan, session_id: str) -> None:
        """Give a waiting call its agent, under another name."""
        self.sessions.pop(session.session_id, None)
        self._by_channel.pop(session.media_id, None)
        session.assign(plan, session_id)
        self.sessions[session_id] = session
        self._by_channel[session.media_id] = session

    def release_channels(self, session: CallSession) -> None:
        """Its channels are another's now: a caller who comes back is another session's."""
        for channel_id in (session.call_id, session.media_id):
            if self._by_channel.get(channel_id) is session:
                del self._by_channel[channel_id]

    def forget_ended(self, most: int) -> None:
        """Forget the oldest of those that have ended, if there are more."""
        ended = [key for key, held in self.sessions.items() if held.ended.is_set()]
        for key in ended[:-most]:
            del self.sessions[key]

    def not_ended(self) -> list[CallSession]:
        """The calls that are not over."""
        return [session for session in self.sessions.values() if not session.ended.is_set()]

    def of_caller(self, channel_id: str) -> CallSession | None:
        """The call whose caller, or callee, has this channel."""
        session = self._by_channel.get(channel_id)
        return session if session is not None and session.call_id == channel_id else None

    def of_channel(self, channel_id: str) -> CallSession | None:
        """The call to which a channel belongs: the caller's, the media channel, or a target's."""
        session = self._by_channel.get(channel_id)
        if session is None and channel_id.startswith(self._target_prefix):
            name = channel_id.removeprefix(self._target_prefix).rpartition(".")[0]
            session = self.sessions.get(name)
            # One that has been given up may still report.
            return session if session is not None and session.target_id == channel_id else None
        return session


log = structlog.get_logger(__name__)

# An ended session stays visible for so long.
_KEEP_ENDED_SECONDS = 60.0
_MAX_ENDED = 1000
# Giving a call back takes 16 s where Asterisk does not answer: see `ari_app.line.asterisk.ari.rest.Persistent`.
_RELEASE_SECONDS = 16.0
# After that its requests are given up, and each has a deadline of its own.
_GIVE_UP_SECONDS = GIVE_BACK_SECONDS - _RELEASE_SECONDS
# Whoever asks for a call's end waits no longer, though Asterisk may be away.
_END_SECONDS = 10.0

_AMD = frozenset({"amd_status", "amd_cause"})


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
        self._registry = Registry(services.app)
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking_in: set[asyncio.Task[None]] = set()
        self._sweeper = Sweeper(services, self._registry, self.handle)
        self._router = EventRouter(
            self._registry,
            services.app,
            services.policy,
            on_caller=self._take_in,
            on_late=self._remove_late,
            on_foreign=self._sweeper.channel_gone,
        )

    @property
    def sessions(self) -> dict[str, CallSession]:
        """All calls by their ids, those of the last minute among them."""
        return self._registry.sessions

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
        self._registry.arriving.add(channel.id)
        failure: str | None = None
        try:
            plan = await self._planner.for_caller(session_id, channel, arguments)
        except AppError as error:
            plan, failure = self._planner.for_waiting(session_id, arguments), error.code
        finally:
            arrived = channel.id in self._registry.arriving
            self._registry.arriving.discard(channel.id)
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
        self._registry.rename(session, plan, session_id)

    def waiting_call(self, channel_id: str) -> CallSession | None:
        """The call that waits for an agent on a channel."""
        session = self._registry.of_caller(channel_id)
        return session if session is not None and session.state is State.WAITING else None

    def placed_channel(self, session_id: str) -> str:
        """The id of the channel to somebody whom a session calls."""
        return placed_channel_id(self._services.app, session_id)

    def _add(self, plan: CallPlan, party: Party, session_id: str) -> CallSession:
        session = CallSession(self._services, plan, party, session_id=session_id)
        self._registry.add(session)
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
        for session in self._registry.not_ended():
            if session.state is State.WAITING:
                session.post(EndRequested(Outcome(Status.REJECTED, "draining")))
        running = self._registry.not_ended()
        if running:
            log.info("draining", calls=len(running), limit_seconds=timeout)
            if not await _all_ended(running, timeout):
                self.end_all("shutting_down")
        with suppress(TimeoutError):
            async with asyncio.timeout(_RELEASE_SECONDS):
                # Who came meanwhile was refused, and is on the way back to the dialplan.
                if self._taking_in:
                    await asyncio.wait(self._taking_in)
                await _all_ended(self._registry.not_ended(), None)
        if left := self._registry.not_ended():
            log.error("calls_not_given_back", calls=len(left))
            self._services.ari.link.abandon()
            await _all_ended(left, _GIVE_UP_SECONDS)

    def end_all(self, reason: str) -> None:
        """End every call now; the callers go on in the dialplan as ``FAILED``."""
        for session in self._registry.not_ended():
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
        self._registry.release_channels(session)
        self._registry.forget_ended(_MAX_ENDED)
        # Not kept by this task: where many end, the oldest go before their time.
        name, ended = session.session_id, weakref.ref(session)
        del session
        await asyncio.sleep(_KEEP_ENDED_SECONDS)
        # Another call may have taken the name of one that went.
        if self.sessions.get(name) is ended():
            self.sessions.pop(name, None)

    # --- Asterisk's events

    def handle(self, event: AriEvent) -> None:
        """Hand one of Asterisk's events to the call that it concerns."""
        self._router.handle(event)

    async def catch_up(self) -> None:
        """Find out what happened to the calls while no events came, then mend what differs."""
        await self._sweeper.catch_up()

    def _take_in(self, event: StasisStart) -> None:
        task = self._spawn(self._begin(event))
        self._taking_in.add(task)
        task.add_done_callback(self._taking_in.discard)

    async def _begin(self, event: StasisStart) -> None:
        channel = event.channel
        try:
            await self.create_session(channel, parse_arguments(event.args))
        except Exception:
            log.exception("call_not_taken_in", call=channel.id)
            failed = Outcome(Status.FAILED, "internal_error")
            await give_back_caller(self._services.ari, channel.id, failed)

    def _remove_late(self, channel_id: str) -> None:
        self._spawn(self._sweeper.remove_channel(channel_id))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _party(channel: Channel) -> Party:
    return Party(channel.id, channel.caller.number, channel.dialplan.exten)


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
