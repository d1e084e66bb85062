"""Who has the floor: the caller's turns, the agent's answers, barge-in. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from lab.practice_agent import server_messages as messages
from lab.practice_agent.client_messages import ToolResult
from lab.practice_agent.dialogue import Dialogue, Variable
from lab.practice_agent.mouth import Mouth
from lab.practice_agent.outbox import Outbox
from lab.practice_agent.profile import AgentProfile, ClientEvent
from lab.practice_agent.record import ConversationRecord
from lab.practice_agent.script import CallTool, EndCall, Say, Script, Step
from lab.practice_agent.tools import ToolDesk


@dataclass(frozen=True, slots=True)
class CallerTurn:
    """Something to answer. ``seconds`` is None for text and keys."""

    seconds: float | None


class TurnTaker:
    """Carries out the dialogue's steps one after another, and yields to the caller.

    While a tool runs, or while barge-in is switched off and the agent still speaks, a turn of
    the caller's is put off; only the last one is answered.
    """

    def __init__(
        self,
        profile: AgentProfile,
        dialogue: Dialogue,
        record: ConversationRecord,
        outbox: Outbox,
        mouth: Mouth,
    ) -> None:
        self._record = record
        self._outbox = outbox
        self._mouth = mouth
        self._tools = ToolDesk(record, outbox)
        self._silence = dialogue.when_silent
        self._think_s = profile.delivery.think_ms / 1000
        self._barge_in = ClientEvent.INTERRUPTION in profile.client_events
        self._script = Script(
            dialogue,
            {
                "system__agent_id": record.agent_id,
                "system__conversation_id": record.conversation_id,
            },
        )
        self._steps: deque[Step] = deque()
        self._think_until: float | None = None
        self._rendering: str | None = None
        self._deferred: CallerTurn | None = None
        self._caller_is_speaking = False
        self._active_at = 0.0
        self._nudges = 0
        self.text_only = False
        """Answer in text, without sound."""
        self.call_has_ended = False
        """The dialogue has ended the call; nothing more will be said."""

    def set_variable(self, name: str, value: Variable) -> None:
        """Give a dialogue variable a value."""
        self._script.set(name, value)

    def greet(self, first_message: str | None, now: float) -> None:
        """Begin to talk; ``first_message`` goes before the dialogue's own."""
        self._active_at = now
        self._steps.extend(self._script.greeting(first_message))

    def active(self, now: float) -> None:
        """The caller has shown that somebody is there."""
        self._active_at = now

    def caller_starts(self, now: float) -> None:
        """The caller has begun to speak."""
        self._active_at = now
        self._caller_is_speaking = True
        expected_id = self._mouth.event_id + 1
        self._outbox.send(messages.tentative_user_transcript("(caller is speaking)", expected_id))
        self._make_way(now)

    def caller_ends(self, seconds: float, now: float) -> None:
        """The caller has stopped after so many seconds of speech."""
        self._active_at = now
        self._caller_is_speaking = False
        event_id = self._mouth.new_turn()
        text = f"(caller spoke for {seconds:.1f} s)"
        self._outbox.send(messages.user_transcript(text, event_id))
        self._take_turn(text, CallerTurn(seconds), now)

    def caller_writes(self, text: str, now: float) -> None:
        """Text or keyed digits have come instead of speech."""
        self._active_at = now
        self._make_way(now)
        self._mouth.new_turn()
        self._take_turn(text, CallerTurn(None), now)

    def tool_result(self, result: ToolResult, now: float) -> None:
        """A client tool has answered."""
        say = self._tools.answered(result, now)
        if say is not None:
            self._script.set("tool_result", str(result.result))
            self._after_tool(say, is_error=result.is_error)

    def rendered(self, text: str, audio: bytes, now: float) -> None:
        """Take the sound of a text; ignored when it is no longer wanted."""
        if text == self._rendering:
            self._rendering = None
            self._mouth.speak(text, audio, now)

    def deadlines(self) -> Iterator[float | None]:
        """The times at which `go_on` has something to do."""
        yield self._mouth.next_due_at
        yield self._think_until
        yield self._tools.deadline
        yield self._mouth.playing_until if self._deferred and not self._is_busy() else None
        yield self._silence_at()

    def go_on(self, now: float) -> None:
        """Do everything that can be done by ``now``."""
        self._mouth.pump(now)
        if self._think_until is not None and now >= self._think_until:
            self._think_until = None
        apology = self._tools.give_up(now)
        if apology is not None:
            self._after_tool(apology, is_error=True)
        self._break_silence(now)
        while self._steps and not self._must_wait() and not self.call_has_ended:
            self._carry_out(self._steps.popleft(), now)
        if self._deferred and not self._is_busy() and not self._is_talking(now):
            self._answer(self._deferred, now)

    def _make_way(self, now: float) -> None:
        """Take back what is only thought of, stop what is being said."""
        if self._think_until is not None:
            self._think_until = None
            self._steps.clear()
            self._script.take_back()
        elif self._barge_in and self._is_talking(now):
            self._steps.clear()
            self._rendering = None
            self._mouth.interrupt(now)

    def _take_turn(self, text: str, turn: CallerTurn, now: float) -> None:
        self._nudges = 0
        self._script.set("heard_text", text)
        self._script.set("heard_seconds", round(turn.seconds or 0.0, 1))
        self._outbox.report("caller", text, now)
        if self._is_busy() or self._is_talking(now):
            self._deferred = turn
        else:
            self._answer(turn, now)

    def _answer(self, turn: CallerTurn, now: float) -> None:
        self._deferred = None
        self._steps.extend(self._script.answer(turn.seconds))
        if self._steps:
            self._think_until = now + self._think_s

    def _carry_out(self, step: Step, now: float) -> None:
        match step:
            case Say(text=text) if self.text_only:
                self._mouth.speak(text, b"", now)
            case Say(text=text):
                self._rendering = text
                self._outbox.render(text)
            case CallTool(tool=tool):
                say = self._tools.call(tool, self._mouth.event_id, now)
                self._after_tool(say or "", is_error=False)
            case EndCall():  # pragma: no branch
                self._tools.end_call(self._mouth.event_id, now)
                self.call_has_ended = True

    def _after_tool(self, say: str, *, is_error: bool) -> None:
        if is_error:
            self._steps.clear()
        if say and not self._deferred and not self._caller_is_speaking:
            self._steps.appendleft(Say(self._script.fill(say)))

    def _must_wait(self) -> bool:
        """Whether the next step has to wait for something."""
        return (
            self._think_until is not None
            or self._rendering is not None
            or self._mouth.next_due_at is not None
            or self._tools.deadline is not None
        )

    def _is_busy(self) -> bool:
        """Whether an answer is on its way."""
        return bool(self._steps) or self._must_wait()

    def _is_talking(self, now: float) -> bool:
        return self._rendering is not None or self._mouth.is_playing(now)

    def _silence_at(self) -> float | None:
        silence = self._silence
        if silence is None or self._nudges >= silence.times:
            return None
        if self._caller_is_speaking or self._is_busy():
            return None
        return max(self._active_at, self._mouth.playing_until) + silence.after_seconds

    def _break_silence(self, now: float) -> None:
        silence_at = self._silence_at()
        if self._silence is not None and silence_at is not None and now >= silence_at:
            self._nudges += 1
            self._steps.append(Say(self._script.fill(self._silence.say)))
