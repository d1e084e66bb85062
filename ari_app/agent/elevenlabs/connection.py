"""A running conversation: it moves messages between the socket and `AgentProtocol`."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import structlog
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.protocol import State
from websockets.proxy import get_proxy
from yarl import URL

from ari_app.agent.elevenlabs.client_messages import (
    ClientMessage,
    ContextualUpdate,
    ToolResult,
    UserActivity,
    UserMessage,
)
from ari_app.agent.elevenlabs.closing import AgentClose
from ari_app.agent.elevenlabs.codec import encode, encode_audio
from ari_app.agent.elevenlabs.errors import (
    AgentTimeout,
    AgentUnavailable,
    error_from_status,
    untrusted,
)
from ari_app.agent.elevenlabs.protocol import (
    AgentProtocol,
    ConversationStarted,
    Garbled,
    Other,
    ProtocolEvent,
)
from ari_app.agent.elevenlabs.signed_url import _is_loopback_url
from ari_app.agent.interface import (
    AgentEvent,
    Ending,
    TellAgentEvent,
)
from ari_app.audio.formats import AudioFormat
from ari_app.process.network import why_unreachable
from linekit.transport import connect_tls

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - a build without C extensions
    from websockets.utils import apply_mask


# Messages of up to 2.5 s of sound: enough to smooth, and beyond it reading pauses; nothing is lost.
_MAX_QUEUED_MESSAGES = 16

# What may wait below us, in bytes. A kernel would by default take megabytes for a peer that has
# stopped reading: a minute of sound that arrives when nobody wants it any more.
_MAX_UNSENT_BYTES = 32 * 1024

_TOO_BIG = 1009

# At DEBUG `websockets` logs the request line, which holds the signature of a signed URL.
_wire_log = logging.getLogger("ari_app.agent.elevenlabs.websocket")
_wire_log.setLevel(logging.INFO)


class _Masks:
    """Masks for client frames, from the system's strong random numbers (RFC 6455, section 5.3)."""

    def __init__(self) -> None:
        self._pool = b""
        self._next = 0

    def take(self) -> bytes:
        if self._next == len(self._pool):
            self._pool, self._next = os.urandom(4096), 0
        mask = self._pool[self._next : self._next + 4]
        self._next += 4
        return mask


_masks = _Masks()


def ping_frame(mask: bytes) -> bytes:
    """Make a ping without data, from a client (RFC 6455, section 5.5.2)."""
    return struct.pack("!BB", 0x89, 0x80) + mask


def text_frame(payload: bytes, mask: bytes) -> bytes:
    """Make a whole, final text frame from a client (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x81, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x81, 0x80 | 127, size)
    return b"".join((head, mask, apply_mask(payload, mask)))


class AgentSocket(ClientConnection):
    """A client connection that says whether it can be written to, and writes without waiting.

    Attributes:
        heard: Something has arrived, be it only a pong; whoever looks sets it back.
        on_writable: Called when writing makes sense again.
    """

    writable = True
    heard = False
    on_writable: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # What reads the messages, and what ended the reading, know the protocol through their
        # frames: it would wait for the garbage collector.
        self.protocol.parser.close()
        if self.protocol.parser_exc is not None:
            self.protocol.parser_exc.__traceback__ = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self.writable = False

    def resume_writing(self) -> None:
        super().resume_writing()
        self.writable = True
        if self.on_writable is not None:
            self.on_writable()

    def send_now(self, data: bytes) -> None:
        """Write `data` as one text frame, at once. Does nothing when the socket is not open.

        Message by message `websockets` spends a fifth of this application's time, most of it on a
        system call for each mask and on what fragmented or compressed messages would need.
        """
        if self.state is State.OPEN:
            self.transport.write(text_frame(data, _masks.take()))

    def ping_now(self) -> None:
        """Write a ping, at once. Does nothing when the socket is not open."""
        if self.state is State.OPEN:
            self.transport.write(ping_frame(_masks.take()))

    async def abort(self) -> None:
        """Drop the connection without a goodbye, and wait until it is gone."""
        self.transport.abort()
        await self.wait_closed()


class _Connect(connect):
    """Connects over TLS on the bare socket, which costs half of what the event loop's own TLS does
    for small messages, and a tenth of its memory. Through a proxy, or without TLS, as ever."""

    async def open_tcp_connection(self) -> ClientConnection:
        uri, options = self.ws_uri, self.create_connection_kwargs
        if not uri.secure or (self.proxy and get_proxy(uri) is not None):
            return await super().open_tcp_connection()
        return await connect_tls(
            lambda: self.factory(uri),
            uri.host,
            uri.port,
            options.get("ssl") or _trusted(),
            server_hostname=uri.host,
        )


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Return what trusts the system's certificates: reading them takes some milliseconds."""
    return ssl.create_default_context()


