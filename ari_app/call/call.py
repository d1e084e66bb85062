"""One call: what others know of it, what Asterisk reports about it, and its machine.

The machine (:mod:`ari_app.call.machine`) decides, :class:`~ari_app.call.call.Performer`
carries out, with the call's other parts: the legs, the agent's side, the timers.
"""

from __future__ import annotations

import asyncio
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog

from ari_app.agent.elevenlabs.closing import AgentClose
from ari_app.agent.elevenlabs.connection import AgentConnection
from ari_app.call.conversation import AgentSide
from ari_app.call.hearing import ResponseTime
from ari_app.call.keypad import Keypad, for_record
from ari_app.call.machine import CallMachine
from ari_app.call.plan import CallPlan, Services
from ari_app.call.signals import (
    AgentNamed,
    AnswerCaller,
    BridgeMade,
    CalleeLost,
    CallerAnswered,
    CallerJoined,
    CallTarget,
    CancelTimer,
    ConnectAgent,
    ControlFailed,
    DropAgent,
    DropTarget,
    Effect,
    Event,
    JoinCaller,
    JoinMedia,
    JoinTarget,
    MakeBridge,
    MediaLost,
    OpenMedia,
    PhoneHeld,
    PlaceCall,
    PlayedOut,
    PlayKept,
    PlayMusic,
    PlayOut,
    PlayPhrase,
    PromptAgent,
    Release,
    Released,
    ReplaceAgent,
    RingCaller,
    ScreenCall,
    SetTimer,
    StartAudio,
    TargetLost,
    TellTarget,
    Timer,
    TimerFired,
    WatchSpeech,
)
from ari_app.call.sound import ConversationStreamer, LineAudio
from ari_app.call.states import IDLE, INITIALIZING, JOINED, OVER, State
from ari_app.call.tools import ToolRunner
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriError
from ari_app.line.asterisk.ari.rest import Errand
from ari_app.line.asterisk.cleanup import Held
from ari_app.line.asterisk.line import (
    Callee,
    CallerLeg,
    Consultation,
    Party,
    bridge_id,
    media_channel_id,
    quietly,
)
from ari_app.line.asterisk.names import bridge_name
from ari_app.line.interface import Outcome
from ari_app.records.events import SessionObserver as SessionObserver
from ari_app.records.events import TranscriptLine as TranscriptLine
from ari_app.records.record import CallRecord


