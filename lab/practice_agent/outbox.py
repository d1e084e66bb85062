"""Collects what a conversation wants done until its shell takes it. Pure."""

from __future__ import annotations

from collections.abc import Collection

from lab.practice_agent.effects import Close, Effect, Render, Report, Send
from lab.practice_agent.profile import ClientEvent
from lab.practice_agent.record import ConversationRecord, Speaker, TranscriptLine
from lab.practice_agent.server_messages import Message

_SELECTABLE = frozenset(event.value for event in ClientEvent)


class Outbox:
    """Effects in order. Messages of a type that ``client_events`` leaves out are not sent."""

    def __init__(self, client_events: Collection[ClientEvent], record: ConversationRecord) -> None:
        self._hidden = _SELECTABLE - {event.value for event in client_events}
        self._record = record
        self._effects: list[Effect] = []

    def send(self, message: Message) -> None:
        """Send a message, if its type is switched on."""
        if message["type"] not in self._hidden:
            self._effects.append(Send(message))

    def render(self, text: str) -> None:
        """Ask for the sound of a text."""
        self._effects.append(Render(text))

    def report(self, speaker: Speaker, text: str, now: float) -> None:
        """Write a line into the record's transcript, and tell whoever watches."""
        record = self._record
        line = TranscriptLine(
            record.conversation_id, record.agent_id, now - record.opened_at, speaker, text
        )
        record.transcript.append(line)
        self._effects.append(Report(line))

    def close(self, code: int, reason: str) -> None:
        """Close the socket."""
        self._effects.append(Close(code, reason))

    def take(self) -> list[Effect]:
        """Hand over what has gathered."""
        effects, self._effects = self._effects, []
        return effects
