"""One call: feeds the machine with what happens and carries out what it asks for."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from ari_app.ari import AriError, Channel, Client
from ari_app.audio.recording import StereoRecorder
from ari_app.call.line_audio import LineAudio
from ari_app.call.machine import CallMachine
from ari_app.call.reconcile import Held
from ari_app.call.release import bridge_id, give_back_caller, media_channel_id, quietly
from ari_app.call.signals import (
    AgentClosed,
    AgentEnding,
    AgentFailed,
    AgentReady,
    AnswerCaller,
    BridgeMade,
    CallerAnswered,
    CancelTimer,
    ConnectAgent,
    ControlFailed,
    Effect,
    Event,
    JoinCaller,
    JoinMedia,
    MakeBridge,
    MediaLost,
    OpenMedia,
    Outcome,
    PlayedOut,
    PlayOut,
    Release,
    Released,
    RingCaller,
    SetTimer,
    StartAudio,
    Status,
    Timer,
    TimerFired,
)
from ari_app.call.states import State
from ari_app.call.streamer import ConversationStreamer
from ari_app.call.tools import call_tool
from ari_app.call.turns import ResponseTime
from ari_app.elevenlabs import AgentClient, AgentClose, AgentConnection, CloseKind, Initiation
from ari_app.errors import AgentError
from audiosocket import AudioSocketServer, LineFormat

log = structlog.get_logger(__name__)

_JOIN_SECONDS = 5.0
# After the agent has said that it ends the call: how long it may stay silent, and how long it may
# take.
_CLOSE_QUIET_SECONDS = 1.5
_CLOSE_LIMIT_SECONDS = 20.0
# Sound that comes before the line is known to be ready; a greeting is far shorter.
_MAX_TRANSCRIPT = 500
# Every other close means that the agent was lost.
_CLOSE_STATUS = {
    CloseKind.AGENT_ENDED: Status.COMPLETED,
    CloseKind.MAX_DURATION: Status.TIMEOUT,
}


class SessionObserver:
    """Who wants to know how a call goes: metrics, the live transcript of the demo.

    A class that derives from it need only have the methods that it wants.
    """

    def call_changed(self, session: CallSession, state: State) -> None:
        """The call has reached ``state``."""

    def call_said(self, session: CallSession, line: TranscriptLine) -> None:
        """One side said something, or the agent was interrupted."""

    def call_responded(self, session: CallSession, response: ResponseTime) -> None:
        """The agent begins to answer what the caller said."""

    def agent_connected(self, session: CallSession, seconds: float) -> None:
        """The agent is ready, so long after the call's start."""

    def agent_closed(self, session: CallSession, close: AgentClose) -> None:
        """The agent's socket has closed."""


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """Something that was said.

    Attributes:
        at_seconds: Since the call entered the application.
        who: ``agent``, ``caller``, ``interruption``, ``correction`` or ``tool``.
        text: The words.
    """

    at_seconds: float
    who: str
    text: str


