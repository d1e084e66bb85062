"""A running conversation: it moves messages between the socket and `AgentProtocol`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar, Final

import structlog
from websockets.exceptions import ConnectionClosed

from ari_app.agent.elevenlabs.client_messages import (
    ClientMessage,
    ContextualUpdate,
    ToolResult,
    UserActivity,
    UserMessage,
)
from ari_app.agent.elevenlabs.closing import AgentClose, CloseKind
from ari_app.agent.elevenlabs.codec import encode, encode_audio, text_frame
from ari_app.agent.elevenlabs.protocol import (
    AgentProtocol,
    ConversationStarted,
    Garbled,
    Other,
    ProtocolEvent,
)
from ari_app.agent.elevenlabs.socket import AgentSocket, how_it_ended
from ari_app.agent.interface import (
    AgentEvent,
    Ending,
    TellAgentEvent,
)
from ari_app.audio.formats import AudioFormat
from ari_app.process.beat import seconds_to_beat


class PeerStalled(Exception):
    """The peer has stopped reading for good."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One message that waits."""

    payload: bytes
    """Audio as it is, or a control message as JSON."""
    is_audio: bool
    since: float


class Outbox:
    """Control messages and audio, in two lines; control goes first and is never dropped.

    Sound that comes late is worth nothing, so audio older than `max_age_s`, or beyond
    `max_audio_bytes`, is dropped from the old end and counted in `dropped_messages` and
    `dropped_bytes`. When nothing could be taken out for `max_stall_s`, or more than `max_control`
    control messages or `max_control_bytes` of them wait, adding raises `PeerStalled`.
    """

    def __init__(
        self,
        *,
        max_age_s: float = 2.0,
        max_audio_bytes: int = 512 * 1024,
        max_control: int = 1024,
        max_control_bytes: int = 4 * 1024 * 1024,
        max_stall_s: float = 20.0,
    ) -> None:
        self.max_age_s = max_age_s
        self.max_audio_bytes = max_audio_bytes
        self.max_control = max_control
        self.max_control_bytes = max_control_bytes
        self.max_stall_s = max_stall_s
        self.dropped_messages = 0
        self.dropped_bytes = 0
        self._control: list[Waiting] = []
        self._control_bytes = 0
        self._audio: list[Waiting] = []
        self._audio_bytes = 0
        # When the outbox was last empty or gave something away.
        self._moved_at = 0.0

    def __len__(self) -> int:
        return len(self._control) + len(self._audio)

    def push_control(self, payload: bytes, now: float) -> None:
        """Add a control message.

        Raises:
            PeerStalled: The peer has read nothing for too long.
        """
        self._check_stall(now)
        size = self._control_bytes + len(payload)
        if len(self._control) >= self.max_control or size > self.max_control_bytes:
            raise PeerStalled
        self._control.append(Waiting(payload, False, now))
        self._control_bytes = size

    def push_audio(self, payload: bytes, now: float) -> None:
        """Add audio, dropping what is too old or too much.

        Raises:
            PeerStalled: As for `push_control`.
        """
        self._check_stall(now)
        self._audio.append(Waiting(payload, True, now))
        self._audio_bytes += len(payload)
        self._expire(now)

    def pop(self, now: float) -> Waiting | None:
        """Return the next message to send, or `None`."""
        self._moved_at = now
        if self._control:
            waiting = self._control.pop(0)
            self._control_bytes -= len(waiting.payload)
            return waiting
        self._expire(now)
        if not self._audio:
            return None
        waiting = self._audio.pop(0)
        self._audio_bytes -= len(waiting.payload)
        return waiting

    def clear(self) -> None:
        """Forget everything, uncounted: the conversation is over."""
        self._control.clear()
        self._audio.clear()
        self._control_bytes = self._audio_bytes = 0

    def _check_stall(self, now: float) -> None:
        if not self._control and not self._audio:
            self._moved_at = now
        elif now - self._moved_at > self.max_stall_s:
            raise PeerStalled

    def _expire(self, now: float) -> None:
        oldest = now - self.max_age_s
        while self._audio and (
            self._audio[0].since < oldest or self._audio_bytes > self.max_audio_bytes
        ):
            size = len(self._audio.pop(0).payload)
            self._audio_bytes -= size
            self.dropped_messages += 1
            self.dropped_bytes += size


