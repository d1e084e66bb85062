"""What may be asked of calls from outside: begin one, end one, act on one.

The HTTP interface is one way in; nothing here knows of HTTP.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import structlog

from ari_app.call.admission import NoRoom
from ari_app.call.call import CallSession
from ari_app.call.calls import SessionManager
from ari_app.call.plan import CallPlan, Services
from ari_app.call.signals import AgentEnding, ConsultRequested, HoldRequested
from ari_app.call.states import State
from ari_app.call.tools import BUILT_IN
from ari_app.errors import AppError
from ari_app.line.asterisk.ari.errors import AriError
from ari_app.line.asterisk.line import Party, Placement
from ari_app.line.interface import Outcome, Status
from ari_app.line.numbers import check_caller

Variable = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Initiate:
    """A wish for an agent.

    Attributes:
        agent_id: The agent; None leaves it to the settings.
        session_id: A name for the session; None lets us choose.
        call_id: Without a called number: the channel that waits in our application. With one: the
            dialer's own reference.
        caller_number: Whom the callee sees; for a waiting channel, what the agent is told in place
            of the channel's own caller.
        called_number: Whom to call; None takes the waiting channel.
        variables: Dynamic variables for the agent.
        overrides: ``conversation_config_override`` for the agent; None for none.
        ring_timeout_seconds: How long it may ring.
        amd: Let answering machine detection run before the agent joins.
        wait_seconds: How long to wait for room; 0 refuses at once.
        metadata: Kept with the session and shown, never read.
    """

    agent_id: str | None = None
    session_id: str | None = None
    call_id: str | None = None
    caller_number: str | None = None
    called_number: str | None = None
    variables: Mapping[str, Variable] = field(default_factory=dict)
    overrides: Mapping[str, Any] | None = None
    ring_timeout_seconds: float = 30.0
    amd: bool = False
    wait_seconds: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)


class ControlRefused(AppError):
    """A wish for an agent was not granted.

    Attributes:
        code: ``capacity``, ``draining``, ``rate_limited``, ``queue_timeout``, ``invalid_number``,
            ``invalid_session_id``, ``no_agent_id``, ``no_such_channel``,
            ``session_exists``, ``not_connected``, or a code of
            :class:`~ari_app.agent.precall.PreCallError`.
        retry_after: Seconds after which it may be granted; None: asking again is of no use.
    """

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, code=code, retryable=retry_after is not None)
        self.retry_after = retry_after


class SessionNotFound(AppError):
    """There is no such session, or it ended more than 60 seconds ago."""

    default_code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__("There is no such session; an ended one is kept for 60 seconds.")
        self.session_id = session_id


class NotPossible(AppError):
    """The call is not in a state for this, or Asterisk refused it.

    Attributes:
        code: ``not_talking``, ``bad_target``, ``bad_digits`` or ``asterisk``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code=code)


class CallControl(Protocol):
    """Begins calls and acts on them.

    The methods that act on a call raise :class:`SessionNotFound` and :class:`NotPossible`.
    """

    async def initiate(self, request: Initiate) -> CallSession:
        """Begin a call, or give the agent to a waiting one; returns before it is answered.

        Raises:
            ControlRefused: It was not granted.
        """
        ...

    async def end(self, session_id: str, reason: str | None = None) -> CallSession:
        """End a call and wait until everything is given back; an ended one is returned as it is.

        Raises:
            SessionNotFound: There is no such session.
        """
        ...

    async def transfer(
        self, session_id: str, to: str, mode: Literal["blind", "attended"] = "blind"
    ) -> None:
        """Pass the caller on, after what the agent is saying."""
        ...

    async def send_dtmf(self, session_id: str, digits: str) -> None:
        """Send keys (0 to 9, A to D, * and #) to the caller's side."""
        ...

    async def hold(self, session_id: str) -> None:
        """Give the caller music instead of the agent."""
        ...

    async def unhold(self, session_id: str) -> None:
        """Give the caller the agent again."""
        ...

    async def say_to_agent(
        self, session_id: str, kind: Literal["context", "user"], text: str
    ) -> None:
        """Send the agent a contextual update, or a message as if the caller had said it."""
        ...

    async def mute(self, session_id: str, muted: bool) -> None:
        """Let the agent hear silence instead of the caller, or the caller again."""
        ...


