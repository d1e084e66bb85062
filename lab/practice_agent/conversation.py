"""One conversation from the agent's side. Pure: frames and ``now`` in, effects out.

The order of things is that of the real service: initiation from the client, metadata, then
speech in bursts; on barge-in interruption, correction, transcript, next turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

from lab.practice_agent import server_messages as messages
from lab.practice_agent.client_messages import (
    Initiation,
    InvalidMessageError,
    MultimodalMessage,
    Pong,
    ToolResult,
    TypedMessage,
    UserActivity,
    UserAudio,
    UserMessage,
    parse,
)
from lab.practice_agent.effects import Effect
from lab.practice_agent.liveness import Liveness, MaxDuration, PingDue, ReceiveTimeout
from lab.practice_agent.mouth import Mouth
from lab.practice_agent.outbox import Outbox
from lab.practice_agent.profile import AgentProfile
from lab.practice_agent.record import ConversationRecord, PongReceived
from lab.practice_agent.turns import TurnTaker
from lab.practice_agent.vad import SpeechDetector, SpeechEnded, SpeechStarted
from lab.practice_agent.waiting import WaitingRoom

VAD_SCORE_EVERY_S = 0.1


class Phase(Enum):
    """Where a conversation stands."""

    OPENING = auto()
    """The socket is open; no metadata has been sent."""
    QUEUED = auto()
    """The caller waits for a free agent."""
    TALKING = auto()
    CLOSED = auto()


class Conversation:
    """Takes the client's frames and the time; returns what to do, in order.

    The shell calls `handle_timer` when `next_timer` has come, carries out all effects, and
    answers each ``Render`` with `rendered`. After a ``Close`` there are no more effects.
    ``record`` is filled on the way.
    """

    def __init__(self, profile: AgentProfile, record: ConversationRecord, *, now: float) -> None:
        dialogue = profile.dialogue
        if profile.faults.never_answers:
            dialogue = dialogue.model_copy(update={"turns": (), "when_silent": None})
        self.record = record
        self._profile = profile
        self._dialogue = dialogue
        self._phase = Phase.OPENING
        self._outbox = Outbox(profile.client_events, record)
        self._mouth = Mouth(profile, record, self._outbox)
        self._turns = TurnTaker(profile, dialogue, record, self._outbox, self._mouth)
        self._waiting: WaitingRoom | None = None
        self._liveness: Liveness | None = None
        self._detector = SpeechDetector(
            profile.formats.user_input.rate_hz,
            threshold_dbfs=profile.hearing.threshold_dbfs,
            start_ms=profile.hearing.start_ms,
            end_ms=profile.hearing.end_ms,
        )
        self._start_at = now + profile.limits.initiation_seconds
        self._first_message: str | None = None
        self._duration_s = profile.limits.duration_seconds
        self._unscored_s = 0.0

    def receive(self, raw: bytes, now: float) -> list[Effect]:
        """Take one text frame."""
        if self._phase is Phase.CLOSED:
            return []
        try:
            message, as_sent = parse(raw)
            match message:
                case UserAudio(payload=payload):
                    self._hear(payload, now)
                case Pong(event_id=event_id):
                    self._pong(event_id, now)
                case _:
                    self.record.messages.append(as_sent)
                    self._obey(message, as_sent, now)
        except InvalidMessageError as error:
            self._fail(1008, "invalid_message", str(error), now)
        return self._go_on(now)

    def receive_binary(self, now: float) -> list[Effect]:
        """Take a binary frame, which the protocol does not have."""
        if self._phase is not Phase.CLOSED:
            self._fail(1008, "invalid_message", "Binary frames are not part of the protocol.", now)
        return self._outbox.take()

    def rendered(self, text: str, audio: bytes, now: float) -> list[Effect]:
        """Take the sound of a text; ignored when it is no longer wanted."""
        if self._phase is Phase.QUEUED and self._waiting is not None:
            self._waiting.rendered(audio, now)
        elif self._phase is Phase.TALKING:
            self._turns.rendered(text, audio, now)
        return self._go_on(now)

    def next_timer(self) -> float | None:
        """When `handle_timer` is to be called; None once closed."""
        return min((at for at in self._deadlines() if at is not None), default=None)

    def handle_timer(self, now: float) -> list[Effect]:
        """Do what is due by ``now``."""
        if self._phase is Phase.OPENING and now >= self._start_at:
            self._start(now)
        self._watch(now)
        return self._go_on(now)

    def _deadlines(self) -> Iterator[float | None]:
        match self._phase:
            case Phase.OPENING:
                yield self._start_at
            case Phase.QUEUED if self._waiting is not None:
                yield from self._waiting.deadlines()
            case Phase.TALKING:
                yield from self._turns.deadlines()
        if self._liveness is not None and self._phase is not Phase.CLOSED:
            yield self._liveness.next_at

    def _go_on(self, now: float) -> list[Effect]:
        if self._phase is Phase.QUEUED:
            self._wait(now)
        if self._phase is Phase.TALKING:
            self._turns.go_on(now)
            if self._turns.call_has_ended:
                self._close(1000, "")
        return self._outbox.take()

    def _obey(self, message: TypedMessage, as_sent: dict[str, Any], now: float) -> None:
        match message:
            case Initiation():
                self._initiate(message, as_sent, now)
            case UserMessage(text=str(text)) | MultimodalMessage(text=UserMessage(text=str(text))):
                self._user_input(now)
                if self._phase is Phase.TALKING:
                    self._turns.caller_writes(text, now)
            case UserActivity():
                self._user_input(now)
                self._turns.active(now)
            case ToolResult():
                self._turns.tool_result(message, now)
            case _:
                # Context, feedback and approvals are kept in the record; nobody answers them.
                return

    def _initiate(self, message: Initiation, as_sent: dict[str, Any], now: float) -> None:
        if self.record.initiation is not None:
            raise InvalidMessageError("The conversation has been initiated before.")
        self.record.initiation = as_sent
        self.record.dynamic_variables = dict(message.dynamic_variables)
        if any(name.startswith("system__") for name in message.dynamic_variables):
            self._fail(1008, "value_error", "The prefix system__ is reserved.", now)
            return
        if as_sent.get("conversation_config_override") and not self._profile.allow_overrides:
            self._fail(1008, "override_error", "This agent allows no overrides.", now)
            return
        for name, value in message.dynamic_variables.items():
            self._turns.set_variable(name, value)
        override = message.conversation_config_override
        self._first_message = override.agent.first_message
        self._turns.text_only = override.text_only or override.conversation.text_only
        self._duration_s = override.conversation.max_duration_seconds or self._duration_s
        if self._phase is Phase.OPENING:
            self._start_at = now + self._profile.faults.metadata_delay_ms / 1000

    def _start(self, now: float) -> None:
        missing = self._dialogue.missing_variables(self.record.dynamic_variables)
        if missing:
            names = ", ".join(missing)
            self._fail(1008, "missing_dynamic_variable", f"Missing variables: {names}.", now)
            return
        formats = self._profile.formats
        self._outbox.send(
            messages.metadata(self.record.conversation_id, formats.agent_output, formats.user_input)
        )
        self.record.started_at = now
        self._liveness = Liveness(self._profile.limits, duration_seconds=self._duration_s, now=now)
        if self._profile.queue is None:
            self._greet(now)
        else:
            self._phase = Phase.QUEUED
            self._waiting = WaitingRoom(self._profile.queue, self._mouth, self._outbox, now=now)

    def _greet(self, now: float) -> None:
        self._phase = Phase.TALKING
        self._turns.greet(self._first_message, now)

    def _wait(self, now: float) -> None:
        match self._waiting.outcome(now) if self._waiting is not None else None:
            case "admitted":
                self._greet(now)
            case "timed_out":
                self._close(4300, "queue wait timed out")

    def _hear(self, payload: bytes, now: float) -> None:
        audio_format = self._profile.formats.user_input
        try:
            samples = audio_format.to_samples(payload)
        except ValueError as error:
            raise InvalidMessageError(f"user_audio_chunk: {error}.") from error
        seconds = audio_format.seconds(len(payload))
        self.record.add_audio(payload, seconds, now)
        self._user_input(now)
        if self._phase is not Phase.TALKING or self._profile.faults.deaf:
            return
        for event in self._detector.feed(samples):
            match event:
                case SpeechStarted():
                    self._turns.caller_starts(now)
                case SpeechEnded(seconds=spoken_s):  # pragma: no branch
                    self._turns.caller_ends(spoken_s, now)
        self._unscored_s += seconds
        if self._unscored_s >= VAD_SCORE_EVERY_S:
            self._unscored_s %= VAD_SCORE_EVERY_S
            self._outbox.send(messages.vad_score(self._detector.score))

    def _user_input(self, now: float) -> None:
        if self._liveness is not None:
            self._liveness.user_input(now)

    def _pong(self, event_id: int, now: float) -> None:
        round_trip_s = self._liveness.pong(event_id, now) if self._liveness else None
        self.record.pongs.append(PongReceived(now, event_id, round_trip_s))

    def _watch(self, now: float) -> None:
        if self._liveness is None or self._phase is Phase.CLOSED:
            return
        for event in self._liveness.take_due(now):
            match event:
                case PingDue(event_id=event_id, ping_ms=ping_ms):
                    self._outbox.send(messages.ping(event_id, ping_ms))
                case ReceiveTimeout():
                    text = "No user input was received in time."
                    self._fail(1002, "transport_receive_timeout", text, now)
                case MaxDuration():  # pragma: no branch
                    self._outbox.report("note", "the conversation has lasted long enough", now)
                    self._close(1000, "max_duration_exceeded")

    def _fail(self, code: int, name: str, text: str, now: float) -> None:
        self.record.error = f"{name}: {text}"
        self._outbox.report("note", self.record.error, now)
        message = messages.error(self._profile.error_style, code, name, text)
        if message is not None:
            self._outbox.send(message)
        self._close(code, text)

    def _close(self, code: int, reason: str) -> None:
        self._outbox.close(code, reason)
        self._phase = Phase.CLOSED