LOOKS: Final = 4
"""A peer that is silent for so many looks, one after the other, is dead."""


class Pulse:
    """Counts the looks at which nothing had arrived since the one before."""

    def __init__(self) -> None:
        self._missed = 0

    def look(self, heard: bool) -> bool:
        """Take one look; False: the peer is dead. Otherwise, where nothing was heard, a ping is to
        be sent.

        Args:
            heard: Whether anything has arrived since the last look.
        """
        self._missed = 0 if heard else self._missed + 1
        return self._missed < LOOKS


log = structlog.get_logger(__name__)

_MAX_LOGGED_MALFORMED = 5
_TURN_SECONDS = 0.002
_TOGETHER_SECONDS: Final = 1.0
"""Looks so far apart or farther are taken together with what else the process does then; it moves
them by a tenth at most."""


class AgentConnection:
    """One running conversation. Made by `AgentClient.connect`.

    Sending never blocks and never raises for a connection that is gone. While the agent does not
    read, up to 2 s of audio wait, and the oldest is dropped; other messages are never dropped.
    A connection on which nothing arrives for `dead_after` seconds, not even the answer to a ping,
    counts as lost, and one on which nothing can be sent for 20 s.
    """

    # For mypyc: these attributes may be deleted.
    __deletable__: ClassVar = ["_socket", "_tell", "_transport"]

    def __init__(
        self,
        socket: AgentSocket,
        protocol: AgentProtocol,
        started: ConversationStarted,
        tell: TellAgentEvent,
        first_events: list[ProtocolEvent],
        *,
        close_timeout: float,
        dead_after: float = 4.0,
    ) -> None:
        self.id = started.conversation_id
        self.hears = AudioFormat.parse(started.input_format)
        self.speaks = AudioFormat.parse(started.output_format)
        self.waits = False

        self._socket = socket
        self._transport = socket.transport
        self._protocol = protocol
        self._tell = tell
        self._close_timeout = close_timeout
        self._log = log.bind(conversation=started.conversation_id)
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox()
        self._open = True
        self._closing = False

        self._dead_seconds = 0.0
        self._pulse = Pulse()
        self._look_seconds = dead_after / LOOKS
        self._look_later()
        socket.on_writable = self._flush
        self._reader = asyncio.create_task(self._read(first_events), name="agent-reader")
        self._reader.add_done_callback(self._reader_ended)

    @property
    def is_open(self) -> bool:
        """Whether what is sent may still arrive."""
        return self._open and not self._closing

    @property
    def not_sent_bytes(self) -> int:
        """How much of the caller's sound came too late to be sent."""
        return self._outbox.dropped_bytes

    def hear(self, data: bytes) -> None:
        """Send the caller's sound, in the format `hears`; 20 to 250 ms at a time are sensible."""
        if not data or not self.is_open:
            return
        if self._socket.writable and not self._outbox:
            self._write_audio(data)
            return
        try:
            self._outbox.push_audio(data, self._loop.time())
        except PeerStalled:
            self._give_up()

    def send(self, message: ClientMessage) -> None:
        """Send any other message.

        Raises:
            ValueError: A free field of it cannot be written as JSON.
        """
        payload = encode(message)
        if self.is_open:
            self._send_control(payload)

    def answer_tool(self, tool_call_id: str, text: str, *, is_error: bool = False) -> None:
        """Answer a `ToolCalled`; `text` is for the model."""
        self.send(ToolResult(tool_call_id=tool_call_id, result=text, is_error=is_error))

    def ask(self, text: str, *, keys: bool = False) -> None:
        """Say `text` as though the caller had said it, or pressed it as keys."""
        self._protocol.asked()
        self.send(UserMessage(text=text, source_medium="dtmf" if keys else None))

    def tell(self, text: str, *, about: str | None = None) -> None:
        """Tell something to know, not to answer; a later one about the same replaces it."""
        self.send(ContextualUpdate(text=text, context_id=about))

    def still_here(self) -> None:
        """Begin the turn's time-out anew."""
        self.send(UserActivity())

    async def close(self) -> None:
        """End the conversation, within the close time-out; `Closed` has been told after it.

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

    async def _read(self, first_events: list[ProtocolEvent]) -> AgentClose:
        busy = 0.0
        try:
            self._dispatch(first_events)
            self._socket.on_message = self._message
            while True:
                data = await self._socket.next_message()
                began = self._loop.time()
                self._received(data)
                busy += self._loop.time() - began
                if busy > _TURN_SECONDS:
                    # Where many have arrived, reading does not wait; the other calls' turn.
                    busy = 0.0
                    await asyncio.sleep(0)
        except ConnectionClosed as error:
            code, text = how_it_ended(error)
            local = self._closing and error.rcvd_then_sent is not True
            return self._protocol.closed(code, text, local=local)

    def _message(self, data: bytes) -> None:
        if not self._open:
            return
        try:
            self._received(data)
        except Exception:
            self._log.exception("agent_reader_failed")
            self._open = False
            self._socket.transport.abort()

    def _received(self, data: bytes) -> None:
        received = self._protocol.receive(data)
        self._send_owed()
        self._dispatch(received)

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
        self._socket.on_writable = self._socket.on_message = None
        del self._socket, self._transport
        # That it closes when we ask for it is no news.
        write = self._log.debug if reason.kind is CloseKind.LOCAL else self._log.info
        write("agent_closed", kind=reason.kind.value, code=reason.code)
        self._tell_call(reason.told(silent_seconds=self._dead_seconds))
        # Who is told keeps the connection: the two would keep each other.
        del self._tell

    def _dispatch(self, received: list[ProtocolEvent]) -> None:
        for event in received:
            if self._closing:
                return
            self._dispatch_one(event)

    def _dispatch_one(self, event: ProtocolEvent) -> None:
        match event:
            case ConversationStarted() | Other():
                pass
            case Garbled(reason, detail):
                if self._protocol.malformed <= _MAX_LOGGED_MALFORMED:
                    self._log.warning("agent_message_malformed", reason=reason, detail=detail)
            case Ending():
                self._log.info("agent_ends_call")
                self._tell_call(event)
            case _:
                self._tell_call(event)

    def _tell_call(self, event: AgentEvent) -> None:
        try:
            self._tell(event)
        except Exception:
            self._log.exception("agent_handler_failed", callback=type(event).__name__)

    def _send_owed(self) -> None:
        # Apart, for the last of them is let go at the end: orjson's bytes take 4 KB, however few.
        for owed in self._protocol.data_to_send():
            self._send_control(owed)

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

    def _write_audio(self, data: bytes) -> None:
        self._write(encode_audio(data))

    def _write(self, payload: bytes) -> None:
        if not self._closing:
            self._transport.write(text_frame(payload))

    def _look_later(self) -> None:
        pause = self._look_seconds
        if pause >= _TOGETHER_SECONDS:
            pause = seconds_to_beat(self._loop.time(), pause)
        self._next_look = self._loop.call_later(pause, self._look)

    def _look(self) -> None:
        heard, self._socket.heard = self._socket.heard, False
        if self._pulse.look(heard):
            if not heard:
                self._socket.ping_now()
            self._look_later()
        else:
            self._dead_seconds = self._look_seconds * LOOKS
            self._give_up()

    def _give_up(self) -> None:
        self._log.warning("agent_stalled", silent_s=self._dead_seconds)
        self._open = False
        self._outbox.clear()
        self._socket.transport.abort()
