"""The sound of one call over chan_websocket: we connect to Asterisk, which paces by itself."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, cast

import structlog
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from ari_app.line.asterisk.ari.errors import (
    AriTimeout,
    AriUnreached,
    error_for_status,
    untrusted,
)
from ari_app.line.asterisk.ari.models import Channel
from ari_app.line.asterisk.ari.rest import Rest
from ari_app.line.asterisk.chan_websocket import (
    FLUSH,
    OPTIONS,
    REPORT_DRAINED,
    Complaint,
    Drained,
    Feed,
    Key,
    Message,
    Said,
    read_event,
)
from ari_app.line.asterisk.media import MediaRequest, OnKey, OnLost, no_key, now_and_then
from ari_app.line.interface import LineSound
from audiosocket.connection import set_no_delay
from audiosocket.frames import SlinFormat
from linekit.clock import FrameClock

log = structlog.get_logger(__name__)

CONNECT_SECONDS: Final = 2.0
LAST_WORDS_SECONDS: Final = 0.5
"""How long a hang-up may wait for Asterisk to have played what was said."""
_CLOSE_SECONDS: Final = 1.0
_LONGEST_ANSWER: Final = 16_384
_LONGEST_MESSAGE: Final = 131_072
_MOST_UNSENT: Final = 65_536
_PATH: Final = "/media/"
_CONNECTION_ID: Final = "MEDIA_WEBSOCKET_CONNECTION_ID"
_ON_PURPOSE: Final = frozenset({CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY})
_SILENT_TICKS: Final = 3
_BINARY: Final = 0x80 | Opcode.BINARY
_TEXT: Final = 0x80 | Opcode.TEXT
_TWO_BYTES: Final = 126
_HEADER: Final = 4


class WebSocketMedia:
    """The way of one call's sound through chan_websocket; a `Media`.

    A channel whose connection breaks can be followed by another one (`renew`): what was not heard
    of the last is said again.

    Args:
        rest: Where Asterisk is, and what proves it and us.
        clock: Gives the time.
        busy: Whether so many calls run that what comes is read in pairs of frames: being woken for
            each would cost as much as all that is done with it.
        line_format: What is spoken on the line.
        sound: The call's sound.
        on_lost: Called with a reason when the connection ends without our doing, and with whether
            it broke.

    Attributes:
        sound: The call's sound.
        frame_bytes: The size of a frame.
        keeps_company, on_key: See `Media`.
        frames_not_read: How many frames were left out because Asterisk did not play.
    """

    renewable = True

    def __init__(
        self,
        rest: Rest,
        clock: FrameClock,
        busy: Callable[[], bool],
        line_format: SlinFormat,
        sound: LineSound,
        on_lost: OnLost,
    ) -> None:
        self.keeps_company = False
        self.on_key: OnKey = no_key
        self.frames_not_read = 0
        self.frame_bytes = line_format.frame_bytes
        self._rest = rest
        self._clock, self._busy = clock, busy
        self.sound = sound
        self._on_lost = on_lost
        self._format = line_format
        self._feed = Feed(line_format.frame_bytes)
        self._tone: Iterator[bytes | None] = now_and_then(line_format)
        self._loop = asyncio.get_running_loop()
        self._socket: MediaSocket | None = None
        self._again: list[bytes] = []
        self._flows = self._closed = self._silent = False
        self._drained: asyncio.Event | None = None
        self._stop_ticks = clock.add(self._tick)

    # --- Media

    def request(self) -> MediaRequest:
        return {
            "external_host": "",
            "encapsulation": "none",
            "transport": "websocket",
            "connection_type": "server",
            "transport_data": OPTIONS,
            "format": self._format.name,
        }

    async def made(self, channel: Channel) -> bool:
        name = channel.channelvars.get(_CONNECTION_ID)
        if name is None:
            return False
        made = await connect(self._rest, name, self)
        if self._closed:
            made.close()
        else:
            self._socket = made
        return True

    def flow(self) -> None:
        self._flows = self._socket is not None

    def take_back(self) -> float:
        self._again.clear()
        taken_ms = self._feed.flush(self._loop.time())
        if taken_ms:
            self._send([FLUSH])
        return taken_ms

    def renew(self) -> None:
        self._let_go()
        self._again = self._feed.lost(self._loop.time()) + self._again

    async def heard_out(self) -> None:
        if not self._flows or not self._feed.has_ended(self._loop.time()):
            return
        # It never is while silence follows.
        self._silent = True
        self._drained = asyncio.Event()
        self._send([REPORT_DRAINED])
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._drained.wait()

    def hang_up(self) -> None:
        if not self._closed:
            self._closed = True
            self._stop_ticks()
            self._on_lost, self.on_key = _nobody, no_key
            self._let_go()

    def _let_go(self) -> None:
        self._flows = False
        used, self._socket = self._socket, None
        if used is not None:
            used.close()

    # --- sound

    def _tick(self, frames_due: int) -> None:
        sound, feed = self.sound, self._feed
        sound.tick()
        for _ in range(1, frames_due):
            sound.tick()
        if not self._flows:
            return
        now, used = self._loop.time(), self._socket
        if used is not None:
            used.ticked()
        nothing_to_do = now < feed.quiet_until and (feed.speaks or not sound.frames_ready)
        if not nothing_to_do or self.keeps_company:
            feed.look(now, punctual=self._clock.is_punctual(now))
            self._give(now)

    def _give(self, now: float) -> None:
        feed, used = self._feed, self._socket
        assert used is not None, "sound flows over a socket"
        if feed.stalled:
            log.warning("media_stalled", at=used.name)
            used.abort()
            return
        if feed.blocked or used.unsent_bytes > _MOST_UNSENT:
            self.frames_not_read += 1
            return
        room = feed.room(now)
        if not room:
            return
        # The last frame is left until it is due: what has been taken counts as heard.
        ready = min(room, self.sound.frames_ready - 1)
        if self._again:
            frames, self._again = self._again[:room], self._again[room:]
        elif ready > 0:
            frames = [frame for _ in range(ready) if (frame := self.sound.next_frame())]
        elif (feed.is_due(now) or (not ready and not feed.speaks)) and (
            frame := self.sound.next_frame()
        ) is not None:
            frames = [frame]
        elif self.keeps_company and (tone := next(self._tone)) is not None:
            frames = [tone]
        else:
            frames = []
        if frames:
            self._send(feed.say(frames, now))
        elif not self._silent:
            self._send(feed.pause(now))

    def _send(self, messages: list[Message]) -> None:
        if self._socket is not None and messages:
            self._socket.send(messages)
            self._socket.read_at_once(2 if self._busy() else 1)

    # --- what comes

    def told(self, said: Said) -> None:
        """Take an event of Asterisk's."""
        now = self._loop.time()
        self._feed.hear(said, now, punctual=self._clock.is_punctual(now))
        match said:
            case Drained() if self._drained is not None:
                self._drained.set()
            case Key(digit=digit):
                self.on_key(digit)
            case Complaint(text=text):
                log.warning("media_complaint", text=text)
            case _:
                pass

    def ended(self, ended: MediaSocket, *, broken: bool) -> None:
        """Note that a connection has ended."""
        if self._drained is not None:
            self._drained.set()
        if ended is self._socket and not self._closed:
            self._socket, self._flows = None, False
            self._on_lost("line_peer_closed", broken)


