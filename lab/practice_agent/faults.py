"""What goes wrong on the wire: stands between a sound conversation and the socket. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lab.practice_agent import server_messages as messages
from lab.practice_agent.effects import Close, Drop, Effect, Freeze, Send, SendRaw
from lab.practice_agent.profile import CloseFault, Faults
from lab.practice_agent.server_messages import Message

GARBAGE: dict[str, str | bytes] = {
    "json": '{"type": "audio", "audio_event": {',
    "binary": b"\x00\x01\x02\x03",
    "list": "[1, 2, 3]",
}
DROPPED = 1006


class FaultyWire:
    """Passes effects on, spoilt as ``faults`` says.

    Once it has let a ``Close`` or ``Drop`` pass, nothing follows.
    """

    def __init__(self, faults: Faults, *, now: float) -> None:
        self._faults = faults
        self._last_audio: Message | None = None
        self._in_response = False
        self._responses = 0
        self._is_over = False
        self._close_at: float | None = None
        self._freeze_at: float | None = None
        if faults.freeze_after_ms is not None:
            self._freeze_at = now + faults.freeze_after_ms / 1000
        if faults.close is not None and not faults.close.mid_response:
            self._close_at = now + faults.close.after_ms / 1000

    def next_timer(self) -> float | None:
        """When `handle_timer` is to be called."""
        if self._is_over:
            return None
        times = (self._close_at, self._freeze_at)
        return min((at for at in times if at is not None), default=None)

    def handle_timer(self, now: float) -> list[Effect]:
        """End the connection when its time has come."""
        return list(self._end_if_due(now))

    def outgoing(self, effects: list[Effect], now: float) -> list[Effect]:
        """Return what really happens instead of ``effects``."""
        result: list[Effect] = []
        for effect in effects:
            if self._is_over:
                break
            match effect:
                case Send(message=message):
                    result.extend(self._message(message, now))
                    result.extend(self._end_if_due(now))
                case Close() | Drop():
                    self._is_over = True
                    result.append(effect)
                case _:
                    result.append(effect)
        return result

    def _message(self, message: Message, now: float) -> Iterator[Effect]:
        match message["type"]:
            case "conversation_initiation_metadata":
                yield from self._metadata(message)
            case "audio":
                yield from self._audio(message, now)
            case "interruption":
                self._in_response = False
                yield self._send(message)
                if self._last_audio is not None:
                    for _ in range(self._faults.late_audio_chunks):
                        yield self._send(self._last_audio)
            case _:
                yield self._send(message)
        if self._faults.unknown_messages:
            yield Send({"type": "agent_mood", "agent_mood_event": {"mood": "cheerful"}})

    def _metadata(self, message: Message) -> Iterator[Effect]:
        if not self._faults.no_metadata:
            yield self._send(message)
        if self._faults.metadata_twice:
            yield self._send(message)
        if self._faults.garbage is not None:
            yield SendRaw(GARBAGE[self._faults.garbage])

    def _audio(self, message: Message, now: float) -> Iterator[Effect]:
        self._last_audio = message
        event: dict[str, Any] = message["audio_event"]
        if not self._in_response:
            self._responses += 1
            self._watch_response(now)
        self._in_response = not event["is_final"]
        if self._faults.null_alignment:
            message = {**message, "audio_event": {**event, "alignment": None}}
        yield self._send(message)
        if self._faults.empty_audio:
            yield self._send(messages.audio(b"", event["event_id"], is_final=False))

    def _watch_response(self, now: float) -> None:
        close = self._faults.close
        if close is not None and close.mid_response and close.response == self._responses:
            self._close_at = now + close.after_ms / 1000

    def _send(self, message: Message) -> Send:
        if not self._faults.omit_event_ids:
            return Send(message)
        return Send({key: _without_event_id(value) for key, value in message.items()})

    def _end_if_due(self, now: float) -> Iterator[Effect]:
        if self._is_over:
            return
        if self._freeze_at is not None and now >= self._freeze_at:
            self._is_over = True
            yield Freeze()
            return
        if self._close_at is None or now < self._close_at:
            return
        self._is_over = True
        close = self._faults.close
        assert close is not None
        yield from _ending(close)


def _ending(close: CloseFault) -> Iterator[Effect]:
    text = close.reason or "The practice agent was asked to fail."
    message = messages.error(close.error, close.code, "practice_fault", text)
    if message is not None:
        yield Send(message)
    yield Drop() if close.code == DROPPED else Close(close.code, close.reason)


def _without_event_id(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if key != "event_id"}
    return value
