"""The agent's WebSocket, on a bare socket that speaks TLS.

It stays uncompiled, for it is a kind of `websockets`' own connection; see `process.compiled`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event, State
from websockets.proxy import get_proxy
from yarl import URL

from ari_app.agent.elevenlabs.codec import (
    MAX_MESSAGE_BYTES,
    PONG_FRAME,
    ServerFrames,
    ping_frame,
    text_frame,
)
from ari_app.agent.elevenlabs.errors import (
    AgentTimeout,
    AgentUnavailable,
    error_from_status,
    untrusted,
)
from ari_app.agent.elevenlabs.signed_url import _is_loopback_url
from ari_app.errors import forget_frames
from ari_app.process.network import system_trust, why_unreachable
from linekit.transport import connect_tls

# Messages of up to 2.5 s of sound: enough to smooth, and beyond it reading pauses; nothing is lost.
_MAX_QUEUED_MESSAGES = 16

# And so many are handed over as they come: what has waited on the network comes at once, and the
# other calls wait meanwhile.
_MAX_AT_ONCE = 16

# What may wait below us, in bytes. A kernel would by default take megabytes for a peer that has
# stopped reading: a minute of sound that arrives when nobody wants it any more.
_MAX_UNSENT_BYTES = 32 * 1024

_TOO_BIG = 1009
_END_OF_HEAD = b"\r\n\r\n"

# At DEBUG `websockets` logs the request line, which holds the signature of a signed URL.
_wire_log = logging.getLogger("ari_app.agent.elevenlabs.websocket")
_wire_log.setLevel(logging.INFO)


class AgentSocket(ClientConnection):
    """A client connection that says whether it can be written to, writes without waiting, and hands
    messages over without a queue.

    Attributes:
        writable: It is open, and takes more; whoever writes past it looks first.
        heard: Something has arrived, be it only a pong; whoever looks sets it back.
        on_writable: Called when writing makes sense again.
        on_message: Called with each message, in order. What comes in pieces, behind a message that
            nobody has read yet, or with many others, is left to `next_message`. Must not raise.
    """

    writable = True
    heard = False
    on_writable: Callable[[], None] | None = None
    on_message: Callable[[bytes], None] | None = None
    _unread = 0
    """Whole messages for `next_message`."""
    _left = 0
    """Messages that may still be handed over at once."""
    _frames: ServerFrames | None = None
    """What comes after the handshake."""
    _tail = b""
    """Of the answer to the handshake, as much as its end may have begun in."""

    def data_received(self, data: bytes) -> None:
        self.heard = True
        self._left = _MAX_AT_ONCE
        if self._frames is None:
            data = self._take_handshake(data)
        if self._frames is not None:
            for frame, body in self._frames.feed(data):
                self._take_frame(frame, body)
        self._look_whether_open()

    def _take_handshake(self, data: bytes) -> bytes:
        """Pass on the answer to the handshake; return the frames that have come with it."""
        before = len(self._tail)
        tail = self._tail + data
        end = tail.find(_END_OF_HEAD)
        if end < 0:
            self._tail = tail[1 - len(_END_OF_HEAD) :]
            super().data_received(data)
            return b""
        end += len(_END_OF_HEAD) - before
        super().data_received(data[:end])
        rest = data[end:]
        if self.protocol.state is State.OPEN:
            self._frames = ServerFrames(self.protocol.max_message_size or MAX_MESSAGE_BYTES)
            return rest
        # It is refused, and this says why.
        self._tail = b""
        if rest:
            super().data_received(rest)
        return b""

    def _take_frame(self, frame: bytes, body: int) -> None:
        protocol = self.protocol
        if (
            body
            and self._left
            and not self._unread
            and self.on_message is not None
            and protocol.state is State.OPEN
            and protocol.current_size is None
        ):
            # Past `websockets`, its queue, and the task that waits for it: more than half of what a
            # message costs.
            self._left -= 1
            self.on_message(frame[body:])
        elif frame != PONG_FRAME:
            # That answers `ping_now`, of which `websockets` knows nothing.
            super().data_received(frame)

    def eof_received(self) -> None:
        super().eof_received()
        self._look_whether_open()

    def _look_whether_open(self) -> None:
        if self.protocol.state is not State.OPEN:
            self.writable = False

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES and event.fin:
            self._unread += 1
        super().process_event(event)

    async def next_message(self) -> bytes:
        """Wait for a message.

        Raises:
            ConnectionClosed: There is none any more.
        """
        message = await self.recv(decode=False)
        self._unread -= 1
        return message

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # What reads the messages, and what ended the reading, know the protocol through their
        # frames: it would wait for the garbage collector.
        self.protocol.parser.close()
        if self.protocol.parser_exc is not None:
            forget_frames(self.protocol.parser_exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.writable = False

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.protocol.state is State.OPEN:
            self.writable = True
            if self.on_writable is not None:
                self.on_writable()

    def send_now(self, data: bytes) -> None:
        """Write `data` as one text frame, at once. Does nothing when the socket is not open.

        Message by message `websockets` spends a fifth of this application's time, most of it on a
        system call for each mask and on what fragmented or compressed messages would need.
        """
        if self.protocol.state is State.OPEN:
            self.transport.write(text_frame(data))

    def forget_handshake(self) -> None:
        """Let go of the headers, which nobody asks for any more: 3 KB of every call."""
        self.request = None
        if self.response is not None:
            self.response.headers.clear()

    def ping_now(self) -> None:
        """Write a ping, at once. Does nothing when the socket is not open."""
        if self.protocol.state is State.OPEN:
            self.transport.write(ping_frame())

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
            options.get("ssl") or system_trust(),
            server_hostname=uri.host,
        )

    def process_redirect(self, exc: Exception) -> Exception | str:
        # It would take what is said in the call elsewhere.
        return exc


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
            # Ours are sent elsewhere: see `connection.Pulse`.
            ping_interval=None,
            close_timeout=close_timeout,
            max_size=max_message_bytes,
            max_queue=_MAX_QUEUED_MESSAGES,
            write_limit=_MAX_UNSENT_BYTES,
            logger=_wire_log,
            **options,
        )
    except InvalidStatus as error:
        # The socket, which keeps why it was refused, goes at once, with what TLS needs for it.
        forget_frames(error)
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
        forget_frames(error)
        # ImportError: a SOCKS proxy in the environment needs a package that is not there.
        raise AgentUnavailable(
            f"the agent's socket cannot be opened ({type(error).__name__})"
        ) from None
    assert isinstance(connection, AgentSocket)
    _limit_unsent(connection)
    connection.forget_handshake()
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
    # It may have ended right behind the handshake; whoever reads from it is told why.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT_BYTES)
