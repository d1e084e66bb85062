"""A stage for one conversation: a caller and a clock that both do what the test says."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import orjson
import pybase64

from lab.practice_agent import AgentProfile, ConversationRecord, Delivery, Dialogue, Turn
from lab.practice_agent.conversation import Conversation
from lab.practice_agent.effects import Close, Drop, Effect, Freeze, Render, Report, Send, SendRaw
from lab.practice_agent.faults import FaultyWire

SECONDS_PER_WORD = 0.5
CHUNK_S = 0.04
START = 1000.0
ROUNDING_S = 1e-6


def profile(*says: str, greeting: str = "", **changes: Any) -> AgentProfile:
    """An agent that thinks for no time and answers with ``says``."""
    turns = tuple(Turn(say=text) for text in says)
    dialogue = Dialogue(first_message=greeting, turns=turns)
    return AgentProfile.model_validate(
        {"dialogue": dialogue, "delivery": Delivery(think_ms=0), **changes}
    )


class Stage:
    """Runs a conversation on virtual time, with speech of half a second a word."""

    def __init__(self, agent: AgentProfile, *, initiate: bool = True) -> None:
        self.now = START
        self.record = ConversationRecord("conv_1", "agent_1", START, keep_audio_seconds=1.0)
        self.conversation = Conversation(agent, self.record, now=START)
        self.wire = FaultyWire(agent.faults, now=START)
        self.formats = agent.formats
        self.sent: list[tuple[float, dict[str, Any]]] = []
        self.raw: list[str | bytes] = []
        self.ending: Close | Drop | Freeze | None = None
        self.render_nothing = False
        if initiate:
            self.send({"type": "conversation_initiation_client_data"})
            self.run(0)

    def run(self, seconds: float) -> None:
        """Let time pass; every timer is handled when it is due."""
        until = self.now + seconds
        while (at := self._next_timer()) is not None and at <= until + ROUNDING_S:
            self.now = max(self.now, at)
            self._carry_out(self.wire.handle_timer(self.now))
            self._perform(self.conversation.handle_timer(self.now))
        self.now = max(self.now, until)

    def send(self, message: dict[str, Any] | str) -> None:
        """The client sends a message."""
        raw = message.encode() if isinstance(message, str) else orjson.dumps(message)
        self._perform(self.conversation.receive(raw, self.now))

    def send_binary(self) -> None:
        """The client sends a binary frame."""
        self._perform(self.conversation.receive_binary(self.now))

    def speak(self, seconds: float) -> None:
        """The caller speaks, in real time."""
        self._audio(seconds, 8000)

    def hush(self, seconds: float) -> None:
        """The caller's line is open and silent."""
        self._audio(seconds, 0)

    def say(self, seconds: float = 1.0) -> None:
        """The caller speaks and waits for an answer."""
        self.speak(seconds)
        self.hush(0.8)

    def types(self, *hidden: str) -> list[str]:
        """The types of what the agent sent, without pings and those named."""
        kinds = (message["type"] for _, message in self.sent)
        return [kind for kind in kinds if kind not in ("ping", *hidden)]

    def all(self, kind: str) -> list[dict[str, Any]]:
        """The bodies of all messages of one type."""
        return [self._body(message) for _, message in self.sent if message["type"] == kind]

    def times(self, kind: str) -> list[float]:
        """When messages of one type left, since the opening."""
        return [at - START for at, message in self.sent if message["type"] == kind]

    @property
    def said(self) -> list[str]:
        """The texts of the agent's responses."""
        return [body["agent_response"] for body in self.all("agent_response")]

    @property
    def close_code(self) -> int | None:
        """The code of the close frame, when there was one."""
        return self.ending.code if isinstance(self.ending, Close) else None

    def _audio(self, seconds: float, amplitude: int) -> None:
        audio_format = self.formats.user_input
        count = int(audio_format.rate_hz * CHUNK_S)
        samples = np.full(count, amplitude, dtype=np.int16)
        samples[::2] *= -1
        chunk = pybase64.b64encode_as_string(audio_format.to_bytes(samples))
        for _ in range(round(seconds / CHUNK_S)):
            self.run(CHUNK_S)
            self.send({"user_audio_chunk": chunk})

    def _next_timer(self) -> float | None:
        if self.ending is not None:
            return None
        timers = (self.conversation.next_timer(), self.wire.next_timer())
        return min((timer for timer in timers if timer is not None), default=None)

    def _perform(self, effects: list[Effect]) -> None:
        self._carry_out(self.wire.outgoing(effects, self.now))

    def _carry_out(self, effects: list[Effect]) -> None:
        queue = deque(effects)
        while queue:
            assert self.ending is None, "nothing follows the end"
            match queue.popleft():
                case Send(message=message):
                    self.sent.append((self.now, message))
                case SendRaw(payload=payload):
                    self.raw.append(payload)
                case Render(text=text):
                    if not self.render_nothing:
                        audio = self._render(text)
                        effects = self.conversation.rendered(text, audio, self.now)
                        queue.extend(self.wire.outgoing(effects, self.now))
                case Close() | Drop() | Freeze() as ending:
                    self.ending = ending
                case Report(line=line):
                    assert line in self.record.transcript

    def _render(self, text: str) -> bytes:
        audio_format = self.formats.agent_output
        count = int(len(text.split()) * SECONDS_PER_WORD * audio_format.rate_hz)
        return audio_format.to_bytes(np.full(count, 1000, dtype=np.int16))

    @staticmethod
    def _body(message: dict[str, Any]) -> dict[str, Any]:
        body = next((value for value in message.values() if isinstance(value, dict)), message)
        return dict(body)
