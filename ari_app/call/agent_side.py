"""The agent's side of one call: its connection, what it says and hears, and its tools."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

import structlog

from ari_app.call.line_audio import LineAudio
from ari_app.call.signals import (
    AgentClosed,
    AgentEnding,
    AgentFailed,
    AgentReady,
    Event,
    HoldRequested,
    Outcome,
    Status,
)
from ari_app.call.states import State
from ari_app.call.streamer import ConversationStreamer
from ari_app.call.tool_runner import ToolRunner
from ari_app.elevenlabs import AgentClient, AgentClose, AgentConnection, CloseKind, Initiation
from ari_app.errors import AgentError

log = structlog.get_logger(__name__)

# After the agent has said that it ends the call: how long it may stay silent, and how long it may
# take.
_QUIET_SECONDS = 1.5
_QUIET_LIMIT_SECONDS = 20.0
# Between two pieces of one sentence.
_SENTENCE_SECONDS = 0.4
# ElevenLabs lets an agent ask "are you there?" after 7 s by default; it shall not while it cannot
# be heard.
_PATIENCE_SECONDS = 3.0
_NOT_HEARD = frozenset(
    {
        State.RINGING,
        State.CONNECTING,
        State.JOINING,
        State.GREETING,
        State.HOLDING,
        State.CONSULTING,
    }
)
_MAX_HELD_CHUNKS = 500
# Every other close means that the agent was lost.
_CLOSE_STATUS = {
    CloseKind.AGENT_ENDED: Status.COMPLETED,
    CloseKind.MAX_DURATION: Status.TIMEOUT,
}


class OfAgent(Protocol):
    """What the agent's side needs of its call."""

    @property
    def state(self) -> State:
        """Where the call is."""
        ...

    def post(self, event: Event) -> None:
        """Feed the machine."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task that the call waits for."""
        ...

    def say(self, who: str, text: str) -> None:
        """Add to the transcript."""
        ...

    def agent_is_there(self) -> None:
        """The agent is ready."""
        ...

    def agent_is_gone(self, close: AgentClose) -> None:
        """The agent's socket has closed."""
        ...


