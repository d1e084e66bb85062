"""One call of a dialer's, from the address that it was given to the end of its WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

import structlog
from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType

from ari_app.audio.formats import AgentFormats
from ari_app.errors import LineError
from ari_app.line.dialer import protocol
from ari_app.line.dialer.protocol import (
    CODINGS,
    BadInput,
    DigitSaid,
    HangUpSaid,
    HoldSaid,
    Lead,
    MarkSaid,
    UnholdSaid,
)
from ari_app.line.interface import (
    Ability,
    Answered,
    CallEnd,
    Connected,
    EndCause,
    Ended,
    KeyPressed,
    LineEvent,
    LineFailed,
    LineFormat,
    LineSound,
    Opened,
    Outcome,
    OwnAudio,
    PhoneHeld,
    Placing,
    Result,
    Screened,
    SoundLost,
    TargetLost,
    Tell,
)
from linekit.clock import FrameClock

log = structlog.get_logger(__name__)

SILENT_SECONDS: Final = 10.0
_FASTEST: Final = 10.0
_BURST_SECONDS: Final = 30.0
"""So much may come at once after a hold-up, and so many times as fast as it is spoken."""
_TEXT_SECONDS: Final = 0.02
"""What a text message counts for."""
_LAST_WORDS_SECONDS: Final = 0.5
_CLOSE_SECONDS: Final = 1.0
_MOST_UNSENT: Final = 4
"""Messages that wait because the dialer does not read; more frames are left out."""
_GONE_WELL: Final = (WSCloseCode.OK, WSCloseCode.GOING_AWAY)


class Socket(Protocol):
    """A WebSocket that is open, as aiohttp's `WebSocketResponse` is one."""

    def __aiter__(self) -> AsyncIterator[WSMessage]: ...

    @property
    def close_code(self) -> int | None: ...

    async def send_str(self, data: str) -> None: ...

    async def send_bytes(self, data: bytes) -> None: ...

    async def close(self, *, code: int, message: bytes) -> object: ...


