"""A running conversation: it moves messages between the socket and `AgentProtocol`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from websockets.exceptions import ConnectionClosed

from ari_app.elevenlabs import events
from ari_app.elevenlabs.agent_socket import AgentSocket, how_it_ended
from ari_app.elevenlabs.client_messages import (
    ClientMessage,
    ContextualUpdate,
    SourceMedium,
    ToolErrorType,
    ToolResult,
    UserActivity,
    UserMessage,
)
from ari_app.elevenlabs.closing import AgentClose
from ari_app.elevenlabs.codec import encode, encode_audio
from ari_app.elevenlabs.conversation import AgentProtocol
from ari_app.elevenlabs.outbox import Outbox, PeerStalled
from ari_app.elevenlabs.pulse import LOOKS, Pulse
from ari_app.elevenlabs.stats import ConversationStats
from ari_app.elevenlabs.wire import ServerMessage, Unknown

log = structlog.get_logger(__name__)

_MAX_LOGGED_MALFORMED = 5
_TURN_SECONDS = 0.002


class AgentHandler(Protocol):
    """Who is told what the agent says. All calls come on the event loop, in order.

    No call comes before `AgentClient.connect` has returned to whoever awaits it. The first call
    is always `other` with the `InitiationMetadata`, the last one `closed`. A call that raises is
    logged and counted; the conversation goes on.
    """

    def audio(self, event_id: int, data: bytes, is_final: bool) -> None:
        """A chunk of voice, any length, in the output format; never overtaken audio."""

    def interruption(self, event_id: int) -> None:
        """The caller spoke: throw away what is not yet played."""

    def user_transcript(self, text: str, event_id: int | None) -> None:
        """What the caller said in one turn."""

    def agent_response(self, text: str, event_id: int | None) -> None:
        """The text of a response as it was meant."""

    def agent_response_correction(
        self, original: str, corrected: str, event_id: int | None
    ) -> None:
        """The text of an interrupted response as far as it was heard."""

    def response_complete(self, event_id: int | None) -> None:
        """All audio of this response is here."""

    def tool_call(
        self, name: str, call_id: str, parameters: dict[str, Any], expects_response: bool
    ) -> None:
        """The agent wants one of our tools; answer with `AgentConnection.send_tool_result`."""

    def tool_response(self, name: str, call_id: str, status: str, is_error: bool) -> None:
        """A tool has run. After `end_call` with success: play out, then hang up."""

    def other(self, message: ServerMessage | Unknown) -> None:
        """Any message that has no call of its own."""

    def closed(self, reason: AgentClose) -> None:
        """The conversation is over. Exactly once, and nothing after it."""


class AgentConnection:
    """One running conversation. Made by `AgentClient.connect`.

    Sending never blocks and never raises for a connection that is gone. While the agent does not
    read, up to 2 s of audio wait, and the oldest is dropped; other messages are never dropped.
    A connection on which nothing arrives for `dead_after` seconds, not even the answer to a ping,
    counts as lost, and one on which nothing can be sent for 20 s.
    """

    def __init__(
        self,
        socket: AgentSocket,
        protocol: AgentProtocol,
        started: events.ConversationStarted,
        handler: AgentHandler,
        first_events: list[events.AgentEvent],
        *,
        close_timeout: float,
        dead_after: float = 4.0,
    ) -> None:
        self.conversation_id = started.conversation_id
        self.input_format = started.input_format
        self.output_format = started.output_format

        self._socket = socket
        self._protocol = protocol
        self._handler = handler
        self._close_timeout = close_timeout
        self._log = log.bind(conversation_id=started.conversation_id)
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox()
        self._open = True
        self._closing = False

        self.dead_seconds = 0.0
        """How long nothing had come when the peer was taken for dead; 0 for any other end."""
        self._pulse = Pulse()
        self._look_seconds = dead_after / LOOKS
        self._next_look = self._loop.call_later(self._look_seconds, self._look)
        socket.on_writable = self._flush
        self._reader = asyncio.create_task(self._read(first_events), name="agent-reader")
        self._reader.add_done_callback(self._reader_ended)

    @property
    def stats(self) -> ConversationStats:
        """The conversation's counters; they stay after the end."""
        return self._protocol.stats

    @property
    def call_ending(self) -> bool:
        """The agent's `end_call` has succeeded; it will close soon."""
        return self._protocol.call_ending

    @property
    def is_open(self) -> bool:
        """Whether what is sent may still arrive."""
        return self._open and not self._closing

    def send_audio(self, data: bytes) -> None:
        """Send the caller's sound, in `input_format`; 20 to 250 ms at a time are sensible."""
        if not data or not self.is_open:
            return
        if self._socket.writable and not self._outbox:
            self._write_audio(data)
            return
        try:
            self._outbox.push_audio(data, self._loop.time())
        except PeerStalled:
            self._give_up()
        self._note_drops()

    def send(self, message: ClientMessage) -> None:
        """Send any other message.

        Raises `ValueError` when a free field of it cannot be written as JSON.
        """
        payload = encode(message)
        if self.is_open:
            self._send_control(payload)

    def send_tool_result(
        self,
        call_id: str,
        result: str,
        *,
        is_error: bool = False,
        error_type: ToolErrorType | None = None,
    ) -> None:
        """Answer a `tool_call`; `result` is text for the model."""
        self.send(
            ToolResult(
                tool_call_id=call_id, result=result, is_error=is_error, error_type=error_type
            )
        )

    def send_user_message(self, text: str, *, source_medium: SourceMedium | None = None) -> None:
        """Text as though the caller had said it; keys are `source_medium="dtmf"`."""
        self.send(UserMessage(text=text, source_medium=source_medium))

    def send_contextual_update(self, text: str, *, context_id: str | None = None) -> None:
        """Something to know, not to answer; a later one with the same id replaces it."""
        self.send(ContextualUpdate(text=text, context_id=context_id))

    def send_user_activity(self) -> None:
        """Begin the turn's time-out anew."""
        self.send(UserActivity())

    async def close(self) -> None:
        """End the conversation, within the close time-out; `closed` has been called after it.

        May be called at any time, any number of times.
        """
        if self.is_open:
            self._closing = True
            self._outbox.clear()
            socket = self._socket
            try:
                async with asyncio.timeout(self._close_timeout):
                    await socket.close()
            except TimeoutError:
                # The peer reads nothing, so that the goodbye itself waits.
                await socket.abort()
            except asyncio.CancelledError:
                socket.transport.abort()
                raise
        await asyncio.wait([self._reader])

    async def _read(self, first_events: list[events.AgentEvent]) -> AgentClose:
        busy = 0.0
        try:
            self._dispatch(first_events)
            while True:
                data = await self._socket.recv(decode=False)
                began = self._loop.time()
                received = self._protocol.receive(data)
                for owed in self._protocol.data_to_send():
                    self._send_control(owed)
                self._dispatch(received)
                busy += self._loop.time() - began
                if busy > _TURN_SECONDS:
                    # Where many have arrived, reading does not wait; the other calls' turn.
                    busy = 0.0
                    await asyncio.sleep(0)
        except ConnectionClosed as error:
            code, text = how_it_ended(error)
            local = self._closing and error.rcvd_then_sent is not True
            return self._protocol.closed(code, text, local=local)

    def _reader_ended(self, reader: asyncio.Task[AgentClose]) -> None:
        # A callback, and not the end of `_read`: a task that is cancelled before its first step
        # never runs at all, and `closed` must still be called.
        if reader.cancelled():
            self._socket.transport.abort()
            reason = self._protocol.closed(1006, local=True)
        elif (failure := reader.exception()) is not None:
            self._log.error("agent_reader_failed", exc_info=failure)
            self._socket.transport.abort()
            reason = self._protocol.closed(1006)
        else:
            reason = reader.result()
        self._open = False
        self._next_look.cancel()
        self._outbox.clear()
        # A TLS connection holds 300 kB until the last reference to it goes, and a call that has
        # ended is kept for a minute.
        del self._socket.on_writable, self._socket
        self._log.info("agent_closed", kind=reason.kind.value, code=reason.code)
        self._call(self._handler.closed, reason)
        # The handler keeps the connection: the two would keep each other.
        del self._handler

    def _dispatch(self, received: list[events.AgentEvent]) -> None:
        for event in received:
            if self._closing:
                return
            self._dispatch_one(event)

    def _dispatch_one(self, event: events.AgentEvent) -> None:
        handler = self._handler
        match event:
            case events.AudioReceived(event_id, data, is_final):
                self._call(handler.audio, event_id, data, is_final)
            case events.Interrupted(event_id):
                self._call(handler.interruption, event_id)
            case events.UserSaid(text, turn_id):
                self._call(handler.user_transcript, text, turn_id)
            case events.AgentSaid(text, turn_id):
                self._call(handler.agent_response, text, turn_id)
            case events.AgentCorrected(original, corrected, turn_id):
                self._call(handler.agent_response_correction, original, corrected, turn_id)
            case events.ResponseCompleted(turn_id):
                self._call(handler.response_complete, turn_id)
            case events.ToolCalled(name, call_id, parameters, expects_response):
                self._call(handler.tool_call, name, call_id, parameters, expects_response)
            case events.ToolFinished(name, call_id, status, is_error):
                self._call(handler.tool_response, name, call_id, status, is_error)
            case events.Other(message):
                self._call(handler.other, message)
            case events.Garbled(reason, detail):
                if self.stats.malformed <= _MAX_LOGGED_MALFORMED:
                    self._log.warning("agent_message_malformed", reason=reason, detail=detail)
            case events.CallEnding():
                self._log.info("agent_ends_call")
            case events.ConversationStarted():
                pass

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception:
            self.stats.handler_errors += 1
            name = getattr(callback, "__name__", type(callback).__name__)
            self._log.exception("agent_handler_failed", callback=name)

    def _send_control(self, payload: bytes) -> None:
        if self._socket.writable and not self._outbox:
            self._write(payload)
            return
        try:
            self._outbox.push_control(payload, self._loop.time())
        except PeerStalled:
            self._give_up()

    def _flush(self) -> None:
        while self._socket.writable:
            waiting = self._outbox.pop(self._loop.time())
            if waiting is None:
                break
            if waiting.is_audio:
                self._write_audio(waiting.payload)
            else:
                self._write(waiting.payload)
        self._note_drops()

    def _write_audio(self, data: bytes) -> None:
        self._write(encode_audio(data))
        self.stats.audio_bytes_out += len(data)

    def _write(self, payload: bytes) -> None:
        self._socket.send_now(payload)
        self.stats.messages_out += 1

    def _look(self) -> None:
        heard, self._socket.heard = self._socket.heard, False
        if self._pulse.look(heard):
            self._socket.ping_now()
            self._next_look = self._loop.call_later(self._look_seconds, self._look)
        else:
            self.dead_seconds = self._look_seconds * LOOKS
            self._give_up()

    def _note_drops(self) -> None:
        self.stats.dropped_late_messages = self._outbox.dropped_messages
        self.stats.dropped_late_bytes = self._outbox.dropped_bytes

    def _give_up(self) -> None:
        self._log.warning("agent_stalled", silent_s=self.dead_seconds)
        self._open = False
        self._outbox.clear()
        self._socket.transport.abort()
