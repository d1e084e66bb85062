"""Decides about a call before it starts: which agent, what it is told, what the line carries."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ari_app.agent.interface import Agents, Briefing, Variable
from ari_app.agent.precall import PreCall, PreCallAnswer, PreCallRequest
from ari_app.call.amd import OnMachine
from ari_app.call.plan import CallPlan
from ari_app.errors import AppError
from ari_app.line.interface import AS_SET, Arrival, CallLimits, Line, LineFormat, OwnAudio
from ari_app.records.events import CallEvent, StepTook
from ari_app.records.record import CallRecord
from ari_app.records.trace import headers_of


@dataclass(frozen=True, slots=True)
class PlannerOptions:
    """The options of every plan.

    Attributes:
        agent_id: The agent of whoever names none; None: there is none.
        call_timeout_seconds: No call lasts longer.
        chunk_ms: Returns the length of the chunks of sound for an agent, by the number of running
            calls.
        recorded: Calls are recorded where neither request nor dialplan says otherwise.
    """

    agent_id: str | None
    call_timeout_seconds: float
    connect_timeout_seconds: float
    chunk_ms: Callable[[int], int]
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """A request for a call with an agent, by a dialer or a person.

    Attributes:
        agent_id: The agent; None leaves it to the settings.
        session_id: A name for the call; None lets us choose.
        reference: Without a called number: the line that waits. With one: the dialer's own name
            for the call.
        caller_number: Whom the callee sees; for a waiting caller, what the agent is told in place
            of the line's own number.
        called_number: Whom to call; None takes the waiting line.
        variables: Dynamic variables for the agent.
        overrides: `conversation_config_override` for the agent; None for none.
        user_id: Who the other side is at the agent's service; None: it is not told.
        ring_timeout_seconds: How long it may ring.
        amd: Let answering machine detection run before the agent joins.
        on_machine: What is done when a machine answers; None leaves it to the settings.
        wait_seconds: How long to wait for room; 0 refuses at once.
        audio: The call is up already, and the dialer brings this sound; None: we call.
        channel_variables, sip_headers: As in `Placing`.
        limits: The limits of the call; those that it leaves open are up to the line that waits, or
            the settings.
        recorded: Whether the call is recorded from its beginning; None leaves it to the line that
            waits, or the settings.
        metadata: Kept with the call and shown, never read.
        traceparent, tracestate: The trace that it is part of, as W3C Trace Context has them.
    """

    agent_id: str | None = None
    session_id: str | None = None
    reference: str | None = None
    caller_number: str | None = None
    called_number: str | None = None
    variables: Mapping[str, Variable] = field(default_factory=dict)
    overrides: Mapping[str, Any] | None = None
    user_id: str | None = None
    ring_timeout_seconds: float = 30.0
    amd: bool = False
    on_machine: OnMachine | None = None
    wait_seconds: float = 0.0
    audio: OwnAudio | None = None
    channel_variables: Mapping[str, str] = field(default_factory=dict)
    sip_headers: Mapping[str, str] = field(default_factory=dict)
    limits: CallLimits = AS_SET
    recorded: bool | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    traceparent: str = ""
    tracestate: str = ""


_OVERRIDE: Final = "conversation_config_override"


def _merged(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Return `first`, with what `then` says in place of the same."""
    merged = {**first, **then}
    for name in first.keys() & then.keys():
        before, after = first[name], then[name]
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            merged[name] = _merged(before, after)
    return merged


def _untold(record: CallRecord, event: CallEvent) -> None:
    """Tell nobody."""


