"""One Media Stream of a call: its socket, its pace, and how far the caller has heard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import ClassVar, Final, Protocol

import structlog
from aiohttp import WSCloseCode, WSMessage, WSMsgType

from ari_app.audio.formats import SAMPLE_BYTES
from ari_app.audio.g711 import pcm_to_ulaw, ulaw_to_pcm
from ari_app.line.base import Alarm
from ari_app.line.twilio import protocol
from ari_app.line.twilio.protocol import (
    FRAME_MS,
    LEAD_MS,
    MAX_MESSAGE_BYTES,
    RATE_HZ,
    Digit,
    Marked,
    Media,
    PlayOut,
    Started,
    Stopped,
    Stream,
)
from ari_app.line.websocket_input import BadInput, FloodGuard, unreadable
from linekit.jitter import JitterBuffer

log = structlog.get_logger(__name__)

START_SECONDS: Final = 2.0
QUIET_SECONDS: Final = 5.0
"""Twilio sends silence, too: without any of it so long, something is wrong."""
SILENT_SECONDS: Final = 10.0
_WATCH_SECONDS: Final = 0.5
_BATCH_MS: Final = 2 * FRAME_MS
"""Sent at once; many tiny messages stutter."""
_DUE_MS: Final = 2.0 * FRAME_MS
"""A frame that is no whole one must be taken now, or there may be a gap before it."""
_MOST_UNSENT: Final = 6
_LATE_MARK_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 1.0
_FRAME_BYTES: Final = RATE_HZ * FRAME_MS // 1000 * SAMPLE_BYTES
_RELAY_BEHIND_MS: Final = 60
_RELAY_PATIENCE: Final = 3
"""Frames for which a voice that is late is still waited for."""


class Socket(Protocol):
    """A WebSocket that is open, as aiohttp's `WebSocketResponse` is one."""

    @property
    def close_code(self) -> int | None: ...

    def __aiter__(self) -> AsyncIterator[WSMessage]: ...

    async def send_str(self, data: str) -> None: ...

    async def close(self, *, code: int, message: bytes) -> object: ...


class Source(Protocol):
    """The part of a `LineSound` that gives sound."""

    @property
    def frames_ready(self) -> int: ...

    def next_frame(self) -> bytes | None: ...


class Relay:
    """The way of one party's voice to another's stream.

    What we have to say, such as that the call is recorded, goes before it.

    Args:
        ours: Gives what we say; None: nothing.
    """

    def __init__(self, ours: Source | None = None) -> None:
        self._ours = ours
        self._waiting = JitterBuffer(
            RATE_HZ * SAMPLE_BYTES // 1000, behind_ms=_RELAY_BEHIND_MS, patience=_RELAY_PATIENCE
        )

    def heard(self, pcm: bytes) -> None:
        """Take what the one says."""
        self._waiting.add(pcm)

    @property
    def frames_ready(self) -> int:
        """How many frames there are for the other."""
        ours = 0 if self._ours is None else self._ours.frames_ready
        return ours or self._waiting.ready_bytes // _FRAME_BYTES

    def next_frame(self) -> bytes | None:
        """Give the other's next 20 ms; None is silence."""
        frame = None if self._ours is None else self._ours.next_frame()
        if frame is not None:
            return frame
        taken = self._waiting.take(_FRAME_BYTES)
        return taken.ljust(_FRAME_BYTES, b"\0") if taken else None


class Owner(Protocol):
    """Whose stream it is."""

    id: str

    def stream_started(self, stream: MediaStream, started: Started) -> None:
        """Take that it has begun; may raise `BadInput`: it is another's."""
        ...

    def stream_heard(self, stream: MediaStream, pcm: bytes) -> None: ...

    def stream_key(self, stream: MediaStream, digit: str) -> None: ...

    def stream_stopped(self, stream: MediaStream) -> None: ...

    def stream_quiet(self, stream: MediaStream) -> None:
        """Take that nothing has come for some seconds."""
        ...

    def stream_refused(self, stream: MediaStream, reason: str) -> None:
        """Take that it has sent what cannot be used, or nothing."""
        ...

    def stream_gone(self, stream: MediaStream, *, closed: bool) -> None:
        """Take that it has ended without a word, `closed` by Twilio or broken."""
        ...