class AgentSide:
    """An :class:`~ari_app.elevenlabs.AgentHandler`, and all that belongs to it.

    Attributes:
        connection: The conversation, once the agent is there.
        streamer: Carries its sound.
        interruptions: How often the caller interrupted.
        last_speech: When somebody said something; on the loop's clock.
    """

    def __init__(self, call: OfAgent, audio: LineAudio) -> None:
        self._call = call
        self._audio = audio
        self._loop = asyncio.get_running_loop()
        self._dialling: asyncio.Task[None] | None = None
        self._patience: asyncio.Task[None] | None = None
        self._waits_for_silence: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._last_audio = self._heard_until = 0.0
        self._quiet_deadline = 0.0
        self._holds = False
        self._kept: deque[tuple[int, bytes, bool]] = deque(maxlen=_MAX_HELD_CHUNKS)
        self.tools: ToolRunner | None = None
        self.connection: AgentConnection | None = None
        self.streamer: ConversationStreamer | None = None
        self.interruptions = 0
        self.last_speech = self._loop.time()

    # --- life

    def dial(self, agents: AgentClient, agent_id: str, initiation: Initiation) -> None:
        """Begin the conversation; AgentReady or AgentFailed follows."""
        self._dialling = self._call.spawn(self._connect(agents, agent_id, initiation))

    async def _connect(self, agents: AgentClient, agent_id: str, initiation: Initiation) -> None:
        try:
            connection = await agents.connect(agent_id, initiation, handler=self)
        except AgentError as error:
            log.warning("agent_not_reached", code=error.code, error=str(error))
            self._call.post(AgentFailed(error.code))
            return
        self.connection = connection
        self.streamer = ConversationStreamer(self._audio, connection)
        self._call.agent_is_there()
        self._patience = self._call.spawn(self._be_patient(connection))
        self._call.post(AgentReady())

    async def close(self) -> None:
        """End the conversation, also one that is being begun."""
        own = (self._dialling, self._patience, self._waits_for_silence, *self._running)
        tasks = [task for task in own if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self.connection is not None:
            await self.connection.close()

    async def _be_patient(self, connection: AgentConnection) -> None:
        while connection.is_open:
            await asyncio.sleep(_PATIENCE_SECONDS)
            if self._call.state in _NOT_HEARD:
                connection.send_user_activity()

    # --- speech

    def begin_quiet(self) -> float:
        """Start to wait for the agent's silence; seconds until the first look."""
        self._quiet_deadline = self._loop.time() + _QUIET_LIMIT_SECONDS
        return _QUIET_SECONDS

    def still_speaking(self) -> float:
        """Seconds until the agent, who wants to end, counts as silent; 0 when it is."""
        now = self._loop.time()
        if now >= self._quiet_deadline:
            return 0.0
        return min(self._silent_in(_QUIET_SECONDS), self._quiet_deadline - now)

    def somebody_spoke(self) -> None:
        """Take note that somebody has said something just now, in whichever way."""
        self.last_speech = self._loop.time()

    def silent_for(self) -> float:
        """Seconds since anybody has said something."""
        heard = (self._heard_until, self.last_speech, self._audio.turns.last_speech_at)
        return max(0.0, self._loop.time() - max(heard))

    async def silent(self, quiet_seconds: float = _SENTENCE_SECONDS) -> None:
        """Wait until all that the agent said has been heard, for 20 s at most."""
        deadline = self._loop.time() + _QUIET_LIMIT_SECONDS
        while (left := self._silent_in(quiet_seconds)) > 0 and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(left)

    def _silent_in(self, quiet_seconds: float) -> float:
        now = self._loop.time()
        queued = self._audio.playout.pending_ms / 1000
        quiet = max(self._last_audio, now) if queued else self._last_audio
        return max(0.0, quiet + queued + quiet_seconds - now)

    def hold_when_silent(self) -> None:
        """Give the caller music once the agent is silent, until it speaks again."""
        if self._waits_for_silence is None or self._waits_for_silence.done():
            self._waits_for_silence = self._call.spawn(self._hold_when_silent())

    async def _hold_when_silent(self) -> None:
        # What the agent says about the tool's result is still for the caller.
        self._last_audio = max(self._last_audio, self._loop.time())
        await self.silent(_QUIET_SECONDS)
        self._holds = True
        self._call.post(HoldRequested(on=True))

    def caller_joined(self) -> None:
        """The caller is in the bridge: what was kept for them is heard now."""
        kept, self._kept = self._kept, deque(maxlen=_MAX_HELD_CHUNKS)
        for event_id, data, is_final in kept:
            self._play(event_id, data, is_final)

    def _play(self, event_id: int, data: bytes, is_final: bool) -> None:
        if self.streamer is not None:
            self.streamer.agent_audio(event_id, data, is_final=is_final)
            self._heard_until = self._loop.time() + self._audio.playout.pending_ms / 1000

    # --- ari_app.elevenlabs.AgentHandler

    def audio(self, event_id: int, data: bytes, is_final: bool) -> None:
        """A piece of a response."""
        self._last_audio = self._loop.time()
        if self._holds and self._call.state is State.HOLDING:
            self._holds = False
            self._kept.append((event_id, data, is_final))
            self._call.post(HoldRequested(on=False))
        elif self._kept:
            self._kept.append((event_id, data, is_final))
        else:
            self._play(event_id, data, is_final)

    def interruption(self, event_id: int) -> None:
        """The caller has interrupted the agent."""
        self.interruptions += 1
        self.last_speech = self._heard_until = self._loop.time()
        self._kept.clear()
        if self.streamer is not None:
            cleared = self.streamer.interrupt()
            self._call.say(
                "interruption",
                f"after {cleared.heard_ms:.0f} ms, {cleared.dropped_ms:.0f} ms unheard",
            )

    def response_complete(self, event_id: int | None) -> None:
        """All of a response has been received."""
        if self.streamer is not None:
            self.streamer.response_complete()

    def user_transcript(self, text: str, event_id: int | None) -> None:
        """What the caller said."""
        self.last_speech = self._loop.time()
        self._call.say("caller", text)

    def agent_response(self, text: str, event_id: int | None) -> None:
        """What the agent says."""
        self._call.say("agent", text)

    def agent_response_correction(
        self, original: str, corrected: str, event_id: int | None
    ) -> None:
        """What the agent has really said before it was interrupted."""
        self._call.say("correction", corrected)

    def tool_call(
        self, name: str, call_id: str, parameters: dict[str, Any], expects_response: bool
    ) -> None:
        """The agent calls one of our tools."""
        task = self._call.spawn(self._run_tool(name, call_id, parameters, expects_response))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_tool(
        self, name: str, call_id: str, parameters: dict[str, Any], expects_response: bool
    ) -> None:
        assert self.tools is not None, "a call has its tools before its agent"
        answer = await self.tools.run(name, parameters)
        self._call.say("tool", f"{name}: {answer.text}")
        if expects_response and self.connection is not None:
            self.connection.send_tool_result(call_id, answer.text, is_error=answer.is_error)
        if answer.ends_with is not None:
            self._call.post(AgentEnding(answer.ends_with))

    def tool_response(self, name: str, call_id: str, status: str, is_error: bool) -> None:
        """One of ElevenLabs' own tools has run."""
        if name == "end_call" and status == "success":
            self._call.post(AgentEnding(Outcome(Status.COMPLETED, "agent_ended")))

    def other(self, message: object) -> None:
        """Messages that do not concern the call."""

    def closed(self, reason: AgentClose) -> None:
        """The agent's socket has closed."""
        self._call.agent_is_gone(reason)
        status = _CLOSE_STATUS.get(reason.kind, Status.FAILED)
        self._call.post(AgentClosed(Outcome(status, reason.kind.value)))