log = structlog.get_logger(__name__)

_SESSION_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REASON: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NO_ROOM: Final = {
    "capacity": "All places for calls are taken.",
    "rate_limited": "More calls a second are asked for than may be placed.",
    "queue_timeout": "No place for a call became free in time.",
}


class RequestPlanner(Protocol):
    """Decides about calls that are asked for."""

    async def for_request(
        self, session_id: str, party: Party, request: Initiate, waiting: CallPlan | None
    ) -> CallPlan:
        """Plan for a call; raises an AppError when that fails."""
        ...


class Dispatcher:
    """The :class:`~ari_app.control.control.CallControl` of the service.

    Args:
        manager: The calls.
        services: What every call uses.
        planner: Decides about a call.
        connected: Whether Asterisk can be told to call.
    """

    def __init__(
        self,
        manager: SessionManager,
        services: Services,
        planner: RequestPlanner,
        connected: Callable[[], bool],
    ) -> None:
        self._manager = manager
        self._services = services
        self._planner = planner
        self._connected = connected

    # --- begin and end

    async def initiate(self, request: Initiate) -> CallSession:
        """Begin a call, or give the agent to a waiting one; returns before it is answered.

        Raises:
            ControlRefused: It was not granted.
        """
        session_id = self._session_id(request)
        waiting = None
        if request.called_number is None:
            waiting = self._waiting(request)
            party = Party(
                waiting.call_id,
                self._caller(request) or waiting.caller_number,
                waiting.called_number,
            )
        else:
            party = self._callee(request, session_id)
        self._check_open()
        try:
            await self._manager.admission.enter(
                paced=waiting is None, wait_seconds=request.wait_seconds
            )
        except NoRoom as full:
            raise ControlRefused(full.code, _NO_ROOM[full.code], full.retry_after) from None
        with self._manager.admission.reserved():
            plan = await self._plan(
                session_id, party, request, None if waiting is None else waiting.plan
            )
            # Much may have happened meanwhile.
            self._check_open()
            self._check_free(session_id, waiting)
            if waiting is None:
                return self._manager.place_call(
                    plan, party, session_id, reference=request.call_id, metadata=request.metadata
                )
            self._waiting(request)
            waiting.metadata.update(request.metadata)
            self._manager.assign(waiting, plan, session_id)
            return waiting

    async def end(self, session_id: str, reason: str | None = None) -> CallSession:
        """End a call and wait until everything is given back; an ended one is returned as it is.

        Raises:
            SessionNotFound: There is no such session.
        """
        session = self._session(session_id)
        known = reason is not None and _REASON.fullmatch(reason)
        await self._manager.end_session(session_id, reason if known and reason else "end_requested")
        return session

    async def _plan(
        self, session_id: str, party: Party, request: Initiate, waiting: CallPlan | None
    ) -> CallPlan:
        try:
            return await self._planner.for_request(session_id, party, request, waiting)
        except ControlRefused:
            raise
        except AppError as error:
            retry_after = 1.0 if error.retryable else None
            raise ControlRefused(error.code, str(error), retry_after) from None

    def _check_open(self) -> None:
        if self._manager.draining:
            raise ControlRefused("draining", "The service is shutting down: no new calls.", 30.0)
        if not self._connected():
            raise ControlRefused("not_connected", "Asterisk is not connected.", 5.0)

    def _session_id(self, request: Initiate) -> str:
        session_id = request.session_id or uuid.uuid4().hex
        if not _SESSION_ID.fullmatch(session_id):
            raise ControlRefused(
                "invalid_session_id",
                "A session_id may have letters, digits, _ and - in it, 64 at most.",
            )
        self._check_free(session_id, None)
        return session_id

    def _check_free(self, session_id: str, waiting: CallSession | None) -> None:
        held = self._manager.sessions.get(session_id)
        if held is not None and held is not waiting:
            raise ControlRefused("session_exists", "There is a session of this name already.")

    def _waiting(self, request: Initiate) -> CallSession:
        session = self._manager.waiting_call(request.call_id or "")
        if session is None:
            raise ControlRefused(
                "no_such_channel",
                "No channel of this name waits in the application: give called_number to place "
                "a call, or let the channel enter Stasis() with wait=SECONDS first.",
            )
        return session

    def _callee(self, request: Initiate, session_id: str) -> Party:
        caller = self._caller(request)
        try:
            number = self._services.policy.number(request.called_number or "")
            endpoint = self._services.policy.callee(number)
        except ValueError as error:
            raise ControlRefused("invalid_number", f"called_number: {error}") from None
        return Party(
            self._manager.placed_channel(session_id),
            caller_number=caller,
            called_number=number,
            placement=Placement(endpoint, caller, request.ring_timeout_seconds, request.amd),
        )

    def _caller(self, request: Initiate) -> str:
        if not request.caller_number:
            return ""
        try:
            return check_caller(request.caller_number)
        except ValueError as error:
            raise ControlRefused("invalid_number", f"caller_number: {error}") from None

    # --- act on a call

    async def transfer(
        self, session_id: str, to: str, mode: Literal["blind", "attended"] = "blind"
    ) -> None:
        """Pass the caller on, after what the agent is saying."""
        session = self._talking(session_id)
        self._check_reachable()
        if (problem := BUILT_IN["transfer_call"].refusal({"to": to})) is not None:
            raise NotPossible("bad_target", problem)
        policy = self._services.policy
        try:
            if mode == "blind":
                outcome = Outcome(
                    Status.TRANSFER, "transfer_requested", transfer_to=policy.blind_target(to)
                )
                session.post(AgentEnding(outcome))
                return
            endpoint = policy.target(to)
        except ValueError as error:
            raise NotPossible("bad_target", str(error)) from None
        await session.agent_silent()
        session = self._talking(session_id)
        self._check_reachable()
        session.post(ConsultRequested(endpoint))

    async def send_dtmf(self, session_id: str, digits: str) -> None:
        """Send keys to the caller's side."""
        session = self._joined(session_id)
        if (problem := BUILT_IN["send_dtmf"].refusal({"digits": digits})) is not None:
            raise NotPossible("bad_digits", problem)
        try:
            await self._services.ari.channels.send_dtmf(session.call_id, digits)
        except AriError as error:
            raise NotPossible("asterisk", f"Asterisk refused it ({error.code}).") from None

    async def hold(self, session_id: str) -> None:
        """Give the caller music instead of the agent."""
        session = self._in(session_id, State.TALKING, State.HOLDING)
        self._check_reachable()
        session.post(HoldRequested(on=True))

    async def unhold(self, session_id: str) -> None:
        """Give the caller the agent again."""
        session = self._in(session_id, State.TALKING, State.HOLDING)
        self._check_reachable()
        session.post(HoldRequested(on=False))

    async def say_to_agent(
        self, session_id: str, kind: Literal["context", "user"], text: str
    ) -> None:
        """Send the agent a contextual update, or a message as if the caller had said it."""
        agent = self._joined(session_id).agent
        if agent is None or not agent.is_open:
            raise NotPossible("not_talking", "The agent is not there.")
        if kind == "context":
            agent.send_contextual_update(text)
        else:
            agent.send_user_message(text)

    async def mute(self, session_id: str, muted: bool) -> None:
        """Let the agent hear silence instead of the caller, or the caller again."""
        self._joined(session_id).mute(muted)

    def _check_reachable(self) -> None:
        # What is begun is carried out, however long Asterisk stays away; so it is not begun.
        if not self._services.ari.link.up:
            raise NotPossible("asterisk", "Asterisk cannot be reached just now; the call goes on.")

    def _session(self, session_id: str) -> CallSession:
        session = self._manager.get_session(session_id)
        if session is None:
            raise SessionNotFound(session_id)
        return session

    def _in(self, session_id: str, *states: State) -> CallSession:
        session = self._session(session_id)
        if session.state not in states:
            raise NotPossible(
                "not_talking", f"The call is {session.state.value}; this cannot be done now."
            )
        return session

    def _talking(self, session_id: str) -> CallSession:
        return self._in(session_id, State.TALKING)

    def _joined(self, session_id: str) -> CallSession:
        return self._in(
            session_id,
            State.GREETING,
            State.TALKING,
            State.HOLDING,
            State.CONSULTING,
            State.BRIEFING,
            State.RECOVERING,
            State.CLOSING,
        )
