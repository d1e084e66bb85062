"""One call: what others know of it, what Asterisk reports about it, and its machine.

The machine (:mod:`ari_app.call.machine`) decides, :class:`~ari_app.call.performer.Performer`
carries out, with the call's other parts: the legs, the agent's side, the timers.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import structlog

from ari_app.call.agent_side import AgentSide
from ari_app.call.callee import Callee
from ari_app.call.cleanup import Held
from ari_app.call.consultation import Consultation
from ari_app.call.digits import for_record
from ari_app.call.hearing import ResponseTime
from ari_app.call.keypad import Keypad
from ari_app.call.legs import CallerLeg, Party
from ari_app.call.line_audio import LineAudio
from ari_app.call.machine import CallMachine
from ari_app.call.observer import SessionObserver as SessionObserver
from ari_app.call.observer import TranscriptLine as TranscriptLine
from ari_app.call.performer import Performer
from ari_app.call.plan import CallPlan, Services
from ari_app.call.record import CallRecord
from ari_app.call.release import bridge_id, media_channel_id
from ari_app.call.signals import (
    AgentNamed,
    CalleeLost,
    CallerJoined,
    ControlFailed,
    Event,
    MediaLost,
    Outcome,
    PhoneHeld,
    TargetLost,
)
from ari_app.call.states import IDLE, INITIALIZING, JOINED, OVER, State
from ari_app.call.streamer import ConversationStreamer
from ari_app.call.tasks import CallTasks
from ari_app.call.timers import CallTimers
from ari_app.call.tool_runner import ToolRunner
from ari_app.elevenlabs import AgentClose, AgentConnection

log = structlog.get_logger(__name__)

_HEARS_KEYS = (State.TALKING, State.GREETING, State.RECOVERING, State.CLOSING)
_HELD_BY_PHONE = "The caller has put you on hold and hears nothing until they come back."
_TAKEN_BACK = "The caller is back and hears you again."


class CallSession(CallRecord):
    """One call.

    Attributes:
        media_id, bridge_id: The resources in Asterisk that belong to this call, named before they
            are made.
        services, plan, party: What the call is made with.
        caller, callee, consultation, agent_side, audio_interface, keypad, timers, tasks: Its parts,
            for the modules of this package.
    """

    def __init__(
        self, services: Services, plan: CallPlan, party: Party, *, session_id: str
    ) -> None:
        super().__init__(party, session_id=session_id)
        self.media_id = media_channel_id(services.app, session_id)
        self.bridge_id = bridge_id(services.app, session_id)
        self.services = services
        self.plan = plan
        self.party = party
        self._machine = CallMachine()
        self._lost_at = 0.0
        self._events: deque[Event] = deque()
        self._handling = False
        self._muted = self.on_hold = False
        self.log = log.bind(session=self.session_id, call=self.call_id)
        # The parts know their call without holding it. Were they to, an ended call would be a
        # circle, and wait for a full garbage collection.
        me = self._me = self._without_holding()
        self.tasks = CallTasks(f"call {self.call_id}", lambda error: me._task_failed(error))
        self.timers = CallTimers(me)
        self.caller = CallerLeg(services.ari, party, self.bridge_id, services.policy)
        self.callee = Callee(me)
        self.keypad = Keypad(services.policy, lambda digits: me._entered(digits))
        self._performer = Performer(me)
        self._prepare()

    def _without_holding(self) -> CallSession:
        """This call, for those who must not keep it alive."""
        proxy: CallSession = weakref.proxy(self)
        return proxy

    def _prepare(self) -> None:
        services, plan, me = self.services, self.plan, self._me
        self.agent_id = plan.agent_id
        self.line_format = plan.line_format.name
        self.media_id = media_channel_id(services.app, self.session_id)
        self.caller.bridge_id = self.bridge_id = bridge_id(services.app, self.session_id)
        self.consultation = Consultation(me)
        self.audio_interface = LineAudio(
            plan.line_format,
            chunk_ms=plan.uplink_chunk_ms,
            on_lost=lambda reason: me.post(MediaLost(f"line_{reason}")),
            on_response=lambda response: me._responded(response),
        )
        self.agent_side = AgentSide(
            me,
            self.audio_interface,
            services.policy,
            has_phrase=services.loss_sound is not None,
        )
        self.agent_side.tools = ToolRunner(me, services.ari, services.policy, services.http_tools)

    def assign(self, plan: CallPlan, session_id: str) -> None:
        """Give a waiting call its agent, under another name if need be."""
        assert self.state is State.WAITING, "only a waiting call can be given an agent"
        self.plan, self.session_id = plan, session_id
        self.log = log.bind(session=session_id, call=self.call_id)
        self._prepare()
        self.post(AgentNamed())

    # --- what others see

    @property
    def state(self) -> State:
        """Where the call is."""
        return self._machine.state

    @property
    def ends(self) -> bool:
        """Whether it is decided that the call ends, now or once what was said has been heard."""
        return self._machine.ends

    @property
    def status(self) -> str:
        """``initializing``, ``active`` or ``ended``."""
        if self.state in INITIALIZING:
            return "initializing"
        return "ended" if self.state is State.ENDED else "active"

    @property
    def counts(self) -> bool:
        """Whether the call holds an agent or is about to: it counts against the limit."""
        return self.state not in IDLE

    @property
    def placed_by_us(self) -> bool:
        """We call somebody; otherwise the call came in."""
        return self.party.placement is not None

    @property
    def result(self) -> str | None:
        """What became of a call that we place (:class:`~ari_app.call.results.Result`).

        None while it is not known, and for calls that came in.
        """
        return self.callee.result() if self.placed_by_us else None

    @property
    def end_reason(self) -> str | None:
        """Why the call ended, once that is decided: ``AGENT_REASON``."""
        return None if self.outcome is None else self.outcome.reason

    @property
    def agent(self) -> AgentConnection | None:
        """The conversation with the agent, once it is there."""
        return self.agent_side.connection

    @property
    def streamer(self) -> ConversationStreamer | None:
        """What carries the agent's sound, once it is there."""
        return self.agent_side.speech.streamer

    @property
    def interruptions(self) -> int:
        """How often the caller interrupted the agent."""
        return self.agent_side.interruptions

    @property
    def target_id(self) -> str:
        """The channel of a transfer's target; empty when there is none."""
        return self.consultation.channel_id

    @property
    def held(self) -> Held:
        """What the call holds in Asterisk."""
        return Held(
            self.session_id,
            caller=self.call_id,
            media=self.media_id,
            bridge=self.bridge_id,
            caller_expected=self.caller.placed and self.state not in OVER,
            media_expected=self.state in JOINED,
            target=self.target_id,
            target_expected=self.state in (State.BRIEFING, State.HANDED_OVER),
        )

    @property
    def outcome(self) -> Outcome | None:
        """How the call ended, once that is decided."""
        return self._machine.outcome

    # --- what Asterisk reports

    def caller_joined(self) -> None:
        """Take note that the caller is in the bridge."""
        self.caller.joined()
        self.post(CallerJoined())

    def callee_answered(self) -> None:
        """Take note that whom we call has answered."""
        self.callee.answered = True

    def callee_screened(self, amd_status: str, amd_cause: str) -> None:
        """Keep what the dialplan has found out about who answered."""
        found = {"amd_status": amd_status, "amd_cause": amd_cause}
        self.metadata.update(found)
        self.plan = replace(self.plan, initiation=self.plan.with_variables(found))

    def callee_lost(self) -> CalleeLost:
        """Say why a callee's channel that has ended was never answered."""
        return self.callee.lost()

    def target_rings(self) -> None:
        """Take note that it rings at a transfer's target."""
        self.consultation.rings()

    def target_answered(self) -> None:
        """Take note that a transfer's target has answered."""
        self.consultation.answered()

    def target_ended(self, cause: int | None, sip_code: int | None) -> TargetLost:
        """Say why a transfer's target has gone."""
        return self.consultation.ended(cause, sip_code)

    def key_pressed(self, digit: str) -> None:
        """Take a key of the caller's."""
        if self.state in _HEARS_KEYS:
            self.agent_side.speech.somebody_spoke()
            self.keypad.press(digit)

    def held_by_phone(self, on: bool) -> None:
        """Take note that the caller's phone has put us on hold, or taken us back."""
        if on is self.on_hold or self.state in OVER:
            return
        self.on_hold = on
        self.audio_interface.muted = self._muted or on
        if self.agent is not None:
            text = _HELD_BY_PHONE if on else _TAKEN_BACK
            self.agent.send_contextual_update(text, context_id="hold")
        self.say("note", "the caller holds" if on else "the caller is back")
        self.post(PhoneHeld(on))

    def mute(self, muted: bool) -> None:
        """Let the agent hear silence instead of the caller, or the caller again."""
        self._muted = muted
        self.audio_interface.muted = muted or self.on_hold

    # --- events

    def post(self, event: Event) -> None:
        """Feed one event to the machine and carry out what it asks for, in order."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                event = self._events.popleft()
                before = self._machine.state
                effects = self._machine.handle(event)
                for effect in effects:
                    self._performer.perform(effect)
                if self._machine.state is not before:
                    self._state_changed(before)
        finally:
            self._handling = False

    def _state_changed(self, before: State) -> None:
        state, now = self._machine.state, self._loop.time()
        self.log.debug("call_state", state=state.value)
        if state is State.RECOVERING:
            self._lost_at = now
            self.log.warning("agent_lost", conversation=self.conversation_id)
            self.say("note", "the agent was lost")
            self.services.observer.agent_lost(self)
        elif before is State.RECOVERING and state in (State.TALKING, State.CLOSING):
            seconds = round(now - self._lost_at, 3)
            self.log.info("agent_resumed", conversation=self.conversation_id, seconds=seconds)
            self.say("note", "the agent is back")
            self.services.observer.agent_resumed(self, seconds)
        if state is State.ENDED:
            self.finish()
        self.services.observer.call_changed(self, state)

    # --- what tools ask for

    async def consult(self, endpoint: str) -> str | None:
        """Call a transfer's target; None when it hears the agent, otherwise why it does not."""
        return await self.consultation.ask(endpoint)

    async def agent_silent(self) -> None:
        """Wait until the agent has finished its sentence."""
        await self.agent_side.speech.silent()

    def hold_when_silent(self) -> None:
        """Give the caller music once the agent is silent, until it speaks again."""
        self.agent_side.hold_when_silent()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task of this call; one that fails ends the call."""
        return self.tasks.spawn(work)

    def _task_failed(self, error: BaseException) -> None:
        self.log.error("call_task_failed", exc_info=error)
        if self.state not in OVER:
            self.post(ControlFailed("internal_error"))

    # --- the agent

    def agent_is_there(self) -> None:
        """Take note of the agent, which is ready."""
        agent = self.agent_side.connection
        assert agent is not None, "it is there"
        self.converses(agent.conversation_id)
        self.log.info(
            "agent_connected",
            conversation=agent.conversation_id,
            hears=agent.input_format,
            speaks=agent.output_format,
        )
        if self.state is not State.RECOVERING:
            self.services.observer.agent_connected(self, self.duration())

    def agent_not_reached(self, code: str) -> None:
        """Take note that no conversation came about."""
        self.services.observer.agent_not_reached(self, code)

    def agent_is_gone(self, close: AgentClose) -> None:
        """Take note that the agent's socket has closed."""
        self.services.observer.agent_closed(self, close)

    def _entered(self, digits: str) -> None:
        if self.agent is not None:
            self.agent.send_user_message(digits, source_medium="dtmf")
        self.say("dtmf", for_record(digits, sensitive=self.services.policy.digits_are_sensitive))

    def _responded(self, response: ResponseTime) -> None:
        self.services.observer.call_responded(self, response)

    def say(self, who: str, text: str) -> None:
        """Add a line to the transcript."""
        self.services.observer.call_said(self, self.add_line(who, text))