class Planner:
    """Makes the plan of each call.

    Args:
        options: The options of every plan.
        agents: Returns the formats that an agent is likely to have.
        precall: The service that is asked before each call; None: there is none.
        active_calls: Returns how many calls are running.
        note: Tells the journal of an event of a call.
    """

    def __init__(
        self,
        options: PlannerOptions,
        agents: Agents,
        precall: PreCall | None,
        active_calls: Callable[[], int],
        note: Callable[[CallRecord, CallEvent], None] = _untold,
    ) -> None:
        self._options = options
        self._agents = agents
        self._precall = precall
        self._active_calls = active_calls
        self._note = note

    async def for_arrival(self, record: CallRecord, arrival: Arrival) -> CallPlan:
        """Plan for a call that came in.

        Raises:
            PreCallError: The service that is asked first failed, and that matters.
        """
        return await self._plan(
            record,
            arrival.line,
            arrival.agent_id,
            arrival.variables,
            arrival.overrides,
            limits=arrival.limits,
            recorded=arrival.recorded,
        )

    def for_refusal(self, arrival: Arrival) -> CallPlan:
        """Plan for a caller who gets no agent now: given back at once, or left to wait."""
        agent_id = arrival.agent_id or self._options.agent_id or ""
        return self._with(Briefing(agent_id), LineFormat("none", 8000))

    async def for_wish(
        self, record: CallRecord, line: Line, wish: Wish, arrival: Arrival | None
    ) -> CallPlan:
        """Plan for a call that was asked for.

        Args:
            record: Its record.
            line: Its line.
            wish: The request.
            arrival: The caller who has waited for it; None: the call is placed.

        Raises:
            PreCallError: As for `for_arrival`.
        """
        # What the dialplan has said of a caller who waits; of a call that is placed, nothing.
        said = arrival or Arrival(line)
        return await self._plan(
            record,
            line,
            wish.agent_id or said.agent_id,
            {**said.variables, **wish.variables},
            _merged(said.overrides, wish.overrides or {}),
            wish=wish,
            limits=wish.limits.or_else(said.limits),
            recorded=said.recorded if wish.recorded is None else wish.recorded,
        )

    async def _plan(
        self,
        record: CallRecord,
        line: Line,
        agent_id: str | None,
        variables: Mapping[str, Variable],
        overrides: Mapping[str, Any],
        wish: Wish | None = None,
        *,
        limits: CallLimits,
        recorded: bool | None,
    ) -> CallPlan:
        agent_id = agent_id or self._options.agent_id or ""
        told: dict[str, Variable] = {
            "caller_id": record.caller_number,
            "called_number": record.called_number,
            "call_sid": record.line_id,
            **variables,
        }
        options: Mapping[str, Any] = {}
        if wish is not None and wish.user_id is not None:
            options = {"user_id": wish.user_id}
        if self._precall is not None:
            if wish is None and not line.answered:
                line.ring()
            answer = await self._ask(self._precall, record, agent_id)
            agent_id = answer.agent_id or agent_id
            if answer.failure is None:
                told.update(answer.variables)
                options = {**options, **answer.options}
        overrides = _merged(overrides, options.get(_OVERRIDE) or {})
        if overrides:
            options = {**options, _OVERRIDE: overrides}
        line_format = await line.prepare(self._agents.formats_of(agent_id))
        plan = self._with(
            Briefing(agent_id, told, options), line_format, limits=limits, recorded=recorded
        )
        if wish is None:
            return plan
        return replace(plan, ring_seconds=wish.ring_timeout_seconds, on_machine=wish.on_machine)

    async def _ask(self, precall: PreCall, record: CallRecord, agent_id: str) -> PreCallAnswer:
        loop = asyncio.get_running_loop()
        began, failure = loop.time(), None
        step = None if record.trace is None else record.trace.child()
        try:
            answer = await precall.ask(
                PreCallRequest(
                    caller_id=record.caller_number,
                    agent_id=agent_id,
                    called_number=record.called_number,
                    call_sid=record.line_id,
                ),
                headers_of(step),
            )
            failure = answer.failure
        except AppError as error:
            failure = error.code
            raise
        finally:
            seconds = round(loop.time() - began, 3)
            self._note(
                record,
                StepTook("precall", seconds, failure, "" if step is None else step.span_id),
            )
        return answer

    def _with(
        self,
        briefing: Briefing,
        line_format: LineFormat,
        *,
        limits: CallLimits = AS_SET,
        recorded: bool | None = None,
    ) -> CallPlan:
        options = self._options
        own = limits.call_timeout_seconds
        return CallPlan(
            briefing=briefing,
            line_format=line_format,
            call_timeout_seconds=min(own or math.inf, options.call_timeout_seconds),
            no_speech_timeout_seconds=limits.no_speech_timeout_seconds,
            connect_timeout_seconds=options.connect_timeout_seconds,
            uplink_chunk_ms=options.chunk_ms(self._active_calls()),
            recorded=options.recorded if recorded is None else recorded,
        )