def _nobody(reason: str, broken: bool) -> None:
    """Tell nobody."""


async def connect(rest: Rest, connection_id: str, media: WebSocketMedia) -> MediaSocket:
    """Connect to a channel that waits for it.

    Raises:
        AriError: It cannot be reached, or does not let us in.
    """
    base = rest.base
    path = f"{base.raw_path.rstrip('/')}{_PATH}{connection_id}"
    where = f"{'wss' if rest.tls else 'ws'}://{base.raw_authority}{path}"
    options: dict[str, Any] = {"ssl": rest.tls} if rest.tls else {}
    made = MediaSocket(where, rest.authorization, media)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().create_connection(
                lambda: cast(asyncio.Protocol, made), base.host or "", base.port or 0, **options
            )
            await made.opened
    except TimeoutError:
        raise AriTimeout("no media in time", method="GET", path=_PATH) from None
    except ssl.SSLCertVerificationError as error:
        raise untrusted(error, method="GET", path=_PATH) from None
    except InvalidStatus as error:
        status = error.response.status_code
        raise error_for_status(status, "", method="GET", path=_PATH) from None
    except (OSError, EOFError, WebSocketException) as error:
        raise AriUnreached(f"media: {error}", method="GET", path=_PATH) from error
    finally:
        if not made.is_open:
            made.abort()
    return made


