"""The control of calls from outside: begin one, end one, act on one.

The HTTP interface is one way in; nothing here knows of HTTP, nor of any kind of line.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final, Literal

import structlog

from ari_app.call import taking_over
from ari_app.call.admission import NoRoom
from ari_app.call.call import Call
from ari_app.call.calls import Calls, Waiting
from ari_app.call.listening import Ear
from ari_app.call.plan import CallPlan, CallPolicy
from ari_app.call.signals import AgentEnding, ConsultRequested, HoldRequested
from ari_app.call.states import OVER, TRANSFERABLE, State
from ari_app.control.planner import Planner, Wish
from ari_app.control.refusals import ControlRefused, NotPossible, SessionNotFound
from ari_app.errors import AppError, LineError
from ari_app.line.interface import Ability, Gateway, Line, Outcome, OwnAudio, Placing, Status
from ari_app.line.numbers import check_caller
from ari_app.records.record import CallRecord
from ari_app.tools.built_in import BUILT_IN

log = structlog.get_logger(__name__)

_SESSION_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REASON: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DRAINING: Final = "The service is shutting down: no new calls."
_NO_WAY: Final = "None of the ways in that DIALER_TYPE names can call a number."
_NO_DIALER: Final = "A call with audio of its own needs custom in DIALER_TYPE."
_NO_CHANNEL: Final = (
    "channel_variables and sip_headers are for a number that is called through Asterisk."
)
_NO_ROOM: Final = {
    "capacity": "All places for calls are taken.",
    "rate_limited": "More calls a second are asked for than may be placed.",
    "queue_timeout": "No place for a call became free in time.",
    "draining": _DRAINING,
}
_JOINED: Final = (
    State.GREETING,
    State.TALKING,
    State.HOLDING,
    State.CONSULTING,
    State.BRIEFING,
    State.RECOVERING,
    State.TAKEN_OVER,
    State.CLOSING,
)
_GIVEN_BACK_FROM: Final = (State.TAKEN_OVER, State.CONSULTING, State.BRIEFING)


class CallControl:
    """Begins calls and acts on them.

    The methods that act on a call raise `SessionNotFound` and `NotPossible`.

    Args:
        calls: All calls.
        gateways: The ways out; a call takes the first that serves it.
        planner: Decides about a call.
        policy: What is allowed.
        now: The event loop's clock.
        dialer_holds: A request without audio is for a call that a dialer holds, unless its line
            waits here.
        mark: Returns a token with this process' number, by which the front finds it.
        on_refused: Called with the code of each refusal.
    """

    def __init__(
        self,
        calls: Calls,
        gateways: Sequence[Gateway],
        planner: Planner,
        policy: CallPolicy,
        now: Callable[[], float],
        *,
        dialer_holds: bool = False,
        mark: Callable[[str], str] = lambda token: token,
        on_refused: Callable[[str], None] = lambda code: None,
    ) -> None:
        self._calls = calls
        self._gateways = gateways
        self._planner = planner
        self._policy = policy
        self._now = now
        self._dialer_holds = dialer_holds
        self._mark = mark
        self._on_refused = on_refused

    # --- begin and end

    def understood(self, wish: Wish) -> Wish:
        """Return a request with its audio filled in, if it is for a call that a dialer holds."""
        reference = wish.reference or ""
        audio = wish.audio
        if (
            audio is None
            and self._dialer_holds
            and reference
            and self._calls.waiting_on(reference) is None
        ):
            audio = OwnAudio()
        if audio is None:
            return wish
        return replace(wish, audio=replace(audio, token=self._mark(audio.token)))

    async def initiate(self, wish: Wish) -> CallRecord:
        """Begin a call, or give the agent to a waiting caller; returns before it is answered.

        Raises:
            ControlRefused: It was not granted.
        """
        try:
            session_id = self._session_id(wish)
            if wish.called_number is None and wish.audio is None:
                return await self._assign(wish, session_id)
            return await self._place(wish, session_id)
        except ControlRefused as refused:
            self._on_refused(refused.code)
            raise

    async def _place(self, wish: Wish, session_id: str) -> CallRecord:
        caller, number = self._caller(wish), self._number(wish)
        placing = Placing(
            caller,
            wish.ring_timeout_seconds,
            wish.amd,
            wish.audio,
            wish.reference or "",
            wish.channel_variables,
            wish.sip_headers,
        )
        gateway = next((each for each in self._gateways if each.serves(placing)), None)
        if gateway is None:
            why = _NO_WAY if wish.audio is None else _NO_DIALER
            raise ControlRefused("no_such_way", _NO_CHANNEL if placing.needs_channel else why)
        self._check_open(gateway)
        await self._enter(wish, paced=wish.audio is None)
        with self._calls.admission.reserved():
            line = self._line(gateway, session_id, number, placing)
            record = CallRecord(
                session_id,
                line.id,
                self._now(),
                way=line.way,
                placed=True,
                caller_number=caller,
                called_number=number,
                reference=wish.reference,
                trace=self._calls.begin_trace(wish.traceparent, wish.tracestate),
                metadata=dict(wish.metadata),
            )
            line.name(session_id)
            plan = await self._plan(record, line, wish, None)
            # Any of this may have changed while the call was planned.
            self._check_open(gateway)
            self._check_free(session_id, None)
            self._check_quota(plan.briefing.agent_id)
            return self._calls.place(plan, line, record, screened=wish.amd)

    def _line(self, gateway: Gateway, session_id: str, number: str, placing: Placing) -> Line:
        try:
            return gateway.place(session_id, number, placing)
        except LineError as error:
            raise ControlRefused(error.code, str(error)) from None

    async def _assign(self, wish: Wish, session_id: str) -> CallRecord:
        if wish.channel_variables or wish.sip_headers:
            raise ControlRefused("no_such_way", _NO_CHANNEL)
        caller = self._caller(wish)
        waiting = self._waiting(wish)
        self._check_open(*self._gateways)
        await self._enter(wish, paced=False)
        with self._calls.admission.reserved():
            record = waiting.record
            if wish.traceparent and not waiting.arrival.traceparent:
                # Nobody has been told of it yet.
                record.trace = self._calls.begin_trace(wish.traceparent, wish.tracestate)
            # For the plan only: the caller still waits, and may hang up.
            asked = replace(
                record, session_id=session_id, caller_number=caller or record.caller_number
            )
            plan = await self._plan(asked, waiting.arrival.line, wish, waiting)
            self._check_open(*self._gateways)
            self._check_free(session_id, waiting)
            self._waiting(wish)
            self._check_quota(plan.briefing.agent_id)
            record.metadata.update(wish.metadata)
            return self._calls.assign(waiting, plan, session_id)

    async def _enter(self, wish: Wish, *, paced: bool) -> None:
        # The agent may not be known yet; but where no agent is allowed nobody should wait.
        self._check_quota("")
        try:
            await self._calls.admission.enter(paced=paced, wait_seconds=wish.wait_seconds)
        except NoRoom as full:
            raise ControlRefused(full.code, _NO_ROOM[full.code], full.retry_after) from None

    async def _plan(
        self, record: CallRecord, line: Line, wish: Wish, waiting: Waiting | None
    ) -> CallPlan:
        try:
            plan = await self._planner.for_wish(
                record, line, wish, None if waiting is None else waiting.arrival
            )
        except AppError as error:
            retry_after = 1.0 if error.retryable else None
            raise ControlRefused(error.code, str(error), retry_after) from None
        if not plan.briefing.agent_id:
            raise ControlRefused(
                "no_agent_id", "No agent is named, and ELEVENLABS_AGENT_ID is not set."
            )
        return plan

    async def end(self, session_id: str, reason: str | None = None) -> CallRecord:
        """End a call and wait until everything is given back; an ended one is returned as it is.

        Raises:
            SessionNotFound: There is no such session.
        """
        record = self.record(session_id)
        known = reason is not None and _REASON.fullmatch(reason)
        await self._calls.end(session_id, reason if known and reason else "end_requested")
        return record

    def record(self, session_id: str) -> CallRecord:
        """Return a call's record, up to date.

        Raises:
            SessionNotFound: There is no such session.
        """
        record = self._calls.record(session_id)
        if record is None:
            raise SessionNotFound(session_id)
        return record

    def _check_open(self, *gateways: Gateway) -> None:
        """Make sure that calls are taken, and that one of the ways for it can be used now."""
        if self._calls.draining:
            raise ControlRefused("draining", _DRAINING, 30.0)
        if not any(gateway.connected for gateway in gateways):
            raise ControlRefused("not_connected", "The telephone system is not connected.", 5.0)

    def _check_quota(self, agent_id: str) -> None:
        if (quota := self._calls.quota(agent_id)) is not None:
            raise ControlRefused("quota", quota.text, quota.seconds)

    def _session_id(self, wish: Wish) -> str:
        session_id = wish.session_id or uuid.uuid4().hex
        if not _SESSION_ID.fullmatch(session_id):
            raise ControlRefused(
                "invalid_session_id",
                "A session_id may have letters, digits, _ and - in it, 64 at most.",
            )
        self._check_free(session_id, None)
        return session_id

    def _check_free(self, session_id: str, waiting: Waiting | None) -> None:
        held = self._calls.records.get(session_id)
        if held is not None and (waiting is None or held is not waiting.record):
            raise ControlRefused("session_exists", "There is a session of this name already.")

    def _waiting(self, wish: Wish) -> Waiting:
        waiting = self._calls.waiting_on(wish.reference or "")
        if waiting is None:
            raise ControlRefused(
                "no_such_channel",
                "No channel of this name waits in the application: give called_number to place "
                "a call, or let the channel enter Stasis() with wait=SECONDS first.",
            )
        return waiting

    def _number(self, wish: Wish) -> str:
        number = wish.called_number or ""
        try:
            if wish.audio is None:
                return self._policy.number(number)
            # Nobody is called: it is what the agent is told.
            return check_caller(number) if number else ""
        except ValueError as error:
            raise ControlRefused("invalid_number", f"called_number: {error}") from None

    def _caller(self, wish: Wish) -> str:
        if not wish.caller_number:
            return ""
        try:
            return check_caller(wish.caller_number)
        except ValueError as error:
            raise ControlRefused("invalid_number", f"caller_number: {error}") from None

    # --- act on a call

    async def transfer(
        self, session_id: str, to: str, mode: Literal["blind", "attended"] = "blind"
    ) -> None:
        """Pass the caller on, after what the agent is saying."""
        call = self._transferable(
            session_id, Ability.CONSULT if mode == "attended" else Ability.TRANSFER
        )
        self._check_reachable(call)
        if (problem := BUILT_IN["transfer_call"].refusal({"to": to})) is not None:
            raise NotPossible("bad_target", problem)
        try:
            if mode == "blind":
                outcome = Outcome(
                    Status.TRANSFER, "transfer_requested", transfer_to=self._policy.blind_target(to)
                )
                call.context.post(AgentEnding(outcome))
                return
            target = self._policy.target(to)
        except ValueError as error:
            raise NotPossible("bad_target", str(error)) from None
        await call.side.speech.silent()
        call = self._transferable(session_id)
        self._check_reachable(call)
        call.context.post(ConsultRequested(target))

    async def send_dtmf(self, session_id: str, digits: str) -> None:
        """Send keys to the caller's side."""
        call = self._in(session_id, *_JOINED, ability=Ability.SEND_KEYS)
        if (problem := BUILT_IN["send_dtmf"].refusal({"digits": digits})) is not None:
            raise NotPossible("bad_digits", problem)
        try:
            await call.line.send_keys(digits)
        except LineError as error:
            raise _line_refuses(call, f"refused it ({error.code}).") from None

    async def hold(self, session_id: str, *, on: bool) -> None:
        """Give the caller music instead of the agent, or the agent again."""
        call = self._in(session_id, State.TALKING, State.HOLDING, ability=Ability.MUSIC)
        self._check_reachable(call)
        # A caller whom the agent holds stays on hold from now on, whatever the agent says.
        call.side.holds_no_more()
        call.context.post(HoldRequested(on=on))

    async def say_to_agent(
        self, session_id: str, kind: Literal["context", "user"], text: str
    ) -> None:
        """Tell the agent something to know, or something as if the caller had said it."""
        call = self._in(session_id, *_JOINED)
        side = call.side
        if kind == "user" and call.state is State.TAKEN_OVER:
            raise NotPossible(
                "not_talking",
                "A supervisor speaks with the caller: the agent can be told something to know "
                "(context), but is not heard.",
            )
        if not side.is_there:
            raise NotPossible("not_talking", "The agent is not there.")
        if kind == "context":
            side.tell(text)
        else:
            side.ask(text)

    def listen(self, session_id: str, who: str) -> AbstractContextManager[Ear]:
        """Let a supervisor hear both sides of a call until the context is left; the record says so.

        Args:
            session_id: The call.
            who: The name of their key.
        """
        return self._in(session_id, *_JOINED).supervision.listened(who)

    async def take_over(self, session_id: str, endpoint: str, who: str) -> None:
        """Call a supervisor's telephone; once it is answered, they speak with the caller instead of
        the agent. Until then the call goes on as it is.

        Args:
            session_id: The call.
            endpoint: The telephone.
            who: The name of their key.
        """
        call = self._in(session_id, *State, ability=Ability.BRING_IN)
        self._check_take_over(call)
        try:
            number = self._policy.supervisor(endpoint)
        except ValueError as error:
            raise NotPossible("bad_target", str(error)) from None
        self._check_reachable(call)
        call.take_over(number, who)

    def _check_take_over(self, call: Call) -> None:
        why = taking_over.refusal(call.state, rings=call.context.calls_in)
        if why is None and call.context.ends:
            why = taking_over.REFUSALS[State.CLOSING]
        if why is not None:
            raise NotPossible(*why)

    async def give_back(self, session_id: str) -> None:
        """Let the agent speak with the caller again, instead of a supervisor or the target of a
        transfer; the phone of either rings no more."""
        call = self._in(session_id, *State)
        if call.state not in _GIVEN_BACK_FROM and not call.context.calls_in:
            raise NotPossible(
                "not_talking", "Nobody has taken this call over, and no transfer is under way."
            )
        self._check_reachable(call)
        call.give_back()

    async def mute(self, session_id: str, muted: bool) -> None:
        """Let the agent hear silence instead of the caller, or the caller again."""
        self._in(session_id, *_JOINED).mute(muted)

    async def record_call(self, session_id: str, on: bool) -> None:
        """Record a call from now on, pause, or go on."""
        call = self._in(session_id, *(state for state in State if state not in OVER))
        if (why := call.set_recording(on)) is not None:
            raise NotPossible("not_recorded", f"{why[0].upper()}{why[1:]}.")

    def _check_reachable(self, call: Call) -> None:
        # Once begun it would be carried out later, however long the far end stays away.
        if not call.reachable:
            raise _line_refuses(call, "cannot be reached just now; the call goes on.")

    def _in(self, session_id: str, *states: State, ability: Ability = Ability.NOTHING) -> Call:
        record = self.record(session_id)
        call = self._calls.call(session_id)
        if call is None or call.state not in states:
            raise NotPossible(*_not_now(record.state))
        if ability not in call.line.abilities:
            raise NotPossible("not_talking", "This line cannot do that.")
        return call

    def _transferable(self, session_id: str, ability: Ability = Ability.NOTHING) -> Call:
        """Return a call whose caller can be passed on now."""
        call = self._in(session_id, *State, ability=ability)
        rings = call.context.calls_in
        if call.state not in TRANSFERABLE or rings:
            # What forbids the one third party forbids the other.
            why = taking_over.refusal(call.state, rings=rings)
            raise NotPossible(*(why or _not_now(call.state)))
        return call


def _not_now(state: str) -> tuple[str, str]:
    return "not_talking", f"The call is {state}; this cannot be done now."


def _line_refuses(call: Call, what: str) -> NotPossible:
    """Return the error for a request that the far end of a line refuses, or cannot be asked."""
    if call.line.way == "asterisk":
        return NotPossible("asterisk", f"Asterisk {what}")
    return NotPossible("line", f"The far end of the line {what}")
