"""The agent's side of one call: its connection, what it says and hears, and its tools."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

import structlog

from ari_app.call import resume
from ari_app.call.attention import Attention
from ari_app.call.line_audio import LineAudio
from ari_app.call.observer import TranscriptLine
from ari_app.call.policy import CallPolicy
from ari_app.call.signals import (
    AgentClosed,
    AgentEnding,
    AgentFailed,
    AgentLost,
    AgentReady,
    AgentResumed,
    Event,
    HoldRequested,
    Outcome,
    Status,
)
from ari_app.call.speech import QUIET_SECONDS, AgentSpeech
from ari_app.call.states import State
from ari_app.call.tool_runner import MAX_RUNNING, TOO_MANY, ToolRunner
from ari_app.call.tools import ToolAnswer
from ari_app.elevenlabs import AgentClient, AgentClose, AgentConnection, CloseKind, Initiation
from ari_app.elevenlabs.errors import AgentRefused
from ari_app.elevenlabs.tool_messages import AgentToolRequest
from ari_app.errors import AgentError

log = structlog.get_logger(__name__)

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
# Every other close means that the agent was lost.
_CLOSE_STATUS = {
    CloseKind.AGENT_ENDED: Status.COMPLETED,
    CloseKind.MAX_DURATION: Status.TIMEOUT,
}
# As much of a tool's name as the agent is told back.
_NAME_CHARACTERS = 64
_NOT_ANSWERED = "(The caller has spoken, and hears no answer. Please answer now.)"


class OfAgent(Protocol):
    """What the agent's side needs of its call."""

    @property
    def state(self) -> State:
        """Where the call is."""
        ...

    @property
    def on_hold(self) -> bool:
        """Whether the caller's phone has put us on hold."""
        ...

    @property
    def conversation_id(self) -> str:
        """The last agent's conversation."""
        ...

    @property
    def transcript(self) -> Iterable[TranscriptLine]:
        """What was said so far."""
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

    def agent_not_reached(self, code: str) -> None:
        """No conversation came about."""
        ...