class MediaStream:
    """A stream that has come. Tells its owner what comes, until it is `left`.

    Args:
        owner: Who is told.
        socket: What has come.
        abort: Ends it at once, also where its far end does not read.

    Attributes:
        frames_not_read: How many frames were left out because Twilio did not read.
        moved: The call is being moved away from it: its end means nothing.
    """

    # For mypyc: these attributes may be deleted.
    __deletable__: ClassVar = ["_owner"]

    def __init__(self, owner: Owner, socket: Socket, abort: Callable[[], None]) -> None:
        self.frames_not_read = 0
        self.moved = False
        self._owner, self._socket, self._abort = owner, socket, abort
        self._loop = asyncio.get_running_loop()
        self._stream = Stream()
        self._play_out = PlayOut()
        self._unsent: asyncio.Queue[str | None] = asyncio.Queue()
        self._media_at = self._loop.time()
        self._flood = FloodGuard(self._media_at)
        self._is_quiet = self._over = self._left = False
        self._heard_all = asyncio.Event()
        self._closed = asyncio.Event()
        self._alarm = Alarm()
        self._sending: asyncio.Task[None] | None = None

    @property
    def sid(self) -> str:
        """Its name at Twilio; empty until it is known."""
        return self._stream.sid

    @property
    def begun(self) -> bool:
        """Whether it has said whose it is, and goes on."""
        return bool(self._stream.sid) and not self._over

    @property
    def stopped(self) -> bool:
        """Whether Twilio has said that it is over."""
        return self._stream.over

    async def serve(self) -> None:
        """Take what comes; returns when it is closed."""
        self._sending = self._loop.create_task(self._send(), name=f"call {self._owner.id} sends")
        self._alarm.call_in(START_SECONDS, self._no_start)
        try:
            async for message in self._socket:
                self._received(message)
        finally:
            self._closed.set()
            self._heard_all.set()
            self._sending.cancel()
            self._alarm.stop()
            over, self._over = self._over, True
            if not over and not self._left:
                self._owner.stream_gone(self, closed=self._socket.close_code == WSCloseCode.OK)
            # The owner keeps the stream: the two would keep each other.
            del self._owner

    # --- the caller

    def _received(self, message: WSMessage) -> None:
        if self._over:
            return
        try:
            if message.type is WSMsgType.TEXT:
                if (said := self._stream.read(message.data)) is not None:
                    self._said(said)
            elif message.type is WSMsgType.BINARY:
                raise BadInput("malformed", "A binary message came.")
            elif message.type is WSMsgType.ERROR:
                raise unreadable(message.data, MAX_MESSAGE_BYTES)
        except BadInput as error:
            self._refuse(error.reason, str(error))

    def _said(self, said: protocol.Said) -> None:
        now, owner = self._loop.time(), self._owner
        match said:
            case Media(ulaw):
                self._flood.sound_came(len(ulaw) / RATE_HZ, now)
                self._media_at, self._is_quiet = now, False
                if not self._left:
                    owner.stream_heard(self, ulaw_to_pcm(ulaw))
                return
            case Marked(name):
                self._play_out.marked(name, now)
                if not self._play_out.pending:
                    self._heard_all.set()
            case Digit(digit):
                if not self._left:
                    owner.stream_key(self, digit)
            case Started():
                owner.stream_started(self, said)
                self._media_at = now
                self._alarm.call_in(_WATCH_SECONDS, self._watch)
            case Stopped():
                self._over = True
                self._heard_all.set()
                if not self._left:
                    owner.stream_stopped(self)
        self._flood.text_came(now)

    def _watch(self) -> None:
        gap = self._loop.time() - self._media_at
        if gap >= SILENT_SECONDS:
            self._refuse("silent", f"Nothing came for {SILENT_SECONDS:g} s, not even silence.")
            return
        if gap >= QUIET_SECONDS and not self._is_quiet:
            self._is_quiet = True
            log.warning("twilio_stream_quiet", call=self._owner.id, seconds=round(gap, 1))
            self._owner.stream_quiet(self)
        self._alarm.call_in(_WATCH_SECONDS, self._watch)

    def _no_start(self) -> None:
        self._refuse("no_start", f"There was no `start` within {START_SECONDS:g} s.")

    def _refuse(self, reason: str, sentence: str) -> None:
        if self._over:
            return
        self._over = True
        self._alarm.stop()
        log.warning("twilio_refused", call=self._owner.id, reason=reason, problem=sentence)
        if not self._left:
            self._owner.stream_refused(self, reason)

    # --- the agent

    def give(self, sound: Source, frames: int) -> None:
        """Send what there is room for.

        Args:
            sound: Gives it.
            frames: How much time has passed.
        """
        if self._unsent.qsize() >= _MOST_UNSENT:
            for _ in range(frames):
                if sound.next_frame() is not None:
                    self.frames_not_read += 1
            return
        now, out = self._loop.time(), self._play_out
        ahead_ms = out.ahead_ms(now)
        if ahead_ms > LEAD_MS - _BATCH_MS:
            return
        pieces: list[bytes] = []
        silent = False
        while ahead_ms <= LEAD_MS - FRAME_MS and (sound.frames_ready or ahead_ms <= _DUE_MS):
            if (frame := sound.next_frame()) is None:
                silent = True
                break
            pieces.append(frame)
            ahead_ms += FRAME_MS
        if pieces:
            ulaw = pcm_to_ulaw(b"".join(pieces))
            out.sent(len(ulaw), now)
            self._unsent.put_nowait(protocol.media(self._stream.sid, ulaw))
        if out.mark_due or (silent and out.unmarked):
            self._unsent.put_nowait(protocol.mark(self._stream.sid, out.mark()))

    def take_back(self) -> float:
        """Have thrown away what is not heard yet; how much, in ms."""
        if self._over or not (self._play_out.pending or self._play_out.unmarked):
            return 0.0
        while not self._unsent.empty():
            self._unsent.get_nowait()
        lost_ms = self._play_out.clear(self._loop.time())
        self._unsent.put_nowait(protocol.clear(self._stream.sid))
        return lost_ms

    async def _send(self) -> None:
        # Being cancelled is an end like any other: the task would keep the error, that this frame,
        # and that the stream, which has the task, until a collector comes.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while (piece := await self._unsent.get()) is not None:
                await self._socket.send_str(piece)

    # --- the way out

    async def all_is_heard(self) -> None:
        """Wait until the caller has heard all that was sent, as a mark says; not for ever."""
        out = self._play_out
        if not self.begun:
            return
        if out.unmarked:
            self._unsent.put_nowait(protocol.mark(self._stream.sid, out.mark()))
        if not out.pending:
            return
        self._heard_all.clear()
        seconds = out.unheard_ms(self._loop.time()) / 1000 + _LATE_MARK_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard_all.wait()

    def abort(self) -> None:
        """End it at once: nobody needs it."""
        self._abort()

    def leave(self) -> None:
        """Tell the owner nothing more."""
        self._left = True

    async def close(self, words: str) -> None:
        """Close it.

        Args:
            words: Why, for whoever looks.
        """
        self._left = True
        refused = self._over and not self._stream.over
        self._alarm.stop()
        self._unsent.put_nowait(None)
        sending = self._sending
        assert sending is not None, "it is served"
        await asyncio.wait({sending}, timeout=_CLOSE_SECONDS / 2)
        code = WSCloseCode.POLICY_VIOLATION if refused else WSCloseCode.OK
        # Where nobody reads what came before, this is not read either, and in aiohttp whoever waits
        # to write is cancelled with anybody else who does.
        if sending.done():
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._socket.close(code=code, message=words.encode()[:120])
        # What was not read would keep it open.
        self._abort()
        await self._closed.wait()
