"""One Media Stream: Twilio's side of the WebSocket (twilio.com/docs/voice/media-streams)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, ProtocolError

from lab.twilio.account import Note
from lab.twilio.playout import FRAME_MS, Playout
from lab.twilio.webhooks import Webhooks

UPGRADE_SECONDS: Final = 5.0
_FRAME_SECONDS: Final = FRAME_MS / 1000
_FIRST_MEDIA_MS: Final = 100
_MAX_UNREAD: Final = 65_536
_RESET: Final = struct.pack("ii", 1, 0)
_HEADERS: Final = (b"RIFF", b"OggS", b"fLaC", b"ID3", b".snd")
_OURS: Final[Mapping[str, str | None]] = {"media": "payload", "mark": "name", "clear": None}

Greeting = Literal["connected", "start"]
EndedBy = Literal["twilio", "server", "error"]


@dataclass(frozen=True, slots=True)
class StreamFaults:
    """In what a stream differs from a good one.

    Attributes:
        url: Connect here and not where the TwiML says: an old address, or one that never was.
        signing: Of the upgrade; `https` signs that form of the address.
        call_sid: Another call's, in `start`.
        greeting: The messages that are sent before the sound, in this order.
        stalls: At these chunks nothing is sent for so many seconds, then all of it at once.
        jumps: At these chunks `timestamp` leaps by so many ms: frames were lost on the way.
        reads: It reads what the server says.
    """

    url: str | None = None
    signing: Literal["right", "wrong", "missing", "https"] = "right"
    call_sid: str | None = None
    greeting: tuple[Greeting, ...] = ("connected", "start")
    stalls: Mapping[int, float] | None = None
    jumps: Mapping[int, int] | None = None
    reads: bool = True


NO_FAULTS: Final = StreamFaults()


class MediaStream:
    """The stream of one `<Connect>`.

    Args:
        sid: The StreamSid.
        url: Where to, as the TwiML says.
        call_sid, account_sid: Whose it is.
        parameters: The custom ones.
        speak: Gives the caller's next 20 ms, 160 bytes of µ-law.
        hear: Takes the 20 ms that the caller hears.
        webhooks: Signs, and knows where public addresses lead.

    Attributes:
        playout: What the server has said, and what was played when.
        notes: Errors and warnings, each code once a stream.
        invalid: Every message that could not be used, and why.
        status: The HTTP status that answered the upgrade; 101 when it is up.
        started_at, stopped_at: When `start` was sent, and when the socket was closed.
        ended_by: Who ended it.
        close_code: How the server closed it.
    """

    def __init__(
        self,
        sid: str,
        url: str,
        *,
        call_sid: str,
        account_sid: str,
        parameters: Mapping[str, str],
        speak: Callable[[float], bytes],
        hear: Callable[[bytes, float], None],
        webhooks: Webhooks,
        faults: StreamFaults = NO_FAULTS,
    ) -> None:
        self.sid = sid
        self.url = url
        self.playout = Playout()
        self.notes: list[Note] = []
        self.invalid: list[str] = []
        self.status = 0
        self.started_at: float | None = None
        self.stopped_at: float | None = None
        self.ended_by: EndedBy | None = None
        self.close_code: int | None = None
        self.up = asyncio.Event()
        self._call_sid = call_sid
        self._account_sid = account_sid
        self._parameters = dict(parameters)
        self._speak = speak
        self._hear = hear
        self._webhooks = webhooks
        self._faults = faults
        self._socket: ClientConnection | None = None
        self._sequence = 0
        self._chunk = 0
        self._timestamp = 0
        self._held: list[dict[str, str]] = []
        self._quiet = False
        self._stop_with_message = True

    # --- life

    async def run(self) -> EndedBy:
        """Connect, and stream until the server closes or something breaks; who ended it.

        Cancelled, it says `stop` and closes.
        """
        self.ended_by = "error"
        try:
            socket = await self._connect()
            if socket is not None:
                await self._stream(socket)
        except asyncio.CancelledError:
            self.ended_by = "twilio"
            await self._leave()
            raise
        finally:
            self.stopped_at = time.monotonic()
            self.up.clear()
        return self.ended_by

    async def _connect(self) -> ClientConnection | None:
        url = self._faults.url or self.url
        parts = urlsplit(url)
        if parts.scheme != "wss":
            self._note(31922, f"{url} is not wss")
            return None
        # A query is not carried.
        url = f"wss://{parts.netloc}{parts.path}"
        local, host = self._webhooks.where(url)
        to = urlsplit(local)
        match self._faults.signing:
            case "https":
                headers = self._webhooks.signature(url.replace("wss://", "https://"), {})
            case "right":
                headers = self._webhooks.signature(url, {})
            case other:
                headers = self._webhooks.signature(url, {}, other)
        try:
            self._socket = await connect(
                f"{'wss' if to.scheme == 'https' else 'ws'}://{host}{parts.path}",
                host=to.hostname,
                port=to.port or (443 if to.scheme == "https" else 80),
                additional_headers=headers,
                user_agent_header="Twilio.TmeWs/1.0",
                compression=None,
                proxy=None,
                ping_interval=None,
                open_timeout=UPGRADE_SECONDS,
                max_size=None,
                max_queue=16,
            )
        except InvalidHandshake as error:
            response = getattr(error, "response", None)
            self.status = response.status_code if response is not None else 0
            self._note(31920, f"upgrade: {error}")
            return None
        except TimeoutError:
            self._note(31901, "no answer to the upgrade")
            return None
        except OSError as error:
            self._note(31902, f"refused: {error}")
            return None
        self.status = 101
        return self._socket

    async def _stream(self, socket: ClientConnection) -> None:
        self.up.set()
        pump = asyncio.create_task(self._pump(), name=f"stream {self.sid}")
        try:
            if self._faults.reads:
                await self._read(socket)
            else:
                socket.transport.pause_reading()
                await socket.wait_closed()
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        self.close_code = socket.close_code
        if self.ended_by == "twilio" or any(note.code == 31924 for note in self.notes):
            return
        if socket.protocol.close_rcvd is not None:
            self.ended_by = "server"
            self._note(31921, f"the server has closed ({socket.close_code})")
        elif isinstance(socket.protocol.parser_exc, ProtocolError | UnicodeDecodeError):
            self._note(31924, f"protocol violation: {socket.protocol.parser_exc}")
        else:
            self._note(31921, f"the connection broke ({socket.close_code})")

    async def _leave(self) -> None:
        socket = self._socket
        if socket is None or self._quiet:
            if socket is not None:
                socket.transport.abort()
            return
        if self._stop_with_message:
            stop = {"accountSid": self._account_sid, "callSid": self._call_sid}
            await self._send({"event": "stop", "stop": stop})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await socket.close()

    # --- what a test does to it

    async def press(self, digit: str) -> None:
        """The caller presses a key."""
        await self._send({"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": digit}})

    def go_silent(self) -> None:
        """Say nothing more, and close nothing: a connection of which only one half is left."""
        self._quiet = True
        if self._socket is not None:
            self._socket.transport.pause_reading()

    def skip_stop(self) -> None:
        """Close without `stop` when the time has come."""
        self._stop_with_message = False

    async def close(self) -> None:
        """Close as Twilio does when the stream is over, though the call goes on."""
        self.ended_by = "twilio"
        await self._leave()

    def reset(self) -> None:
        """Reset the connection."""
        if self._socket is not None:
            sock = self._socket.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._socket.transport.abort()

    async def send_raw(self, message: str | bytes) -> None:
        """Send something that Twilio would not."""
        if self._socket is not None:
            await self._socket.send(message)

    # --- towards the server

    async def _send(self, message: dict[str, Any]) -> None:
        if self._socket is None or self._quiet:
            return
        if self._socket.transport.get_write_buffer_size() > _MAX_UNREAD:
            self._note(31930, "the server does not read")
            return
        if message["event"] != "connected":
            self._sequence += 1
            message["sequenceNumber"] = str(self._sequence)
            message["streamSid"] = self.sid
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(json.dumps(message))

    async def _pump(self) -> None:
        """Greet, then every 20 ms: the caller's voice there, the agent's here."""
        for each in self._faults.greeting:
            await self._greet(each)
        self.started_at = time.monotonic()
        if "start" not in self._faults.greeting:
            return
        start = self.started_at + _FIRST_MEDIA_MS / 1000
        self._timestamp = _FIRST_MEDIA_MS
        held_until = 0.0
        for due in range(1_000_000_000):
            at = start + due * _FRAME_SECONDS
            now = time.monotonic()
            if now < at:
                await asyncio.sleep(at - now)
                now = time.monotonic()
            played, marks = self.playout.frame(now)
            self._hear(played, now)
            await self._echo(marks)
            if stall := (self._faults.stalls or {}).get(self._chunk + 1):
                held_until = now + stall
            await self._say(self._speak(now), hold=now < held_until)

    async def _say(self, payload: bytes, *, hold: bool) -> None:
        self._chunk += 1
        self._timestamp += (self._faults.jumps or {}).get(self._chunk, 0)
        media = {
            "track": "inbound",
            "chunk": str(self._chunk),
            "timestamp": str(self._timestamp),
            "payload": base64.b64encode(payload).decode(),
        }
        self._timestamp += FRAME_MS
        self._held.append(media)
        if not hold:
            held, self._held = self._held, []
            for each in held:
                await self._send({"event": "media", "media": each})

    async def _greet(self, which: Greeting) -> None:
        if which == "connected":
            await self._send({"event": "connected", "protocol": "Call", "version": "1.0.0"})
            return
        start = {
            "accountSid": self._account_sid,
            "streamSid": self.sid,
            "callSid": self._faults.call_sid or self._call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
        }
        await self._send({"event": "start", "start": start})

    async def _echo(self, marks: list[str]) -> None:
        for name in marks:
            await self._send({"event": "mark", "mark": {"name": name}})

    # --- from the server

    async def _read(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                pieces = [piece async for piece in socket.recv_streaming()]
                if len(pieces) > 1:
                    self._note(31924, "a fragmented message")
                    await socket.close(1002)
                    return
                await self.take(pieces[0])

    async def take(self, message: str | bytes) -> None:
        """Take a message of the server's; what cannot be used is left out and noted."""
        now = time.monotonic()
        if isinstance(message, bytes):
            self._refuse(31950, "a binary message")
            return
        try:
            said = json.loads(message)
        except ValueError:
            self._refuse(31951, f"no JSON: {message[:80]}")
            return
        wrong = _wrong_with(said, self.sid)
        if wrong:
            self._refuse(31951, wrong)
            return
        match said["event"]:
            case "media":
                payload = base64.b64decode(said["media"]["payload"])
                if payload.startswith(_HEADERS):
                    self.invalid.append("a file's header, which is played as noise")
                if not self.playout.media(payload, now):
                    self._note(31931, "more than ten minutes wait")
            case "mark":
                await self._echo(self.playout.mark(said["mark"]["name"], now))
            case "clear":
                await self._echo(self.playout.clear(now))

    def _refuse(self, code: int, text: str) -> None:
        self.invalid.append(text)
        self._note(code, text)

    def _note(self, code: int, text: str) -> None:
        if all(note.code != code for note in self.notes):
            self.notes.append(Note(code, text, time.monotonic()))


def _wrong_with(said: object, stream_sid: str) -> str:
    """Say what Twilio does not accept of a message; empty when it is good."""
    if not isinstance(said, dict) or said.get("event") not in _OURS:
        return f"unknown event: {str(said)[:80]}"
    event = said["event"]
    field = _OURS[event]
    if said.get("streamSid") != stream_sid:
        return f"streamSid {said.get('streamSid')!r}"
    extra = said.keys() - {"event", "streamSid", *([event] if field else [])}
    if extra:
        return f"{event} with {', '.join(sorted(extra))}"
    if field is None:
        return ""
    inner = said.get(event)
    if not isinstance(inner, dict) or inner.keys() != {field} or not isinstance(inner[field], str):
        return f"{event}: {str(inner)[:80]}"
    if not inner[field]:
        return f"{event} without {field}"
    if event == "media":
        try:
            base64.b64decode(inner[field], validate=True)
        except binascii.Error:
            return "media: a payload that is not base64"
    return ""