class MediaSocket:
    """One connection to a channel of chan_websocket.

    What comes all the time, whole messages of sound and short ones of text, is read here; all else
    by `websockets`.

    Args:
        where: `ws://host:port/media/ID`.
        authorization: As ARI wants it. Asterisk does not ask for it here; a proxy may.
        media: Takes what comes.

    Attributes:
        name: The address, without the id, which is a secret.
        opened: Done when sound can flow.
    """

    def __init__(self, where: str, authorization: str, media: WebSocketMedia) -> None:
        self.name = where.rpartition("/")[0]
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self._protocol = ClientProtocol(
            parse_uri(where), subprotocols=[Subprotocol("media")], max_size=_LONGEST_MESSAGE
        )
        self._authorization = authorization
        self._media: WebSocketMedia | None = media
        self._wire_bytes = _HEADER + media.frame_bytes
        self._heard = media.sound.heard
        self._transport: asyncio.Transport | None = None
        self._answer: bytearray | None = bytearray()
        # Bytes that `websockets` has and has made no frame of; in a message of several frames it
        # has them all.
        self._unread = 0
        self._in_message = False
        self._closing: asyncio.TimerHandle | None = None
        self._at_once = 1
        self._silent_ticks = 0

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done, and the connection has not been closed since."""
        return self.opened.done() and not self.opened.cancelled() and self._transport is not None

    @property
    def unsent_bytes(self) -> int:
        """How many bytes Asterisk has not read yet, as far as they wait in this process."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, messages: list[Message]) -> None:
        """Send messages, all in one write; with TLS each in a record of its own.

        A record that comes in ten pieces ends the channel, as a message does (see `MOST_BYTES`).
        """
        if self._transport is None or self._closing is not None:
            return
        wire = [
            Frame(Opcode.TEXT, message.encode()).serialize(mask=True)
            if isinstance(message, str)
            else Frame(Opcode.BINARY, message).serialize(mask=True)
            for message in messages
        ]
        self._transport.writelines(wire)

    def ticked(self) -> None:
        """Count a tick of 20 ms; after some without sound, read frames one by one again."""
        self._silent_ticks += 1
        if self._silent_ticks == _SILENT_TICKS:
            self.read_at_once(1)

    def read_at_once(self, frames: int) -> None:
        """Let the kernel wake us only when `frames` frames have come. With TLS each one does."""
        if frames == self._at_once or (frames > 1 and self._silent_ticks >= _SILENT_TICKS):
            return
        transport = self._transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return
        self._at_once = frames
        low_water = 1 if frames == 1 else frames * self._wire_bytes
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water
        )

    def close(self) -> None:
        """Close: Asterisk ends the channel, and with it the connection. May be called twice."""
        self._media, self._heard = None, _drop
        if self._transport is None or self._closing is not None:
            return
        # Asterisk may have closed it just now: that is answered, and its end is still to come.
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        self._closing = self._loop.call_later(_CLOSE_SECONDS, self.abort)

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        set_no_delay(self._transport)
        request = self._protocol.connect()
        request.headers["Authorization"] = self._authorization
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._silent_ticks = 0
        if self._answer is not None:
            data = self._read_answer(self._answer, data)
        elif not self._unread and not self._in_message and self._media is not None:
            data = self._read_plain(data)
        if data:
            self._read(data)

    def pause_writing(self) -> None:
        """Do nothing: what is written is what Asterisk can take."""

    def resume_writing(self) -> None:
        """Do nothing, either."""

    def eof_received(self) -> None:
        """Do nothing: `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._closing is not None:
            self._closing.cancel()
        if not self.opened.done():
            self.opened.set_exception(exc or EOFError("closed in the handshake"))
        media, self._media, self._heard = self._media, None, _drop
        if media is not None:
            close = self._protocol.close_rcvd
            media.ended(self, broken=close is None or close.code not in _ON_PURPOSE)

    # --- inside

    def _read_answer(self, answer: bytearray, data: bytes) -> bytes:
        """Read what answers our handshake; return what came after it."""
        answer += data
        head, end, rest = bytes(answer).partition(b"\r\n\r\n")
        if not end and len(answer) <= _LONGEST_ANSWER:
            return b""
        self._answer = None
        self._protocol.receive_data(head + end)
        for event in self._protocol.events_received():
            if isinstance(event, Response) and self._protocol.handshake_exc is None:
                if not self.opened.done():
                    self.opened.set_result(None)
                return rest
        if not self.opened.done():
            problem = self._protocol.handshake_exc or EOFError("no answer")
            if not isinstance(problem, WebSocketException):
                problem = EOFError("no answer")
            self.opened.set_exception(problem)
        self.abort()
        return b""

    def _read_plain(self, data: bytes) -> bytes:
        """Read the messages that come all the time, where they are whole; return the rest."""
        at, size = 0, len(data)
        while size - at > _HEADER:
            if data[at] == _BINARY and data[at + 1] == _TWO_BYTES:
                end = at + _HEADER + (data[at + 2] << 8 | data[at + 3])
                if size < end or (end - at) & 1:
                    break
                self._heard(data[at + _HEADER : end])
            elif data[at] == _TEXT and data[at + 1] < _TWO_BYTES:
                end = at + 2 + data[at + 1]
                if size < end:
                    break
                self._handle_text(data[at + 2 : end])
            else:
                break
            at = end
        return data[at:] if at else data

    def _handle_text(self, text: bytes) -> None:
        said = read_event(text)
        if said is not None and self._media is not None:
            self._media.told(said)

    def _read(self, data: bytes) -> None:
        self._unread += len(data)
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._unread -= _wire_bytes(event)
                self._received(event)
        self._flush()
        if self._protocol.parser_exc is not None:
            log.warning("media_malformed", at=self.name, error=str(self._protocol.parser_exc))
            self.abort()

    def _received(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._in_message = not frame.fin
        if frame.opcode is Opcode.BINARY:
            self._heard(bytes(frame.data)[: len(frame.data) & ~1])
        elif frame.opcode is Opcode.TEXT:
            self._handle_text(bytes(frame.data))

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if self._transport is None:
                return
            if data:
                self._transport.write(data)


def _drop(pcm: bytes) -> None:
    """Hear nothing."""


def _wire_bytes(frame: Frame) -> int:
    """Return how many bytes a frame had, unmasked."""
    size = len(frame.data)
    return 2 + (0 if size < 126 else 2 if size < 65536 else 8) + size