@dataclass(frozen=True, slots=True)
class Services:
    """What every call uses."""

    ari: Client
    lines: AudioSocketServer
    agents: AgentClient
    app: str
    audiosocket_target: str
    observer: SessionObserver


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What is decided about a call before it starts.

    Attributes:
        agent_id: The agent to talk with.
        variables: Dynamic variables for it.
        line_format: What is spoken on the line.
        recording_path: Where both sides are written to; None does not record.
    """

    agent_id: str
    variables: Mapping[str, str | int | float | bool]
    line_format: LineFormat
    call_timeout_seconds: float
    connect_timeout_seconds: float
    uplink_chunk_ms: int
    recording_path: Path | None = None


class CallSession:
    """One call.

    Attributes:
        session_id: Ours; ``AGENT_SESSION_ID`` in the dialplan.
        call_id: The caller's channel.
        media_id, bridge_id: The resources in Asterisk that belong to this call, named before they
            are made.
    """

    def __init__(
        self,
        services: Services,
        plan: CallPlan,
        channel: Channel,
        *,
        session_id: str,
    ) -> None:
        self.session_id = session_id
        self.call_id = channel.id
        self.agent_id = plan.agent_id
        self.line_format = plan.line_format.name
        self.caller_number = channel.caller.number
        self.called_number = channel.dialplan.exten
        self.media_id = media_channel_id(services.app, self.session_id)
        self.bridge_id = bridge_id(services.app, self.session_id)
        self.started_at = datetime.now(UTC)
        self.ended_at: datetime | None = None
        self.answered_at: datetime | None = None
        self.conversation_id = ""
        self.transcript: deque[TranscriptLine] = deque(maxlen=_MAX_TRANSCRIPT)
        self.interruptions = 0
        self.agent: AgentConnection | None = None
        self.streamer: ConversationStreamer | None = None
        self.caller_hung_up = False
        self.ended = asyncio.Event()

        self._services = services
        self._plan = plan
        self._machine = CallMachine()
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._duration: float | None = None
        self._events: deque[Event] = deque()
        self._handling = False
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._making: list[asyncio.Task[None]] = []
        self._dialling: asyncio.Task[None] | None = None
        self._uuid = uuid.uuid4()
        self._last_agent_audio = 0.0
        self._close_deadline = 0.0
        self.audio_interface = LineAudio(
            plan.line_format,
            chunk_ms=plan.uplink_chunk_ms,
            on_lost=lambda reason: self.post(MediaLost(f"line_{reason}")),
            on_response=self._responded,
        )
        self._log = log.bind(session=self.session_id, call=self.call_id)

    # --- what others see

    @property
    def state(self) -> State:
        """Where the call is."""
        return self._machine.state

    @property
    def status(self) -> str:
        """``initializing``, ``active`` or ``ended``."""
        match self.state:
            case State.NEW | State.CONNECTING | State.JOINING:
                return "initializing"
            case State.ENDED:
                return "ended"
            case _:
                return "active"

    @property
    def counts(self) -> bool:
        """Whether the call holds an agent or is about to: it counts against the limit."""
        return self.state not in (State.NEW, State.RELEASING, State.ENDED)

    @property
    def held(self) -> Held:
        """What the call holds in Asterisk."""
        over = self.state in (State.RELEASING, State.ENDED)
        joined = self.state in (State.JOINING, State.TALKING, State.CLOSING, State.DRAINING)
        return Held(
            self.session_id,
            caller=self.call_id,
            media=self.media_id,
            bridge=self.bridge_id,
            caller_expected=not over,
            media_expected=joined,
        )

    @property
    def outcome(self) -> Outcome | None:
        """How the call ended, once that is decided."""
        return self._machine.outcome

    def duration(self) -> float:
        """Seconds from entering the application to the end, or to now."""
        return self._loop.time() - self._started if self._duration is None else self._duration

    # --- events

    def post(self, event: Event) -> None:
        """Feed one event to the machine and carry out what it asks for, in order."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                before = self._machine.state
                effects = self._machine.handle(self._events.popleft())
                for effect in effects:
                    self._carry_out(effect)
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
            case ConnectAgent():
                self._dialling = self._spawn(self._connect_agent())
            case MakeBridge():
                made = bridges.create_with_id(
                    self.bridge_id, type="mixing", name=f"{self._services.app} {self.session_id}"
                )
                self._request(made, then=BridgeMade(), making=True)
            case OpenMedia():
                self._request(self._open_media(), making=True)
            case JoinMedia():
                self._request(bridges.add_channel(self.bridge_id, self.media_id))
            case AnswerCaller():
                self._request(channels.answer(self.call_id), then=CallerAnswered())
            case JoinCaller():
                self._request(bridges.add_channel(self.bridge_id, self.call_id))
            case StartAudio():
                self._start_audio()
            case PlayOut():
                self._spawn(self._play_out())
            case SetTimer(timer):
                self._set_timer(timer, self._seconds(timer))
            case CancelTimer(timer):
                if handle := self._timers.pop(timer, None):
                    handle.cancel()
            case Release(outcome, caller_present):
                self._spawn(self._release(outcome, caller_present))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("call_task_failed", exc_info=error)
            if self.state not in (State.RELEASING, State.ENDED):
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

        task = self._spawn(run())
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

    async def _connect_agent(self) -> None:
        try:
            agent = await self._services.agents.connect(
                self.agent_id,
                Initiation(dynamic_variables=dict(self._plan.variables)),
                handler=self,
            )
        except AgentError as error:
            self._log.warning("agent_not_reached", code=error.code, error=str(error))
            self.post(AgentFailed(error.code))
            return
        self.agent = agent
        self.streamer = ConversationStreamer(self.audio_interface, agent)
        self.conversation_id = agent.conversation_id
        self._log.info(
            "agent_connected",
            conversation=agent.conversation_id,
            hears=agent.input_format,
            speaks=agent.output_format,
        )
        self._services.observer.agent_connected(self, self.duration())
        self.post(AgentReady())

    def _start_audio(self) -> None:
        self.answered_at = datetime.now(UTC)
        audio, plan = self.audio_interface, self._plan
        if plan.recording_path is not None:
            audio.recorder = StereoRecorder(plan.recording_path, audio.rate_hz, self._loop.time())
        assert self.streamer is not None, "the agent was ready before the caller could join"
        self._spawn(self.streamer.run())

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

    # --- timers

    def _seconds(self, timer: Timer) -> float:
        match timer:
            case Timer.CALL:
                return self._plan.call_timeout_seconds
            case Timer.CONNECT:
                return self._plan.connect_timeout_seconds
            case Timer.JOIN:
                return _JOIN_SECONDS
            case Timer.CLOSE:
                self._close_deadline = self._loop.time() + _CLOSE_LIMIT_SECONDS
                return _CLOSE_QUIET_SECONDS

    def _set_timer(self, timer: Timer, seconds: float) -> None:
        if handle := self._timers.pop(timer, None):
            handle.cancel()
        self._timers[timer] = self._loop.call_later(seconds, self._timer_fired, timer)

    def _timer_fired(self, timer: Timer) -> None:
        self._timers.pop(timer, None)
        if timer is Timer.CLOSE and (left := self._still_speaking()) > 0:
            self._set_timer(timer, left)
            return
        self.post(TimerFired(timer))

    def _still_speaking(self) -> float:
        """Seconds until the agent, who wants to end, counts as silent; 0 when it is."""
        now = self._loop.time()
        if now >= self._close_deadline:
            return 0.0
        queued = self.audio_interface.playout.pending_ms / 1000
        quiet = max(self._last_agent_audio, now) if queued else self._last_agent_audio
        return min(
            max(0.0, quiet + queued + _CLOSE_QUIET_SECONDS - now), self._close_deadline - now
        )

    # --- ari_app.elevenlabs.AgentHandler

    def audio(self, event_id: int, data: bytes, is_final: bool) -> None:
        """A piece of a response."""
        self._last_agent_audio = self._loop.time()
        if self.streamer is not None:
            self.streamer.agent_audio(event_id, data, is_final=is_final)

    def interruption(self, event_id: int) -> None:
        """The caller has interrupted the agent."""
        self.interruptions += 1
        if self.streamer is not None:
            cleared = self.streamer.interrupt()
            self._say(
                "interruption",
                f"after {cleared.heard_ms:.0f} ms, {cleared.dropped_ms:.0f} ms unheard",
            )

    def response_complete(self, event_id: int | None) -> None:
        """All of a response has been received."""
        if self.streamer is not None:
            self.streamer.response_complete()

    def user_transcript(self, text: str, event_id: int | None) -> None:
        """What the caller said."""
        self._say("caller", text)

    def agent_response(self, text: str, event_id: int | None) -> None:
        """What the agent says."""
        self._say("agent", text)

    def agent_response_correction(
        self, original: str, corrected: str, event_id: int | None
    ) -> None:
        """What the agent has really said before it was interrupted."""
        self._say("correction", corrected)

    def tool_call(
        self, name: str, call_id: str, parameters: dict[str, Any], expects_response: bool
    ) -> None:
        """The agent calls one of our tools."""
        answer = call_tool(name, parameters)
        self._say("tool", f"{name}: {answer.text}")
        if expects_response and self.agent is not None:
            self.agent.send_tool_result(call_id, answer.text, is_error=answer.is_error)
        if answer.ends_with is not None:
            self.post(AgentEnding(answer.ends_with))

    def tool_response(self, name: str, call_id: str, status: str, is_error: bool) -> None:
        """One of ElevenLabs' own tools has run."""
        if name == "end_call" and status == "success":
            self.post(AgentEnding(Outcome(Status.COMPLETED, "agent_ended")))

    def other(self, message: object) -> None:
        """Messages that do not concern the call."""

    def closed(self, reason: AgentClose) -> None:
        """The agent's socket has closed."""
        self._services.observer.agent_closed(self, reason)
        status = _CLOSE_STATUS.get(reason.kind, Status.FAILED)
        self.post(AgentClosed(Outcome(status, reason.kind.value)))

    def _responded(self, response: ResponseTime) -> None:
        self._services.observer.call_responded(self, response)

    def _say(self, who: str, text: str) -> None:
        line = TranscriptLine(round(self.duration(), 3), who, text)
        self.transcript.append(line)
        self._services.observer.call_said(self, line)

    # --- the way out

    async def _release(self, outcome: Outcome, caller_present: bool) -> None:
        """Give everything back; each part for itself, so that one that fails holds up no other."""
        # The line goes first: a thread of Asterisk's that waits for our next frame holds the
        # channel's lock, and the requests below would wait with it (asterisk#2078).
        self.audio_interface.hang_up()
        self._services.lines.forget(self._uuid)
        parts: list[Coroutine[Any, Any, object]] = [
            self._close_agent(),
            self._remove_resources(),
            self._finish_recording(),
        ]
        if caller_present:
            parts.append(
                give_back_caller(
                    self._services.ari,
                    self.call_id,
                    outcome,
                    session_id=self.session_id,
                    conversation_id=self.conversation_id,
                )
            )
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

    async def _stop_tasks(self) -> None:
        """Give up requests that nobody needs an answer to any more."""
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    async def _close_agent(self) -> None:
        if self._dialling is not None and not self._dialling.done():
            self._dialling.cancel()
            await asyncio.wait([self._dialling])
        if self.agent is not None:
            await self.agent.close()

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