class DialerLine:
    """A call that a dialer holds, and for which it brings the sound.

    Args:
        line_id: Its name.
        number: Whom the dialer has called.
        how: What else was asked for.
        audio: The sound that it brings.
        clock: Gives out the frames.
        expect: Called by `dial`: the dialer may come now.
        forget: Called when it has come, or must not come any more.
        on_refused: Called with a reason when the dialer has sent what cannot be used.
    """

    way = "custom"
    abilities = Ability.SEND_KEYS | Ability.TRANSFER
    rtp = None
    cause = EndCause()

    def __init__(
        self,
        line_id: str,
        number: str,
        how: Placing,
        audio: OwnAudio,
        *,
        clock: FrameClock,
        expect: Callable[[DialerLine], None],
        forget: Callable[[DialerLine], None],
        on_refused: Callable[[str], None],
    ) -> None:
        self.id = line_id
        self.caller, self.called = how.caller_id, number
        self.placed, self.answered = True, False
        self.audio = audio
        self.frames_not_read = 0
        self._seconds = min(how.ring_seconds, audio.seconds)
        self._coding = coding = CODINGS[audio.format]
        self._silence = coding.encode(bytes(coding.rate_hz * protocol.FRAME_MS // 1000 * 2))
        self._lead = Lead() if audio.theirs else None
        self._clock, self._expect, self._forget = clock, expect, forget
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        self._session_id = ""
        self._tell: Tell | None = None
        self._ended: Ended | None = None
        self._over = self._closed = False
        self._sound: LineSound | None = None
        self._stop_ticks: Callable[[], None] = lambda: None
        self._hears_us = self._is_ready = self._holds = self._may_clear = False
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: asyncio.Queue[bytes | str | None] = asyncio.Queue()
        self._came_at = self._seconds_came = 0.0
        self._socket: Socket | None = None
        self._abort: Callable[[], None] = lambda: None
        self._sending: asyncio.Task[None] | None = None
        self._reading: asyncio.Event | None = None

    # --- ari_app.line.interface.Line

    @property
    def reachable(self) -> bool:
        """Whether the dialer is there."""
        return self._socket is not None and not self._over

    def listen(self, tell: Tell) -> None:
        self._tell = tell
        if self._ended is not None:
            tell(self._ended)

    def name(self, session_id: str) -> None:
        self._session_id = session_id

    async def prepare(self, agent: AgentFormats) -> LineFormat:
        return LineFormat(self.audio.format, self._coding.rate_hz)

    def ring(self) -> None:
        """Do nothing: the dialer's caller is answered already."""

    def dial(self) -> None:
        self._expect(self)
        self._wait(self._seconds, self._absent)

    def screen(self) -> None:
        self._soon(Screened("HUMAN", "dialer"))

    def open(self, sound: LineSound, seconds: float) -> None:
        self._sound = sound
        self._stop_ticks = self._clock.add(self._tick)
        self._soon(Opened())

    def connect(self) -> None:
        self._hears_us = True
        if not self._is_ready:
            self._is_ready = True
            theirs = self._lead is not None
            self._unsent.put_nowait(
                protocol.ready(self._session_id, self.audio.format, theirs=theirs)
            )
            self._expect_sound()
        self._soon(Connected())

    def music(self) -> None:
        # There is none: silence, until `connect`.
        self._hears_us = False

    def consult(self, target: str, ring_seconds: float) -> None:
        self._soon(TargetLost(Result.FAILED.value))

    def drop_target(self) -> None:
        """Do nothing: there is no third party."""

    def hand_over(self) -> None:
        """Do nothing: there is nobody to join with."""

    def take_back(self) -> float:
        if not self._may_clear:
            return 0.0
        self._may_clear = False
        self._unsent.put_nowait(protocol.clear())
        return 0.0 if self._lead is None else float(self._lead.clear() * protocol.FRAME_MS)

    async def send_keys(self, keys: str) -> None:
        if not self.reachable:
            raise LineError("the dialer is not there", code="not_possible")
        self._unsent.put_nowait(protocol.send_digits(keys))

    async def set_variable(self, name: str, value: str) -> None:
        raise LineError("a dialer of one's own has no variables", code="not_possible")

    async def close(self, outcome: Outcome, end: CallEnd) -> None:
        if self._closed:
            return
        self._closed = True
        self._tell = self._sound = None
        self._stop_ticks()
        self._wait(0, None)
        self._forget(self)
        if self._socket is None or self._sending is None or self._reading is None:
            return
        for text in protocol.last_words(outcome, end):
            self._unsent.put_nowait(text)
        self._unsent.put_nowait(None)
        # A dialer that does not read gets them late, or never.
        await asyncio.wait({self._sending}, timeout=_LAST_WORDS_SECONDS)
        code = WSCloseCode.POLICY_VIOLATION if self._over and self._ended is None else None
        words = f"{outcome.status}: {outcome.reason}".encode()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._socket.close(code=code or WSCloseCode.OK, message=words)
        if not self._reading.is_set():
            self._abort()
        await self._reading.wait()

    # --- the dialer

    async def serve(self, socket: Socket, abort: Callable[[], None]) -> None:
        """Hold the call over a WebSocket that has come for it; returns when that is closed.

        Args:
            socket: What has come.
            abort: Ends it at once, also where its far end does not read.
        """
        if self._closed or self._over:
            # It has ended while the handshake was answered.
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"the call has ended")
            return
        self._forget(self)
        self._wait(0, None)
        self._socket, self._reading = socket, asyncio.Event()
        self._sending = self._loop.create_task(self._send(socket), name=f"call {self.id} sends")
        self._abort = abort
        self._came_at = self._loop.time()
        self.answered = True
        self._told(Answered())
        try:
            async for message in socket:
                self._received(message)
        finally:
            self._reading.set()
            self._sending.cancel()
            self._gone(socket.close_code)

    def hang_up(self) -> None:
        """End: the dialer's caller has gone."""
        self._end(Ended("caller_hung_up"))

    def _received(self, message: WSMessage) -> None:
        if self._over or self._closed:
            return
        try:
            if message.type is WSMsgType.TEXT:
                self._came(_TEXT_SECONDS)
                self._read(message.data)
            elif message.type is WSMsgType.BINARY:
                self._hear(message.data)
            elif message.type is WSMsgType.ERROR:
                raise _unreadable(message.data)
        except BadInput as error:
            self._refuse(error.reason, str(error))

    def _hear(self, data: bytes) -> None:
        pcm = self._coding.read(data)
        if not self._is_ready:
            raise BadInput("too_early", "Sound came before `ready`.")
        self._came(len(pcm) / 2 / self._coding.rate_hz)
        self._expect_sound()
        if self._sound is not None:
            self._sound.heard(pcm)

    def _came(self, seconds: float) -> None:
        self._seconds_came += seconds
        if self._seconds_came > _BURST_SECONDS + _FASTEST * (self._loop.time() - self._came_at):
            raise BadInput("too_fast", f"Over {_FASTEST:g} times as much came as time has passed.")

    def _read(self, text: str) -> None:
        said = protocol.read_text(text)
        if isinstance(said, HangUpSaid):
            log.info("dialer_hung_up", call=self.id, reason=said.reason)
            self.hang_up()
            return
        if not self._is_ready:
            raise BadInput("too_early", f"A `{said.type}` came before `ready`.")
        match said:
            case DigitSaid(digit=digit):
                self._told(KeyPressed(digit))
            case HoldSaid() | UnholdSaid():
                self._holds = isinstance(said, HoldSaid)
                self._told(PhoneHeld(self._holds))
            case MarkSaid(name=name):
                if self._lead is None:
                    raise BadInput("unknown_mark", "A mark is answered that was not sent.")
                self._lead.heard(name)
        self._expect_sound()

    def _gone(self, code: int | None) -> None:
        if code in _GONE_WELL:
            self.hang_up()
        else:
            self._fail(SoundLost("line_lost"))

    # --- our side

    def _tick(self, frames: int) -> None:
        sound = self._sound
        if sound is None:
            return
        for _ in range(frames):
            sound.tick()
            if self._lead is None or not self._hears_us:
                self._give(sound.next_frame())
        if self._lead is not None and self._hears_us:
            self._give_ahead(sound, self._lead)

    def _give(self, frame: bytes | None) -> None:
        if not self._hears_us or self._over:
            return
        if self._unsent.qsize() >= _MOST_UNSENT:
            self.frames_not_read += 1
            return
        self._may_clear = self._may_clear or frame is not None
        self._unsent.put_nowait(self._silence if frame is None else self._coding.encode(frame))

    def _give_ahead(self, sound: LineSound, lead: Lead) -> None:
        while lead.has_room and not self._over:
            frame = sound.next_frame()
            if frame is not None:
                self._may_clear = True
                self._unsent.put_nowait(self._coding.encode(frame))
            if (name := lead.sent(last=frame is None)) is not None:
                self._unsent.put_nowait(protocol.mark(name))
            if frame is None:
                break

    async def _send(self, socket: Socket) -> None:
        with contextlib.suppress(ConnectionError):
            while (piece := await self._unsent.get()) is not None:
                if isinstance(piece, str):
                    await socket.send_str(piece)
                else:
                    await socket.send_bytes(piece)

    # --- what is told

    def _soon(self, event: LineEvent) -> None:
        self._loop.call_soon(self._told, event)

    def _told(self, event: LineEvent) -> None:
        if self._tell is not None and not self._closed and (not self._over or event is self._ended):
            self._tell(event)

    def _end(self, ended: Ended) -> None:
        if not self._over:
            self._over, self._ended = True, ended
            self._told(ended)

    def _fail(self, event: LineFailed | SoundLost) -> None:
        if not self._over:
            self._told(event)
            self._over = True

    def _refuse(self, reason: str, sentence: str) -> None:
        if not self._over and not self._closed:
            log.warning("dialer_refused", call=self.id, reason=reason, problem=sentence)
            self._on_refused(reason)
            self._fail(LineFailed(f"dialer_{reason}"))

    def _absent(self) -> None:
        self._forget(self)
        self._on_refused("never_came")
        self._end(Ended(Result.NO_ANSWER.value, Result.NO_ANSWER))

    def _expect_sound(self) -> None:
        """Wait for the next sign of life; whoever is on hold owes none."""
        if self._holds:
            self._wait(0, None)
        else:
            self._wait(SILENT_SECONDS, self._silent)

    def _silent(self) -> None:
        self._refuse("silent", f"Nothing came for {SILENT_SECONDS:g} s, not even silence.")

    def _wait(self, seconds: float, then: Callable[[], None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if then is None else self._loop.call_later(seconds, then)


def _unreadable(error: object) -> BadInput:
    """Return what is wrong with what aiohttp could not read; it has closed the socket."""
    if isinstance(error, WebSocketError) and error.code == WSCloseCode.MESSAGE_TOO_BIG:
        return BadInput("oversized", f"A message had over {protocol.MAX_MESSAGE_BYTES} bytes.")
    return BadInput("malformed", "What came is no WebSocket message (RFC 6455).")