class AgentSide:
    """An :class:`~ari_app.elevenlabs.AgentHandler`, and all that belongs to it.

    Args:
        call: The call.
        audio: Its line.
        policy: Whether a lost agent is replaced, and how long one may be silent.
        has_phrase: There is a phrase to cover the gap that a lost agent leaves.

    Attributes:
        speech: When it speaks.
        connection: The conversation, once the agent is there.
        interruptions: How often the caller interrupted.
        waited_seconds: How long nothing had come from a lost agent before that was found.
    """

    def __init__(
        self, call: OfAgent, audio: LineAudio, policy: CallPolicy, *, has_phrase: bool
    ) -> None:
        self._call = call
        self._audio = audio
        self._policy = policy
        self._has_phrase = has_phrase
        self._dialling: asyncio.Task[None] | None = None
        self._patience: asyncio.Task[None] | None = None
        self._waits_for_silence: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._too_many_told = False
        self._holds = False
        self.speech = AgentSpeech(audio)
        self._attention = Attention(audio, self.speech, policy.silence_timeout_seconds)
        self.waited_seconds = 0.0
        self.tools: ToolRunner | None = None
        self.connection: AgentConnection | None = None
        self.interruptions = 0

    # --- life

    def dial(self, agents: AgentClient, agent_id: str, initiation: Initiation) -> None:
        """Begin the conversation; AgentReady or AgentFailed follows."""
        self._dialling = self._call.spawn(self._connect(agents, agent_id, initiation))

    def dial_again(self, agents: AgentClient, agent_id: str, initiation: Initiation) -> None:
        """Begin another one in place of the lost one, whose words the caller has heard."""
        self._dialling = self._call.spawn(self._reconnect(agents, agent_id, initiation))

    async def _connect(self, agents: AgentClient, agent_id: str, initiation: Initiation) -> None:
        try:
            connection = await agents.connect(agent_id, initiation, handler=self)
        except AgentError as error:
            self._not_reached(error)
        else:
            self._begin(connection)
            self._call.post(AgentReady())

    async def _reconnect(self, agents: AgentClient, agent_id: str, initiation: Initiation) -> None:
        said = resume.transcript_text(self._call.transcript)
        lost = self._call.conversation_id
        first_message: str | None = self._policy.resume_message
        try:
            try:
                told = resume.initiation_for(initiation, said, lost, first_message)
                connection = await agents.connect(agent_id, told, handler=self)
            except AgentRefused as error:
                if error.close.kind is not CloseKind.OVERRIDE_ERROR:
                    raise
                log.warning("agent_allows_no_first_message", agent=agent_id)
                first_message = None
                told = resume.initiation_for(initiation, said, lost, None)
                connection = await agents.connect(agent_id, told, handler=self)
        except AgentError as error:
            self._not_reached(error)
            return
        self._begin(connection)
        connection.send_contextual_update(resume.context(said), context_id="resumed")
        self._call.post(AgentReady())
        if first_message == "":
            self.prompt()

    def _not_reached(self, error: AgentError) -> None:
        log.warning("agent_not_reached", code=error.code, error=str(error))
        self._call.agent_not_reached(error.code)
        self._call.post(AgentFailed(error.code))

    def _begin(self, connection: AgentConnection) -> None:
        self.connection = connection
        self.speech.carry(connection)
        self._call.agent_is_there()
        self._patience = self._call.spawn(self._be_patient(connection))

    def prompt(self) -> None:
        """Ask an agent that has taken a lost one's place to go on."""
        if self.connection is not None:
            self.connection.send_user_message(resume.GO_ON)

    async def close(self) -> None:
        """End the conversation, also one that is being begun."""
        own = (self._dialling, self._patience, self._waits_for_silence, *self._running)
        # A task that was cancelled keeps the frames in which it was, and they keep this.
        self._dialling = self._patience = self._waits_for_silence = None
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

    # --- silence

    async def attend(self) -> None:
        """See to it that the caller is answered, for as long as the call lasts."""
        await self._attention.watch(excused=self._silence_is_excused, tell=self._tell_to_answer)
        self._call.post(AgentFailed("agent_silent"))

    def _silence_is_excused(self) -> bool:
        call = self._call
        return call.state is not State.TALKING or call.on_hold or bool(self._running)

    def _tell_to_answer(self) -> None:
        log.warning("agent_silent", conversation=self._call.conversation_id)
        self._call.say("note", "the agent does not answer, and is told so")
        if self.connection is not None:
            self.connection.send_user_message(_NOT_ANSWERED)

    def hold_when_silent(self) -> None:
        """Give the caller music once the agent is silent, until it speaks again."""
        if self._waits_for_silence is None or self._waits_for_silence.done():
            self._waits_for_silence = self._call.spawn(self._hold_when_silent())

    async def _hold_when_silent(self) -> None:
        # What the agent says about the tool's result is still for the caller.
        self.speech.will_speak()
        await self.speech.silent(QUIET_SECONDS)
        self._holds = True
        self._call.post(HoldRequested(on=True))

    # --- ari_app.elevenlabs.AgentHandler

    def audio(self, event_id: int, data: bytes, is_final: bool) -> None:
        """A piece of a response."""
        match self._call.state:
            case State.HOLDING if self._holds:
                self._holds = False
                back: Event = HoldRequested(on=False)
            case State.RECOVERING:
                back = AgentResumed()
            case _:
                self.speech.take(event_id, data, is_final)
                return
        self.speech.take(event_id, data, is_final, keep=True)
        self._call.post(back)

    def interruption(self, event_id: int) -> None:
        """The caller has interrupted the agent."""
        self.interruptions += 1
        cleared = self.speech.interrupt()
        if cleared is not None:
            self._call.say(
                "interruption",
                f"after {cleared.heard_ms:.0f} ms, {cleared.dropped_ms:.0f} ms unheard",
            )

    def response_complete(self, event_id: int | None) -> None:
        """All of a response has been received."""
        self.speech.end_response()

    def user_transcript(self, text: str, event_id: int | None) -> None:
        """What the caller said."""
        self.speech.somebody_spoke()
        self._attention.caller_said()
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
        if len(self._running) >= MAX_RUNNING:
            # Thousands may come at once. Each is answered, and the transcript tells of the first.
            if not self._too_many_told:
                self._too_many_told = True
                self._note_tool(name, TOO_MANY)
            if expects_response and self.connection is not None:
                self.connection.send_tool_result(call_id, TOO_MANY.text, is_error=True)
            return
        self._too_many_told = False
        task = self._call.spawn(self._run_tool(name, call_id, parameters, expects_response))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_tool(
        self, name: str, call_id: str, parameters: dict[str, Any], expects_response: bool
    ) -> None:
        assert self.tools is not None, "a call has its tools before its agent"
        asked_by = self.connection
        answer = await self.tools.run(name, parameters)
        self._note_tool(name, answer)
        # An agent that has come in the place of the one that asked knows nothing of it.
        if expects_response and asked_by is not None:
            asked_by.send_tool_result(call_id, answer.text, is_error=answer.is_error)
        if answer.ends_with is not None:
            self._call.post(AgentEnding(answer.ends_with))

    def _note_tool(self, name: str, answer: ToolAnswer) -> None:
        self._call.say("tool", f"{name[:_NAME_CHARACTERS]}: {answer.text}")

    def tool_response(self, name: str, call_id: str, status: str, is_error: bool) -> None:
        """One of ElevenLabs' own tools has run."""
        self._attention.tool_ended(call_id, name)
        if name == "end_call" and status == "success":
            self._call.post(AgentEnding(Outcome(Status.COMPLETED, "agent_ended")))

    def other(self, message: object) -> None:
        """Messages that have no call of their own: of them, only that a tool of theirs runs."""
        if isinstance(message, AgentToolRequest):
            self._attention.tool_begins(message.tool_call_id, message.response_timeout_secs)

    def closed(self, reason: AgentClose) -> None:
        """The agent's socket has closed."""
        self._call.agent_is_gone(reason)
        status = _CLOSE_STATUS.get(reason.kind, Status.FAILED)
        outcome = Outcome(status, reason.kind.value)
        if reason.retryable and self._policy.replace_lost_agent:
            self._forget()
            self._call.post(AgentLost(outcome, phrase=self._has_phrase))
        else:
            self._call.post(AgentClosed(outcome))

    def _forget(self) -> None:
        """Drop what was true of the lost agent only."""
        if self.connection is not None:
            self.waited_seconds = self.connection.dead_seconds
        if self._waits_for_silence is not None:
            self._waits_for_silence.cancel()
        self._holds = False
        self._attention.forget()
        self._audio.hearing.forget()
        self.speech.end_response()