class Performer:
    """Does what the machine asks for, and posts what came of it.

    Args:
        call: The call.
    """

    def __init__(self, call: CallSession) -> None:
        self._call = call
        self._making: list[asyncio.Task[None]] = []
        self._uuid = uuid.uuid4()
        # What is asked for until the caller is joined; then nobody needs it any more.
        self._set_up = Errand()

    def perform(self, effect: Effect) -> None:
        """Carry out one effect; never waits."""
        call = self._call
        set_up = self._set_up
        ari = call.services.ari.persistent(set_up)
        match effect:
            case RingCaller():
                self._request(call.services.ari.channels.ring(call.call_id), essential=False)
            case PlayMusic():
                self._request(call.caller.music())
            case ConnectAgent():
                call.agent_side.dial(call.services.agents, call.plan.agent_id, call.plan.initiation)
            case ReplaceAgent(heard):
                self._replace_agent(heard)
            case PlayPhrase():
                self._play_phrase()
            case PromptAgent():
                call.agent_side.prompt()
            case PlayKept():
                call.agent_side.speech.play_kept()
            case MakeBridge():
                made = ari.bridges.create_with_id(
                    call.bridge_id, type="mixing", name=bridge_name(call.call_id)
                )
                self._making.append(self._request(made, then=BridgeMade(), errand=set_up))
            case OpenMedia():
                self._making.append(self._request(self._open_media(ari), errand=set_up))
            case JoinMedia():
                joined = ari.bridges.add_channel(call.bridge_id, call.media_id)
                self._request(joined, errand=set_up)
            case AnswerCaller():
                answered = ari.channels.answer(call.call_id)
                self._request(answered, then=CallerAnswered(), errand=set_up)
            case JoinCaller():
                self._request(self._join_caller())
            case StartAudio():
                self._start_audio()
            case PlayOut():
                call.spawn(self._play_out())
            case SetTimer(timer):
                call.timers.set(timer)
            case CancelTimer(timer):
                call.timers.cancel(timer)
            case Release(outcome, caller_present):
                call.spawn(self._release(outcome, caller_present))
            case DropAgent():
                call.spawn(self._drop_agent())
            case PlaceCall():
                call.callee.place()
            case ScreenCall():
                self._request(call.caller.screen(set_up), errand=set_up)
            case WatchSpeech():
                set_up.drop()
                call.spawn(call.callee.listen_to_greeting())
            case CallTarget(endpoint):
                call.consultation.dial(endpoint)
            case JoinTarget():
                call.spawn(call.consultation.join())
            case DropTarget():
                call.spawn(call.consultation.drop())
            case TellTarget(lost):
                call.consultation.tell(lost)

    def _request(
        self,
        request: Coroutine[Any, Any, object],
        *,
        then: Event | None = None,
        essential: bool = True,
        errand: Errand | None = None,
    ) -> asyncio.Task[None]:
        async def request_of_call() -> None:
            try:
                await request
            except AriError as error:
                self._call.log.info("ari_request_failed", code=error.code, error=str(error))
                if essential and (errand is None or errand.wanted):
                    self._call.post(ControlFailed(error.code))
            else:
                if then is not None:
                    self._call.post(then)

        return self._call.spawn(request_of_call())

    async def _join_caller(self) -> None:
        if await self._call.caller.join():
            self._call.post(CallerJoined())

    # --- the agent

    def _replace_agent(self, heard: bool) -> None:
        call = self._call
        dialled = call.services.agents, call.plan.agent_id, call.plan.initiation
        if heard:
            call.agent_side.dial_again(*dialled)
        else:
            # What the lost one has said is queued, and would be heard before the new greeting.
            call.agent_side.speech.interrupt()
            call.agent_side.dial(*dialled)

    def _play_phrase(self) -> None:
        sound, audio = self._call.services.loss_sound, self._call.audio_interface
        assert sound is not None, "the machine is told whether there is a phrase"
        audio.write_audio_chunk(sound.at(audio.rate_hz))
        audio.end_response()

    # --- sound

    async def _open_media(self, ari: Client) -> None:
        # Both names are known to us before Asterisk hears of them: the connection and StasisStart
        # may come before the answer to this request.
        call = self._call
        call.services.lines.expect(
            self._uuid,
            call.audio_interface,
            call.plan.line_format,
            ttl=call.plan.connect_timeout_seconds,
        )
        await ari.channels.external_media(
            call.media_id,
            call.services.audiosocket_target,
            format=call.plan.line_format.name,
            data=str(self._uuid),
        )

    def _start_audio(self) -> None:
        self._set_up.drop()
        call = self._call
        call.answered_at = datetime.now(UTC)
        audio, path = call.audio_interface, call.plan.recording_path
        if path is not None:
            now = asyncio.get_running_loop().time()
            audio.recorder = call.services.recordings.start(
                path, audio.rate_hz, now, session_id=call.session_id
            )
        assert call.streamer is not None, "the agent was ready before the caller could join"
        call.agent_side.speech.somebody_spoke()
        call.spawn(call.streamer.run())
        call.spawn(call.agent_side.attend())

    async def _play_out(self) -> None:
        await self._call.audio_interface.drained()
        self._call.post(PlayedOut())

    def _hang_up_line(self) -> None:
        self._call.audio_interface.hang_up()
        self._finish_recording()
        self._call.services.lines.forget(self._uuid)
        self._call.keypad.close()

    def _finish_recording(self) -> None:
        if (recorder := self._call.audio_interface.recorder) is not None:
            recorder.finish()

    # --- the way out

    async def _drop_agent(self) -> None:
        """Caller and target go on without the agent and without us."""
        call = self._call
        self._hang_up_line()
        channels = call.services.ari.persistent().channels
        await asyncio.gather(
            call.agent_side.close(),
            quietly(lambda: channels.hangup(call.media_id), attempts=2),
        )

    async def _release(self, outcome: Outcome, caller_present: bool) -> None:
        """Give everything back; each part for itself, so that one that fails holds up no other."""
        # The line goes first: a thread of Asterisk's that waits for our next frame holds the
        # channel's lock, and the requests below would wait with it (asterisk#2078).
        call = self._call
        self._hang_up_line()
        self._set_up.drop()
        parts: list[Coroutine[Any, Any, object]] = [
            call.agent_side.close(),
            self._remove_resources(),
            call.consultation.drop(),
        ]
        if caller_present:
            parts.append(self._give_back_caller(outcome))
        for failure in await asyncio.gather(*parts, return_exceptions=True):
            if isinstance(failure, BaseException):
                call.log.error("release_part_failed", exc_info=failure)
        # Requests that nobody needs an answer to any more.
        await call.tasks.stop()
        # An agent that came at the last moment may have been given the line.
        call.audio_interface.hang_up()
        call.log.info(
            "call_ended",
            status=outcome.status.value,
            reason=outcome.reason,
            seconds=round(call.duration(), 1),
        )
        call.post(Released())

    async def _give_back_caller(self, outcome: Outcome) -> None:
        call = self._call
        await call.callee.placed()
        await call.caller.give_back(
            outcome, session_id=call.session_id, conversation_id=call.conversation_id
        )

    async def _remove_resources(self) -> None:
        making, self._making = self._making, []
        if not making:
            return
        # What is still being made must be there before it can be removed; every request has a
        # deadline.
        await asyncio.wait(making)
        call, ari = self._call, self._call.services.ari.persistent()
        await asyncio.gather(
            quietly(lambda: ari.channels.hangup(call.media_id), attempts=2),
            quietly(lambda: ari.bridges.destroy(call.bridge_id), attempts=2),
        )