async def open_socket(
    url: SecretStr,
    *,
    user_agent: str,
    max_message_bytes: int,
    close_timeout: float,
    tls: ssl.SSLContext | None = None,
) -> AgentSocket:
    """Open the WebSocket at `url`.

    Without compression: it would double the cost of each message, and base64 of speech hardly
    shrinks. Proxies of the environment are honoured, except for this machine. Has no deadline of
    its own.

    Args:
        url: Signed, or of a public agent.
        user_agent: What we call ourselves.
        max_message_bytes: A larger message closes the socket.
        close_timeout: Seconds that the peer may take to close its side.
        tls: In place of the system's trusted certificates.

    Raises:
        ConnectError: It does not open.
    """
    options: dict[str, Any] = {}
    if tls is not None and url.get_secret_value().startswith("wss:"):
        options["ssl"] = tls
    try:
        connection = await _Connect(
            url.get_secret_value(),
            create_connection=AgentSocket,
            compression=None,
            user_agent_header=user_agent,
            proxy=None if _is_loopback_url(URL(url.get_secret_value())) else True,
            open_timeout=None,
            # See `pulse`.
            ping_interval=None,
            close_timeout=close_timeout,
            max_size=max_message_bytes,
            max_queue=_MAX_QUEUED_MESSAGES,
            write_limit=_MAX_UNSENT_BYTES,
            logger=_wire_log,
            **options,
        )
    except InvalidStatus as error:
        raise error_from_status(
            error.response.status_code, retry_after=error.response.headers.get("Retry-After")
        ) from None
    except TimeoutError:
        raise AgentTimeout("the agent's socket could not be opened in time") from None
    except ssl.SSLCertVerificationError as error:
        raise untrusted(error) from None
    except (InvalidURI, ValueError):
        raise AgentUnavailable(
            "the agent's service gave an address that is no WebSocket URL", retryable=False
        ) from None
    except OSError as error:
        raise AgentUnavailable(
            f"the agent's service cannot be reached: {why_unreachable(error)}"
        ) from None
    except (WebSocketException, ImportError) as error:
        # ImportError: a SOCKS proxy in the environment needs a package that is not there.
        raise AgentUnavailable(
            f"the agent's socket cannot be opened ({type(error).__name__})"
        ) from None
    assert isinstance(connection, AgentSocket)
    _limit_unsent(connection)
    return connection


def how_it_ended(error: ConnectionClosed) -> tuple[int, str]:
    """Return code and reason of a close, as `closing.classify` wants them; 1006 without a close
    frame."""
    if error.sent is not None and error.sent.code == _TOO_BIG and not error.rcvd_then_sent:
        return error.sent.code, error.sent.reason
    if error.rcvd is not None:
        return error.rcvd.code, error.rcvd.reason
    return 1006, ""


def _limit_unsent(connection: AgentSocket) -> None:
    sock: socket.socket = connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT_BYTES)


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
        self._control: deque[Waiting] = deque()
        self._control_bytes = 0
        self._audio: deque[Waiting] = deque()
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
            waiting = self._control.popleft()
            self._control_bytes -= len(waiting.payload)
            return waiting
        self._expire(now)
        if not self._audio:
            return None
        waiting = self._audio.popleft()
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
            size = len(self._audio.popleft().payload)
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
        """Take one look; False: the peer is dead. Otherwise a ping is to be sent.

        Args:
            heard: Whether anything has arrived since the last look.
        """
        self._missed = 0 if heard else self._missed + 1
        return self._missed < LOOKS


log = structlog.get_logger(__name__)

_MAX_LOGGED_MALFORMED = 5
_TURN_SECONDS = 0.002


class AgentConnection:
    """One running conversation. Made by `AgentClient.connect`.

    Sending never blocks and never raises for a connection that is gone. While the agent does not
    read, up to 2 s of audio wait, and the oldest is dropped; other messages are never dropped.
    A connection on which nothing arrives for `dead_after` seconds, not even the answer to a ping,
    counts as lost, and one on which nothing can be sent for 20 s.
    """

    # For mypyc: these attributes may be deleted.
    __deletable__: ClassVar = ["_socket", "_tell"]

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
        self._protocol = protocol
        self._tell = tell
        self._close_timeout = close_timeout
        self._log = log.bind(conversation_id=started.conversation_id)
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox()
        self._open = True
        self._closing = False

        self._dead_seconds = 0.0
        self._pulse = Pulse()
        self._look_seconds = dead_after / LOOKS
        self._next_look = self._loop.call_later(self._look_seconds, self._look)
        socket.on_writable = self._flush
        self._reader = asyncio.create_task(self._read(first_events), name="agent-reader")
        self._reader.add_done_callback(self._reader_ended)

    @property
    def call_ending(self) -> bool:
        """The agent's `end_call` has succeeded; it will close soon."""
        return self._protocol.call_ending

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
        self._socket.on_writable = None
        del self._socket
        self._log.info("agent_closed", kind=reason.kind.value, code=reason.code)
        self._told(reason.told(silent_seconds=self._dead_seconds))
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
                self._told(event)
            case _:
                self._told(event)

    def _told(self, event: AgentEvent) -> None:
        try:
            self._tell(event)
        except Exception:
            self._log.exception("agent_handler_failed", callback=type(event).__name__)

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
        self._socket.send_now(payload)

    def _look(self) -> None:
        heard, self._socket.heard = self._socket.heard, False
        if self._pulse.look(heard):
            self._socket.ping_now()
            self._next_look = self._loop.call_later(self._look_seconds, self._look)
        else:
            self._dead_seconds = self._look_seconds * LOOKS
            self._give_up()

    def _give_up(self) -> None:
        self._log.warning("agent_stalled", silent_s=self._dead_seconds)
        self._open = False
        self._outbox.clear()
        self._socket.transport.abort()
