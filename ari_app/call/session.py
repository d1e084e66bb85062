"""One call: feeds the machine with what happens and carries out what it asks for."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog

from ari_app.ari import AriError, AriServerError
from ari_app.audio.recording import StereoRecorder
from ari_app.call.agent_side import AgentSide
from ari_app.call.digits import for_record
from ari_app.call.greeting import GreetingEar
from ari_app.call.keypad import Keypad
from ari_app.call.legs import CallerLeg, Party, TargetLeg
from ari_app.call.line_audio import LineAudio
from ari_app.call.machine import CallMachine
from ari_app.call.observer import SessionObserver as SessionObserver
from ari_app.call.observer import TranscriptLine as TranscriptLine
from ari_app.call.plan import CallPlan, Services
from ari_app.call.reconcile import Held
from ari_app.call.release import bridge_id, media_channel_id, quietly, target_channel_id
from ari_app.call.results import Result, result_of
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
    ConsultRequested,
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
    Outcome,
    PhoneHeld,
    PlaceCall,
    PlayedOut,
    PlayMusic,
    PlayOut,
    Release,
    Released,
    RingCaller,
    ScreenCall,
    SetTimer,
    SilenceHeard,
    SpeechHeard,
    StartAudio,
    Status,
    TargetLost,
    TellTarget,
    Timer,
    TimerFired,
    WatchSpeech,
)
from ari_app.call.states import State
from ari_app.call.streamer import ConversationStreamer
from ari_app.call.tool_runner import ToolRunner
from ari_app.call.turns import ResponseTime
from ari_app.elevenlabs import AgentClose, AgentConnection
from ari_app.tools.http_request import CallFacts

log = structlog.get_logger(__name__)

_JOIN_SECONDS = 5.0
# AMD() takes 5 s at most (amd.conf, total_analysis_time); then there is still the way to and fro.
_SCREEN_SECONDS = 12.0
# A machine that says nothing for so long has spoken before it was known to be one.
_MACHINE_QUIET_SECONDS = 3.0
_GREETING_SECONDS = 60.0
_LISTEN_SECONDS = 0.05
# How long the agent may take until it begins to speak to a transfer's target.
_BRIEF_SECONDS = 4.0
_MAX_TRANSCRIPT = 500
_IDLE = frozenset({State.NEW, State.WAITING, State.HANDED_OVER, State.RELEASING, State.ENDED})
_OVER = frozenset({State.RELEASING, State.ENDED})
_JOINED = frozenset(
    {
        State.JOINING,
        State.GREETING,
        State.TALKING,
        State.HOLDING,
        State.CONSULTING,
        State.BRIEFING,
        State.CLOSING,
        State.DRAINING,
    }
)
_INITIALIZING = frozenset(
    {
        State.NEW,
        State.WAITING,
        State.DIALLING,
        State.RINGING,
        State.SCREENING,
        State.CONNECTING,
        State.JOINING,
    }
)
_HELD_BY_PHONE = "The caller has put you on hold and hears nothing until they come back."
_TARGET_THERE = (
    "The caller is being transferred and hears music. The person who takes the call hears you now; "
    "the two are connected when you are silent."
)
_TARGET_LOST = "The transfer came to nothing. The caller hears you again."
_TAKEN_BACK = "The caller is back and hears you again."


class CallSession:
    """One call.

    Attributes:
        session_id: Ours; ``AGENT_SESSION_ID`` in the dialplan.
        call_id: The channel of the caller, or of the callee where we call.
        media_id, bridge_id: The resources in Asterisk that belong to this call, named before they
            are made.
        reference: A dialer's own name for the call.
        metadata: What the request brought along, and what became known (``amd_status``).
        hangup_cause, sip_code: Why the caller's channel ended, once it has, where Asterisk says.
    """

    def __init__(
        self, services: Services, plan: CallPlan, party: Party, *, session_id: str
    ) -> None:
        self.session_id = session_id
        self.call_id = party.channel_id
        self.caller_number = party.caller_number
        self.called_number = party.called_number
        self.reference: str | None = None
        self.metadata: dict[str, Any] = {}
        self.media_id = media_channel_id(services.app, self.session_id)
        self.bridge_id = bridge_id(services.app, self.session_id)
        self.started_at = datetime.now(UTC)
        self.ended_at: datetime | None = None
        self.answered_at: datetime | None = None
        self.conversation_id = ""
        self.transcript: deque[TranscriptLine] = deque(maxlen=_MAX_TRANSCRIPT)
        self.hangup_cause: int | None = None
        self.sip_code: int | None = None
        self.caller_hung_up = False
        self.ended = asyncio.Event()

        self._services = services
        self._plan = plan
        self._party = party
        self._machine = CallMachine()
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._duration: float | None = None
        self._callee_answered = False
        self._events: deque[Event] = deque()
        self._handling = False
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._making: list[asyncio.Task[None]] = []
        self._calling: list[asyncio.Task[None]] = []
        self._consulting: asyncio.Future[str | None] | None = None
        self._uuid = uuid.uuid4()
        self._muted = self._held_by_phone = False
        self._log = log.bind(session=self.session_id, call=self.call_id)
        self._caller = CallerLeg(services.ari, party, self.bridge_id, services.policy)
        self._keypad = Keypad(services.policy, self._entered)
        self._prepare()

    def _prepare(self) -> None:
        services, plan = self._services, self._plan
        self.agent_id = plan.agent_id
        self.line_format = plan.line_format.name
        self.media_id = media_channel_id(services.app, self.session_id)
        self._caller.bridge_id = self.bridge_id = bridge_id(services.app, self.session_id)
        target = target_channel_id(services.app, self.session_id)
        self._target = TargetLeg(services.ari, target, self.bridge_id)
        self.audio_interface = LineAudio(
            plan.line_format,
            chunk_ms=plan.uplink_chunk_ms,
            on_lost=lambda reason: self.post(MediaLost(f"line_{reason}")),
            on_response=self._responded,
        )
        self._agent = AgentSide(self, self.audio_interface)
        self._agent.tools = ToolRunner(self, services.ari, services.policy, services.http_tools)

    def assign(self, plan: CallPlan, session_id: str) -> None:
        """Give a waiting call its agent, under another name if need be."""
        assert self.state is State.WAITING, "only a waiting call can be given an agent"
        self._plan, self.session_id = plan, session_id
        self._log = log.bind(session=session_id, call=self.call_id)
        self._prepare()
        self.post(AgentNamed())

    # --- what others see

    @property
    def state(self) -> State:
        """Where the call is."""
        return self._machine.state

    @property
    def status(self) -> str:
        """``initializing``, ``active`` or ``ended``."""
        if self.state in _INITIALIZING:
            return "initializing"
        return "ended" if self.state is State.ENDED else "active"

    @property
    def plan(self) -> CallPlan:
        """What was decided about the call."""
        return self._plan

    @property
    def counts(self) -> bool:
        """Whether the call holds an agent or is about to: it counts against the limit."""
        return self.state not in _IDLE

    @property
    def placed_by_us(self) -> bool:
        """We call somebody; otherwise the call came in."""
        return self._party.placement is not None

    @property
    def result(self) -> str | None:
        """What became of a call that we place (:class:`~ari_app.call.results.Result`).

        None while it is not known, and for calls that came in.
        """
        if not self.placed_by_us:
            return None
        if self._callee_answered:
            return Result.ANSWERED.value
        if self.outcome is None:
            return None
        # A reason that somebody gave for ending the call may be any word.
        failed, reason = self.outcome.status is Status.FAILED, self.outcome.reason
        return reason if failed and reason in set(Result) else Result.FAILED.value

    @property
    def end_reason(self) -> str | None:
        """Why the call ended, once that is decided: ``AGENT_REASON``."""
        return None if self.outcome is None else self.outcome.reason

    @property
    def agent(self) -> AgentConnection | None:
        """The conversation with the agent, once it is there."""
        return self._agent.connection

    @property
    def streamer(self) -> ConversationStreamer | None:
        """What carries the agent's sound, once it is there."""
        return self._agent.streamer

    @property
    def interruptions(self) -> int:
        """How often the caller interrupted the agent."""
        return self._agent.interruptions

    @property
    def target_id(self) -> str:
        """The channel of a transfer's target; empty when there is none."""
        return self._target.channel_id

    @property
    def held(self) -> Held:
        """What the call holds in Asterisk."""
        return Held(
            self.session_id,
            caller=self.call_id,
            media=self.media_id,
            bridge=self.bridge_id,
            caller_expected=self._caller.placed and self.state not in _OVER,
            media_expected=self.state in _JOINED,
            target=self.target_id,
            target_expected=self.state in (State.BRIEFING, State.HANDED_OVER),
        )

    @property
    def outcome(self) -> Outcome | None:
        """How the call ended, once that is decided."""
        return self._machine.outcome

    def duration(self) -> float:
        """Seconds from entering the application to the end, or to now."""
        return self._loop.time() - self._started if self._duration is None else self._duration

    def facts(self) -> CallFacts:
        """What HTTP tools may be told about the call."""
        return CallFacts(
            session_id=self.session_id,
            call_id=self.call_id,
            conversation_id=self.conversation_id,
            agent_id=self.agent_id,
            caller_number=self.caller_number,
            called_number=self.called_number,
        )

    # --- what Asterisk reports

    def callee_answered(self) -> None:
        """Take note that whom we call has answered."""
        self._callee_answered = True

    def callee_screened(self, amd_status: str, amd_cause: str) -> None:
        """Keep what the dialplan has found out about who answered."""
        found = {"amd_status": amd_status, "amd_cause": amd_cause}
        self.metadata.update(found)
        self._plan = replace(self._plan, initiation=self._plan.with_variables(found))

    def caller_ended(self, cause: int | None, sip_code: int | None) -> None:
        """Keep why the caller's channel has ended, as far as it is known."""
        self.hangup_cause = cause or self.hangup_cause
        self.sip_code = sip_code or self.sip_code

    def callee_lost(self) -> CalleeLost:
        """Say why a callee's channel that has ended was never answered."""
        rang = self.state is State.RINGING
        return CalleeLost(result_of(self.hangup_cause, self.sip_code, rang=rang).value)

    def target_rings(self) -> None:
        """Take note that it rings at a transfer's target."""
        self._target.rang = True

    def target_answered(self) -> None:
        """Take note that a transfer's target has answered."""
        self._target.answered = True

    def target_ended(self, cause: int | None, sip_code: int | None) -> TargetLost:
        """Say why a transfer's target has gone."""
        if self._target.answered:
            return TargetLost("hung_up")
        return TargetLost(result_of(cause, sip_code, rang=self._target.rang).value)

    def key_pressed(self, digit: str) -> None:
        """Take a key of the caller's."""
        if self.state in (State.TALKING, State.GREETING, State.CLOSING):
            self._agent.last_speech = self._loop.time()
            self._keypad.press(digit)

    def held_by_phone(self, on: bool) -> None:
        """Take note that the caller's phone has put us on hold, or taken us back."""
        if on is self._held_by_phone or self.state in _OVER:
            return
        self._held_by_phone = on
        self.audio_interface.muted = self._muted or on
        if self.agent is not None:
            text = _HELD_BY_PHONE if on else _TAKEN_BACK
            self.agent.send_contextual_update(text, context_id="hold")
        self.say("note", "the caller holds" if on else "the caller is back")
        self.post(PhoneHeld(on))

    def mute(self, muted: bool) -> None:
        """Let the agent hear silence instead of the caller, or the caller again."""
        self._muted = muted
        self.audio_interface.muted = muted or self._held_by_phone

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
                    self._carry_out(effect)
                if isinstance(event, CallerJoined):
                    self._agent.caller_joined()
                if self._machine.state is not before:
                    self._state_changed()
        finally:
            self._handling = False

    def _state_changed(self) -> None:
        state = self._machine.state
        self._log.debug("call_state", state=state.value)
        if state is State.ENDED:
            self.ended_at = datetime.now(UTC)
            self._duration = self._loop.time() - self._started
            self.ended.set()
        self._services.observer.call_changed(self, state)

    # --- effects

    def _carry_out(self, effect: Effect) -> None:
        channels, bridges = self._services.ari.channels, self._services.ari.bridges
        match effect:
            case RingCaller():
                self._request(channels.ring(self.call_id), essential=False)
            case PlayMusic():
                self._request(self._caller.music())
            case ConnectAgent():
                plan = self._plan
                self._agent.dial(self._services.agents, plan.agent_id, plan.initiation)
            case MakeBridge():
                # Should this process be lost, the name tells whose bridge it was.
                made = bridges.create_with_id(self.bridge_id, type="mixing", name=self.call_id)
                self._request(made, then=BridgeMade(), making=True)
            case OpenMedia():
                self._request(self._open_media(), making=True)
            case JoinMedia():
                self._request(bridges.add_channel(self.bridge_id, self.media_id))
            case AnswerCaller():
                self._request(channels.answer(self.call_id), then=CallerAnswered())
            case JoinCaller(after_music):
                self._request(self._caller.join(after_music=after_music))
            case StartAudio():
                self._start_audio()
            case PlayOut():
                self.spawn(self._play_out())
            case SetTimer(timer):
                if (seconds := self._seconds(timer)) > 0:
                    self._set_timer(timer, seconds)
            case CancelTimer(timer):
                if handle := self._timers.pop(timer, None):
                    handle.cancel()
            case Release(outcome, caller_present):
                self.spawn(self._release(outcome, caller_present))
            case DropAgent():
                self.spawn(self._drop_agent())
            case PlaceCall():
                self._calling.append(self.spawn(self._place()))
            case ScreenCall():
                self._request(self._caller.screen())
            case WatchSpeech():
                self.spawn(self._listen_to_greeting())
            case CallTarget(endpoint):
                self._calling.append(self.spawn(self._call_target(endpoint)))
            case JoinTarget():
                self.spawn(self._join_target())
            case DropTarget():
                self.spawn(self._drop_target())
            case TellTarget(lost):
                self._tell_target(lost)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task of this call; one that fails ends the call."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("call_task_failed", exc_info=error)
            if self.state not in _OVER:
                self.post(ControlFailed("internal_error"))

    def _request(
        self,
        request: Coroutine[Any, Any, object],
        *,
        then: Event | None = None,
        essential: bool = True,
        making: bool = False,
    ) -> None:
        async def run() -> None:
            try:
                await request
            except AriError as error:
                self._log.info("ari_request_failed", code=error.code, error=str(error))
                if essential:
                    self.post(ControlFailed(error.code))
            else:
                if then is not None:
                    self.post(then)

        task = self.spawn(run())
        if making:
            self._making.append(task)

    async def _open_media(self) -> None:
        # Both names are known to us before Asterisk hears of them: the connection and StasisStart
        # may come before the answer to this request.
        self._services.lines.expect(
            self._uuid,
            self.audio_interface,
            self._plan.line_format,
            ttl=self._plan.connect_timeout_seconds,
        )
        await self._services.ari.channels.external_media(
            self.media_id,
            self._services.audiosocket_target,
            format=self._plan.line_format.name,
            data=str(self._uuid),
        )

    async def _place(self) -> None:
        try:
            await self._caller.place()
        except AriServerError as error:
            # "Allocation failed": the endpoint is not known, or nobody is registered there.
            self._log.info("callee_not_dialled", code=error.code, error=str(error))
            self.post(CalleeLost(Result.UNREACHABLE.value))
        except AriError as error:
            self._log.warning("callee_not_dialled", code=error.code, error=str(error))
            self.post(CalleeLost(Result.FAILED.value, present=True))

    def _start_audio(self) -> None:
        self.answered_at = datetime.now(UTC)
        audio, plan = self.audio_interface, self._plan
        if plan.recording_path is not None:
            audio.recorder = StereoRecorder(plan.recording_path, audio.rate_hz, self._loop.time())
        assert self.streamer is not None, "the agent was ready before the caller could join"
        self._agent.last_speech = self._loop.time()
        self.spawn(self.streamer.run())

    async def _listen_to_greeting(self) -> None:
        ear, said = GreetingEar(self.audio_interface.rate_hz), False
        self.audio_interface.overhear = ear.heard
        while self.state is State.GREETING:
            await asyncio.sleep(_LISTEN_SECONDS)
            if ear.spoke and not said:
                said = True
                self.post(SpeechHeard())
            if ear.over(self._loop.time()):
                self.post(SilenceHeard())
        self.audio_interface.overhear = None

    async def _finish_recording(self) -> None:
        if (recorder := self.audio_interface.recorder) is not None:
            result = await recorder.close()
            if result.failure or result.dropped_seconds:
                self._log.error(
                    "recording_incomplete",
                    failure=result.failure,
                    dropped_seconds=round(result.dropped_seconds, 1),
                )

    async def _play_out(self) -> None:
        await self.audio_interface.drained()
        self.post(PlayedOut())

    # --- transfers

    async def consult(self, endpoint: str) -> str | None:
        """Call a transfer's target; None when it hears the agent, otherwise why it does not."""
        if self.state is not State.TALKING:
            return "not_possible_now"
        self._consulting = self._loop.create_future()
        self.post(ConsultRequested(endpoint))
        return await self._consulting

    def _tell_target(self, lost: str | None) -> None:
        if self._consulting is not None and not self._consulting.done():
            self._consulting.set_result(lost)
        elif self.agent is not None:
            # Nobody waits for an answer: the transfer was asked for from outside, or the target
            # has hung up after it was there.
            self.agent.send_contextual_update(
                _TARGET_THERE if lost is None else _TARGET_LOST, context_id="transfer"
            )

    async def _call_target(self, endpoint: str) -> None:
        ring_seconds = self._services.policy.consult_ring_seconds
        try:
            await self._target.call(
                endpoint, caller_id=self.caller_number, ring_seconds=ring_seconds
            )
        except AriError as error:
            self._log.info("target_not_dialled", code=error.code, error=str(error))
            self.post(TargetLost(Result.UNREACHABLE.value))

    async def _join_target(self) -> None:
        try:
            await self._target.join()
        except AriError as error:
            self._log.info("target_not_joined", code=error.code, error=str(error))
            self.post(TargetLost(Result.FAILED.value))

    async def agent_silent(self) -> None:
        """Wait until the agent has finished its sentence."""
        await self._agent.silent()

    def hold_when_silent(self) -> None:
        """Give the caller music once the agent is silent, until it speaks again."""
        self._agent.hold_when_silent()

    # --- timers

    def _seconds(self, timer: Timer) -> float:
        plan, policy, placement = self._plan, self._services.policy, self._party.placement
        match timer:
            case Timer.CALL:
                return plan.call_timeout_seconds
            case Timer.CONNECT:
                return plan.connect_timeout_seconds
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
                return self._agent.begin_quiet()
            case Timer.BRIEF:
                self._agent.begin_quiet()
                return _BRIEF_SECONDS

    def _set_timer(self, timer: Timer, seconds: float) -> None:
        if handle := self._timers.pop(timer, None):
            handle.cancel()
        self._timers[timer] = self._loop.call_later(seconds, self._timer_fired, timer)

    def _timer_fired(self, timer: Timer) -> None:
        self._timers.pop(timer, None)
        if (left := self._too_early(timer)) > 0:
            self._set_timer(timer, left)
        else:
            self.post(TimerFired(timer))

    def _too_early(self, timer: Timer) -> float:
        """Seconds that a timer has to wait on, for what it waits for goes on."""
        match timer:
            case Timer.CLOSE | Timer.BRIEF:
                return self._agent.still_speaking()
            case Timer.SPEECH:
                limit = self._services.policy.no_speech_timeout_seconds
                # Whoever is on hold need not speak.
                waits = self._held_by_phone or self.state is not State.TALKING
                return limit if waits else limit - self._agent.silent_for()
            case _:
                return 0.0

    # --- the agent

    def agent_is_there(self) -> None:
        """Take note of the agent, which is ready."""
        agent = self._agent.connection
        assert agent is not None, "it is there"
        self.conversation_id = agent.conversation_id
        self._log.info(
            "agent_connected",
            conversation=agent.conversation_id,
            hears=agent.input_format,
            speaks=agent.output_format,
        )
        self._services.observer.agent_connected(self, self.duration())

    def agent_is_gone(self, close: AgentClose) -> None:
        """Take note that the agent's socket has closed."""
        self._services.observer.agent_closed(self, close)

    def _entered(self, digits: str) -> None:
        if self.agent is not None:
            self.agent.send_user_message(digits, source_medium="dtmf")
        self.say("dtmf", for_record(digits, sensitive=self._services.policy.digits_are_sensitive))

    def _responded(self, response: ResponseTime) -> None:
        self._services.observer.call_responded(self, response)

    def say(self, who: str, text: str) -> None:
        """Add a line to the transcript."""
        line = TranscriptLine(round(self.duration(), 3), who, text)
        self.transcript.append(line)
        self._services.observer.call_said(self, line)

    # --- the way out

    async def _drop_agent(self) -> None:
        """Caller and target go on without the agent and without us."""
        self._keypad.close()
        self.audio_interface.hang_up()
        self._services.lines.forget(self._uuid)
        channels = self._services.ari.channels
        await asyncio.gather(
            self._agent.close(),
            quietly(lambda: channels.hangup(self.media_id), attempts=2),
        )
        await self._finish_recording()

    async def _release(self, outcome: Outcome, caller_present: bool) -> None:
        """Give everything back; each part for itself, so that one that fails holds up no other."""
        # The line goes first: a thread of Asterisk's that waits for our next frame holds the
        # channel's lock, and the requests below would wait with it (asterisk#2078).
        self.audio_interface.hang_up()
        self._services.lines.forget(self._uuid)
        self._keypad.close()
        parts: list[Coroutine[Any, Any, object]] = [
            self._agent.close(),
            self._remove_resources(),
            self._drop_target(),
            self._finish_recording(),
        ]
        if caller_present:
            parts.append(self._give_back_caller(outcome))
        for failure in await asyncio.gather(*parts, return_exceptions=True):
            if isinstance(failure, BaseException):
                self._log.error("release_part_failed", exc_info=failure)
        await self._stop_tasks()
        self._log.info(
            "call_ended",
            status=outcome.status.value,
            reason=outcome.reason,
            seconds=round(self.duration(), 1),
        )
        self.post(Released())

    async def _give_back_caller(self, outcome: Outcome) -> None:
        await self._until_called()
        await self._caller.give_back(
            outcome, session_id=self.session_id, conversation_id=self.conversation_id
        )

    async def _drop_target(self) -> None:
        await self._until_called()
        await self._target.drop()

    async def _until_called(self) -> None:
        # A channel that is still being made cannot be hung up.
        if self._calling:
            await asyncio.wait(self._calling)

    async def _stop_tasks(self) -> None:
        """Give up requests that nobody needs an answer to any more."""
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    async def _remove_resources(self) -> None:
        # What is still being made must be there before it can be removed; every request has a
        # deadline.
        if self._making:
            await asyncio.wait(self._making)
        ari = self._services.ari
        await asyncio.gather(
            quietly(lambda: ari.channels.hangup(self.media_id), attempts=2),
            quietly(lambda: ari.bridges.destroy(self.bridge_id), attempts=2),
        )