# The agent's client has the same deadline, and its error says more than this timer.
_SPARE_SECONDS = 0.2
_JOIN_SECONDS = 5.0
# AMD() takes 5 s at most (amd.conf, total_analysis_time); then there is still the way to and fro.
_SCREEN_SECONDS = 12.0
# A machine that says nothing for so long has spoken before it was known to be one.
_MACHINE_QUIET_SECONDS = 3.0
_GREETING_SECONDS = 60.0
# How long the agent may take until it begins to speak to a transfer's target.
_BRIEF_SECONDS = 4.0
# A caller takes more silence than this for the end of the call; an agent that returns in less needs
# no cover.
_COVER_SECONDS = 1.0
_AT_ONCE_SECONDS = 0.01
# How long a model may take for its first word.
_RESUME_SECONDS = 4.0


class CallTimers:
    """One of each kind at most; one that runs out is reported as :class:`TimerFired`.

    Args:
        call: Whose timers they are.
    """

    def __init__(self, call: CallSession) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._handles: dict[Timer, asyncio.TimerHandle] = {}

    def set(self, timer: Timer) -> None:
        """Start a timer, or begin it anew; one whose time is 0 is off."""
        if (seconds := self._seconds(timer)) > 0:
            self._start(timer, seconds)

    def cancel(self, timer: Timer) -> None:
        """Forget a timer, if it runs."""
        if handle := self._handles.pop(timer, None):
            handle.cancel()

    def _seconds(self, timer: Timer) -> float:
        call = self._call
        plan, policy, placement = call.plan, call.services.policy, call.party.placement
        match timer:
            case Timer.CALL:
                return plan.call_timeout_seconds
            case Timer.CONNECT:
                return plan.connect_timeout_seconds + _SPARE_SECONDS
            case Timer.JOIN:
                return _JOIN_SECONDS
            case Timer.WAIT:
                return plan.wait_seconds
            case Timer.RING:
                return placement.ring_seconds if placement is not None else 0.0
            case Timer.SCREEN:
                return _SCREEN_SECONDS
            case Timer.QUIET:
                return _MACHINE_QUIET_SECONDS
            case Timer.GREETING:
                return _GREETING_SECONDS
            case Timer.CONSULT:
                return policy.consult_ring_seconds
            case Timer.SPEECH:
                return policy.no_speech_timeout_seconds
            case Timer.HOLD:
                return policy.hold_timeout_seconds
            case Timer.CLOSE:
                return call.agent_side.speech.begin_quiet()
            case Timer.BRIEF:
                call.agent_side.speech.begin_quiet()
                return _BRIEF_SECONDS
            case Timer.RECONNECT:
                return plan.connect_timeout_seconds + _SPARE_SECONDS
            case Timer.COVER:
                return max(_COVER_SECONDS - call.agent_side.waited_seconds, _AT_ONCE_SECONDS)
            case Timer.RESUME:
                return _RESUME_SECONDS

    def _start(self, timer: Timer, seconds: float) -> None:
        self.cancel(timer)
        self._handles[timer] = self._loop.call_later(seconds, self._fired, timer)

    def _fired(self, timer: Timer) -> None:
        self._handles.pop(timer, None)
        if (left := self._too_early(timer)) > 0:
            self._start(timer, left)
        else:
            self._call.post(TimerFired(timer))

    def _too_early(self, timer: Timer) -> float:
        """Seconds that a timer has to wait on, for what it waits for goes on."""
        call = self._call
        match timer:
            case Timer.CLOSE | Timer.BRIEF:
                return call.agent_side.speech.still_speaking()
            case Timer.SPEECH:
                limit = call.services.policy.no_speech_timeout_seconds
                # Whoever is on hold need not speak.
                waits = call.on_hold or call.state is not State.TALKING
                return limit if waits else call.agent_side.speech.silence_lacks(limit)
            case Timer.COVER:
                queued = call.agent_side.speech.queued_seconds
                return queued + _COVER_SECONDS if queued else 0.0
            case _:
                return 0.0


class CallTasks:
    """Starts tasks, and stops them all in the end.

    Args:
        name: Each task's name.
        on_failure: Called with what a task has raised, unforeseen.
    """

    def __init__(self, name: str, on_failure: Callable[[BaseException], None]) -> None:
        self._name = name
        self._on_failure = on_failure
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task."""
        task = asyncio.get_running_loop().create_task(work, name=self._name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def stop(self) -> None:
        """Cancel all but the task that asks, and wait until they have ended."""
        others = self._running - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(error)


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
        """What became of a call that we place (:class:`~ari_app.line.interface.Result`).

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
