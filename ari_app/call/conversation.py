"""The agent's side of one call: its conversations, one after the other, and its tools."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Final

import structlog

from ari_app.agent.interface import (
    AgentCorrected,
    AgentEvent,
    Agents,
    AgentSaid,
    Briefing,
    CallerSaid,
    Closed,
    Conversation,
    EndedBy,
    Ending,
    Interrupted,
    ResponseComplete,
    Resumed,
    Spoke,
    TheirToolBegan,
    TheirToolEnded,
    ToolCalled,
)
from ari_app.call.attention import Attention
from ari_app.call.context import CallContext
from ari_app.call.resume import (
    GO_ON,
    colleague_spoke,
    go_on_after_colleague,
    transcript_text,
    what_was_said,
)
from ari_app.call.signals import (
    AgentClosed,
    AgentEnding,
    AgentFailed,
    AgentLost,
    AgentReady,
    AgentResumed,
    Event,
    HoldRequested,
)
from ari_app.call.sound import CallSound
from ari_app.call.speech import QUIET_SECONDS, AgentSpeech
from ari_app.call.states import State
from ari_app.call.tools import MAX_RUNNING, TOO_MANY, ToolRunner
from ari_app.errors import AgentError
from ari_app.line.interface import Outcome, Status
from ari_app.process.beat import seconds_to_beat
from ari_app.records import events
from ari_app.records.bounded import shortened
from ari_app.records.events import (
    AgentConnected,
    AgentNotReached,
    CallerInterrupted,
    Noted,
    Said,
    ToolRan,
    bounded_arguments,
)
from ari_app.records.trace import headers_of
from ari_app.tools.tool import ToolAnswer

log = structlog.get_logger(__name__)

# An agent may ask "are you there?" after a few seconds of silence (by default after 7 s); it shall
# not while it cannot be heard.
_PATIENCE_SECONDS = 3.0
_NOT_HEARD = frozenset(
    {
        State.RINGING,
        State.CONNECTING,
        State.JOINING,
        State.GREETING,
        State.HOLDING,
        State.CONSULTING,
        State.TAKEN_OVER,
    }
)
_STATUS = {EndedBy.AGENT: Status.COMPLETED, EndedBy.TIME: Status.TIMEOUT}
"""How a call ends with its agent; a lost one has `FAILED` it."""
# As much of a tool's name as the agent is told back.
_NAME_CHARACTERS = 64
HELD_BY_PHONE: Final = "The caller has put you on hold and hears nothing until they come back."
_ASKED_BEFORE: Final = (
    "A tool that was asked for before the connection was lost has ended only now. {name}: {result}"
)
_CUT_OFF: Final = ToolAnswer(
    "The call ended before there was a result; it may have been done all the same.", is_error=True
)
_NOT_ANSWERED = "(The caller has spoken, and hears no answer. Please answer now.)"


class AgentSide:
    """The agent's side of one call: its conversations, what it says, its tools.

    Args:
        context: What the parts of the call share.
        sound: The call's sound.
        tools: Runs the tools; it is given what it needs of this.
        has_phrase: There is a phrase to cover the gap that a lost agent leaves.

    Attributes:
        speech: When it speaks.
        waited_seconds: How long nothing had come from a lost agent before that was found.
    """

    def __init__(
        self, context: CallContext, sound: CallSound, tools: ToolRunner, *, has_phrase: bool
    ) -> None:
        self._context = context
        self._sound = sound
        self._tools = tools
        self._has_phrase = has_phrase
        self._conversation: Conversation | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._patience: asyncio.Task[None] | None = None
        self._waits_for_silence: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._too_many_told = False
        self._holds = False
        self._go_on, self._colleague = GO_ON, ""
        self._for_the_next = ""
        self._not_heard_up_to: int | None = None
        self._last_spoke: int | None = None
        # It takes a lost one's place, and has said nothing yet.
        self._is_new = False
        self.speech = AgentSpeech(sound, context.record)
        self._not_sent_ms = 0.0
        self._attention = Attention(sound, self.speech, context.policy.silence_timeout_seconds)
        self.waited_seconds = 0.0

    # --- life

    def dial(self, agents: Agents, briefing: Briefing) -> None:
        """Begin the conversation; AgentReady or AgentFailed follows."""
        self._dialling = self._context.spawn(self._connect(agents, briefing))

    def replace(self, agents: Agents, briefing: Briefing, *, heard: bool) -> None:
        """Begin another conversation in place of a lost one; AgentReady or AgentFailed follows.

        Args:
            agents, briefing: As for `dial`.
            heard: The caller has heard the lost agent: the new one is told what was said, and does
                not greet.
        """
        if not heard:
            # What the lost one has said is queued, and would be heard before the new greeting.
            self.speech.interrupt()
            self._context.record.chronicle.ended(self._context.duration())
            self.dial(agents, briefing)
            return
        record, policy = self._context.record, self._context.policy
        said = transcript_text(record.transcript)
        # After a colleague the line was not lost.
        first = "" if self._colleague else policy.resume_message
        resumed = Resumed(record.conversation_id, said, first)
        self._dialling = self._context.spawn(
            self._connect(agents, dataclasses.replace(briefing, resumed=resumed))
        )

    async def _connect(self, agents: Agents, briefing: Briefing) -> None:
        began = self._context.duration()
        try:
            conversation = await agents.connect(
                briefing, self._on_agent, self._context.record.tries
            )
        except AgentError as error:
            log.warning("agent_not_reached", code=error.code, error=str(error))
            self._context.note(AgentNotReached(error.code))
            self._context.took("agent", began, error.code)
            self._context.post(AgentFailed(error.code))
            return
        self._context.took("agent", began)
        self._begin(conversation)
        self._is_new = briefing.resumed is not None
        if self._is_new:
            # Keys may have been pressed while it was dialled.
            said = transcript_text(self._context.record.transcript)
            conversation.tell(what_was_said(said), about="resumed")
            if self._colleague:
                conversation.tell(self._colleague, about="take_over")
            if self._for_the_next:
                conversation.tell(self._for_the_next, about="transfer")
                self._for_the_next = ""
        self._context.post(AgentReady())
        if self._context.on_hold and self._context.state is not State.TAKEN_OVER:
            # Since before it was there.
            conversation.tell(HELD_BY_PHONE, about="hold")
        if conversation.waits and self._context.state is State.RECOVERING:
            self.prompt()

    def _begin(self, conversation: Conversation) -> None:
        context, record = self._context, self._context.record
        self._not_sent_ms = self.not_sent_ms
        self._not_heard_up_to = self._last_spoke = None
        self._conversation, self._dialling = conversation, None
        self._sound.carry(conversation)
        record.chronicle.another_agent()
        record.converses(conversation.id, context.duration())
        context.mark()
        record.agent_hears, record.agent_speaks = conversation.hears.name, conversation.speaks.name
        context.log.info(
            "agent_connected",
            conversation=conversation.id,
            hears=record.agent_hears,
            speaks=record.agent_speaks,
        )
        if context.state not in (State.RECOVERING, State.TAKEN_OVER):
            context.note(AgentConnected(conversation.id, round(context.duration(), 3)))
        self._patience = context.spawn(self._be_patient(conversation))

    @property
    def not_sent_ms(self) -> float:
        """How much of the caller's sound the agents were never sent."""
        agent = self._conversation
        if agent is None:
            return self._not_sent_ms
        return self._not_sent_ms + agent.hears.duration_ms(agent.not_sent_bytes)

    @property
    def was_there(self) -> bool:
        """Whether there has been an agent, in this process."""
        return self._conversation is not None

    @property
    def holds(self) -> bool:
        """Whether the caller hears music until the agent speaks."""
        return self._holds

    @property
    def is_there(self) -> bool:
        """Whether there is an agent that can be told something."""
        return self._conversation is not None and self._conversation.is_open

    def tell(self, text: str, *, about: str | None = None) -> None:
        """Tell the agent something to know, if there is one."""
        if self._conversation is not None:
            self._conversation.tell(text, about=about)

    def ask(self, text: str, *, keys: bool = False) -> None:
        """Say something to the agent as the caller would, if there is one."""
        if self._conversation is not None:
            self._conversation.ask(text, keys=keys)

    def tell_the_next(self, text: str) -> None:
        """Have the agent told of a transfer that comes in a lost one's place."""
        self._for_the_next = text

    def prompt(self) -> None:
        """Ask an agent that has taken a lost one's place to go on."""
        self.ask(self._go_on)

    # --- while a supervisor speaks with the caller

    def fall_silent(self) -> None:
        """Be heard no more until `speak_again`: a supervisor speaks with the caller."""
        self.speech.interrupt(by_caller=False)
        self._context.record.chronicle.silenced(self._context.duration())
        if self._waits_for_silence is not None:
            self._waits_for_silence.cancel()

    def briefs_no_more(self) -> None:
        """Let the caller, who is back, hear nothing of what a transfer's target was being told."""
        self.speech.interrupt(by_caller=False)
        self._context.record.chronicle.interrupted(self._context.duration())
        self._not_heard_up_to = self._last_spoke

    def speak_again(self, seconds: float, *, there: bool) -> None:
        """Go on with the caller.

        Args:
            seconds: How long the supervisor spoke with them.
            there: The agent is there; otherwise it is told this as soon as one is.
        """
        self._colleague = colleague_spoke(seconds)
        self._go_on = go_on_after_colleague(seconds)
        self._context.record.chronicle.heard_again()
        # What was said before is answered by now, or by nobody.
        self._sound.hearing.forget()
        self._attention.begin_anew()
        self.speech.somebody_spoke()
        if there:
            self.tell(self._colleague, about="take_over")
            self.prompt()
            self.has_resumed()

    def has_resumed(self) -> None:
        """Forget what only whoever goes on after a colleague is told."""
        self._go_on, self._colleague = GO_ON, ""

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
        if self._conversation is not None:
            await self._conversation.close()

    async def _be_patient(self, conversation: Conversation) -> None:
        while conversation.is_open:
            await asyncio.sleep(seconds_to_beat(self._context.loop_time(), _PATIENCE_SECONDS))
            if self._context.on_hold or self._context.state in _NOT_HEARD:
                conversation.still_here()

    # --- silence

    async def attend(self) -> None:
        """See to it that the caller is answered, for as long as the call lasts."""
        await self._attention.watch(excused=self._silence_is_excused, tell=self._tell_to_answer)
        self._context.post(AgentFailed("agent_silent"))

    def _silence_is_excused(self) -> bool:
        context = self._context
        return context.state is not State.TALKING or context.on_hold or bool(self._running)

    def _tell_to_answer(self) -> None:
        log.warning("agent_silent", conversation=self._context.record.conversation_id)
        self._context.say(Noted("the agent does not answer, and is told so"))
        self.ask(_NOT_ANSWERED)

    def hold_when_silent(self) -> None:
        """Give the caller music once the agent is silent, until it speaks again."""
        if self._waits_for_silence is None or self._waits_for_silence.done():
            self._waits_for_silence = self._context.spawn(self._hold_when_silent())

    async def _hold_when_silent(self) -> None:
        # What the agent says about the tool's result is still for the caller.
        self.speech.will_speak()
        await self.speech.silent(QUIET_SECONDS)
        if self._context.state is State.TALKING:
            # Otherwise somebody else holds the caller, or whoever speaks with them does not hold.
            self._holds = True
            self._context.post(HoldRequested(on=True))

    def holds_no_more(self) -> None:
        """Take note that the caller is held no more, or by somebody else: no word of the agent's
        ends that."""
        self._holds = False

    # --- what the agent tells

    def _on_agent(self, event: AgentEvent) -> None:
        say = self._context.say
        match event:
            case Spoke(event_id, data, is_final):
                self._spoke(event_id, data, is_final)
            case Interrupted() if self._is_new or self._context.state is State.TAKEN_OVER:
                pass  # nothing of it is heard
            case Interrupted(event_id):
                self._interrupted(event_id)
            case ResponseComplete():
                self.speech.end_response()
            case CallerSaid(text):
                self.speech.somebody_spoke()
                self._attention.caller_said()
                say(self._caller_said(text))
            case AgentSaid(text, event_id):
                say(Said("agent", text, event_id=event_id))
            case AgentCorrected(original, corrected):
                say(Said("correction", corrected, original=shortened(original)))
            case ToolCalled():
                self._tool_called(event)
            case TheirToolBegan(_, call_id, seconds):
                self._attention.tool_begins(call_id, seconds)
            case TheirToolEnded(name, call_id):
                self._attention.tool_ended(call_id, name)
            case Ending():
                self._context.post(AgentEnding(Outcome(Status.COMPLETED, "agent_ended")))
            case Closed():
                self._closed(event)

    def _spoke(self, event_id: int, data: bytes, is_final: bool) -> None:
        if self._not_heard_up_to is not None and event_id <= self._not_heard_up_to:
            return
        if data:
            self._is_new = False
        self._last_spoke = event_id
        match self._context.state:
            case State.TAKEN_OVER:
                # Nor is what still comes of it once the call has been given back.
                self._not_heard_up_to = event_id
                return
            # A message without sound, which may end a response, is not speech.
            case State.HOLDING if self._holds and data:
                back: Event = HoldRequested(on=False)
            case State.RECOVERING if data:
                back = AgentResumed()
            case _:
                self.speech.take(event_id, data, is_final)
                return
        self.speech.take(event_id, data, is_final, keep=True)
        self._context.post(back)

    def _caller_said(self, text: str) -> Said:
        now, began = self._context.loop_time(), self._context.record.began
        turn = self._sound.hearing.take_turn(now)
        if turn is None:
            return Said("caller", text)
        return Said("caller", text, began=turn[0] - began, until=turn[1] - began)

    def _interrupted(self, event_id: int) -> None:
        self._sound.interruptions += 1
        cleared = self.speech.interrupt()
        context = self._context
        context.record.chronicle.interrupted(context.duration(), event_id)
        context.say(
            CallerInterrupted(
                f"after {cleared.heard_ms:.0f} ms, {cleared.dropped_ms:.0f} ms unheard",
                round(cleared.heard_ms, 1),
                round(cleared.dropped_ms, 1),
            )
        )

    def _tool_called(self, call: ToolCalled) -> None:
        if len(self._running) >= MAX_RUNNING:
            # Thousands may come at once. Each is answered, and the transcript tells of the first.
            if not self._too_many_told:
                self._too_many_told = True
                self._note_tool(call, TOO_MANY)
            if call.expects_response and self._conversation is not None:
                self._conversation.answer_tool(call.call_id, TOO_MANY.text, is_error=True)
            return
        self._too_many_told = False
        task = self._context.spawn(self._run_tool(call))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_tool(self, call: ToolCalled) -> None:
        asked_by, began = self._conversation, self._context.duration()
        trace = self._context.record.trace
        step = None if trace is None else trace.child()
        answer = _CUT_OFF
        try:
            answer = await self._tools.run(
                call.name,
                call.parameters,
                silent=self.speech.silent,
                hold_when_silent=self.hold_when_silent,
                headers=headers_of(step),
            )
        finally:
            # Whatever was asked for may have been done, also where nobody waits for its end.
            span_id = "" if step is None else step.span_id
            self._note_tool(call, answer, self._context.duration() - began, span_id)
        if asked_by is not self._conversation:
            # Whoever has come in its place would ask for the same again, or speak with a transfer's
            # target as with the caller.
            name = call.name[:_NAME_CHARACTERS]
            self.tell(_ASKED_BEFORE.format(name=name, result=answer.text))
        elif call.expects_response and asked_by is not None:
            asked_by.answer_tool(call.call_id, answer.text, is_error=answer.is_error)
        if answer.ends_with is not None:
            self._context.post(AgentEnding(answer.ends_with))

    def _note_tool(
        self, call: ToolCalled, answer: ToolAnswer, seconds: float = 0.0, span_id: str = ""
    ) -> None:
        name = call.name[:_NAME_CHARACTERS]
        ran = ToolRan(
            # Before what is secret is looked for in it: an answer may be a megabyte.
            shortened(f"{name}: {answer.text}"),
            name=name,
            arguments=bounded_arguments(call.parameters),
            result=shortened(answer.text),
            is_error=answer.is_error,
            seconds=round(seconds, 3),
            span_id=span_id,
        )
        self._context.say(ran)

    def _closed(self, close: Closed) -> None:
        self._context.note(events.AgentClosed(close.code, close.reason))
        outcome = Outcome(_STATUS.get(close.by, Status.FAILED), close.reason)
        if close.retryable and self._context.policy.replace_lost_agent:
            self._forget(close)
            self._context.post(AgentLost(outcome, phrase=self._has_phrase))
        else:
            self._context.post(AgentClosed(outcome))

    def _forget(self, close: Closed) -> None:
        """Drop what was true of the lost agent only."""
        self.waited_seconds = close.silent_seconds
        if self._waits_for_silence is not None:
            self._waits_for_silence.cancel()
        self._attention.forget()
        self._sound.hearing.forget()
        self.speech.end_response()
