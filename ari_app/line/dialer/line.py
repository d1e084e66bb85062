"""One call of a dialer's, from the moment that it is wanted to the end of its WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import socket as socket_module
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

import structlog
from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType

from ari_app.audio.formats import AgentFormats
from ari_app.errors import LineError
from ari_app.line.base import BaseLine
from ari_app.line.dialer import protocol
from ari_app.line.dialer.api import DialerError
from ari_app.line.dialer.protocol import (
    MAX_MESSAGE_BYTES,
    DigitSaid,
    HangUpSaid,
    HoldSaid,
    MarkSaid,
    TargetSaid,
    UnholdSaid,
)
from ari_app.line.dialer.sound import CODINGS, Coding, Inflow, Lead
from ari_app.line.interface import (
    Ability,
    Answered,
    CallEnd,
    Connected,
    EndCause,
    Ended,
    Hear,
    KeyPressed,
    LineFailed,
    LineFormat,
    LineSound,
    Noticed,
    Opened,
    Outcome,
    OwnAudio,
    PhoneHeld,
    Placing,
    Result,
    Screened,
    SoundLost,
    Status,
    TargetConnected,
    TargetLost,
)
from ari_app.line.websocket_input import BadInput, unreadable
from linekit.clock import FrameClock

log = structlog.get_logger(__name__)

SILENT_SECONDS: Final = 10.0
_LAST_WORDS_SECONDS: Final = 0.5
_CLOSE_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 5.0
_CLOSE_BYTES: Final = 123  # RFC 6455, section 5.5: a control frame has 125
_MOST_UNSENT: Final = 4
"""Messages that wait because the dialer does not read; more frames are left out."""
UNREAD_FRAMES: Final = 3
"""So many may lie in the connection."""
_SEND_BUFFER_BYTES: Final = 8192
_NO_SOUND: Final = LineFormat("none", 8000)
_GONE_WELL: Final = (WSCloseCode.OK, WSCloseCode.GOING_AWAY)


class Socket(Protocol):
    """A WebSocket that is open, as aiohttp's `WebSocketResponse` is one."""

    def __aiter__(self) -> AsyncIterator[WSMessage]: ...

    @property
    def close_code(self) -> int | None: ...

    async def send_str(self, data: str) -> None: ...

    async def send_bytes(self, data: bytes) -> None: ...

    async def close(self, *, code: int, message: bytes) -> object: ...


class Transport(Protocol):
    """What a WebSocket is written to."""

    def get_write_buffer_size(self) -> int: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any: ...

    def abort(self) -> None: ...


class Meeting(Protocol):
    """The way in which a line and its dialer come together: it comes to us, or we go there."""

    async def audio(self) -> OwnAudio:
        """Say where the sound is, and in which format.

        Raises:
            DialerError: That is not to be known.
        """
        ...

    def begin(self, line: DialerLine) -> None:
        """Let the two meet; `serve`, `vanished` or `failed` follows."""
        ...

    def stop(self, line: DialerLine) -> None:
        """Do not let them meet any more; does nothing where they have."""
        ...

    async def over(self, outcome: Outcome, end: CallEnd) -> None:
        """Give back what is left of it, and tell the dialer that the call is over; never raises."""
        ...


class DialerLine(BaseLine):
    """A call that a dialer holds, and whose sound comes over a WebSocket.

    Args:
        line_id: Its name.
        number: Whom the dialer has called.
        how: What else was asked for.
        audio: The sound, as far as it is known.
        clock: Gives out the frames.
        meeting: Brings us and the dialer together.
        on_refused: Called with a reason when the dialer has sent what cannot be used, or should be
            otherwise.
    """

    way = "custom"
    trunk = ""
    rtp = None

    def __init__(
        self,
        line_id: str,
        number: str,
        how: Placing,
        audio: OwnAudio,
        *,
        clock: FrameClock,
        meeting: Meeting,
        on_refused: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.id = line_id
        self.caller, self.called = how.caller_id, number
        self.placed, self.answered = True, False
        self.audio = audio
        self.cause = EndCause()
        self.frames_not_read = 0
        self._seconds = min(how.ring_seconds, audio.seconds)
        self._clock, self._meeting = clock, meeting
        self._on_refused = on_refused
        self._session_id = ""
        self._dialled = False
        self._unknown: DialerError | None = None
        self._sound: LineSound | None = None
        self._stop_ticks: Callable[[], None] = lambda: None
        self._hears_us = self._is_ready = self._holds = self._may_clear = False
        self._waits_in_music = self._handed_over = False
        self._target = ""
        self._targets = 0
        self._brings_in = self._is_joined = False
        self._unsent: asyncio.Queue[bytes | str | None] = asyncio.Queue()
        self._inflow: Inflow | None = None
        self._first_sound = True
        self._socket: Socket | None = None
        self._transport: Transport | None = None
        self._sending: asyncio.Task[None] | None = None
        self._reading: asyncio.Event | None = None
        self._settle(audio)

    def _settle(self, audio: OwnAudio) -> None:
        """Take what is known of the sound."""
        self.audio = audio
        self.abilities = Ability.SEND_KEYS | Ability.TRANSFER | audio.abilities
        if audio.format is None:
            return
        self._coding = coding = CODINGS[audio.format]
        self._silence = coding.encode(bytes(coding.rate_hz * protocol.FRAME_MS // 1000 * 2))
        self._lead = Lead() if audio.theirs else None
        # Since when it has owed a mark, or has read nothing.
        self._owes_since = self._loop.time()

    # --- ari_app.line.interface.Line

    @property
    def reachable(self) -> bool:
        """Whether the dialer is there."""
        return self._socket is not None and not self._over

    def name(self, session_id: str) -> None:
        self._session_id = session_id

    async def prepare(self, agent: AgentFormats) -> LineFormat:
        if self.audio.format is None:
            try:
                self._settle(await self._meeting.audio())
            except DialerError as error:
                self._unknown = error
        if self.audio.format is None:
            return _NO_SOUND
        return LineFormat(self.audio.format, self._coding.rate_hz)

    def ring(self) -> None:
        """Do nothing: the dialer's caller is answered already."""

    def dial(self) -> None:
        if self._unknown is not None:
            self._loop.call_soon(self.failed, self._unknown)
            return
        self._dialled = True
        self._meeting.begin(self)
        self._alarm.call_in(self._seconds, self._absent)

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
            assert self.audio.format is not None, "its dialer is there"
            theirs = self._lead is not None
            self._unsent.put_nowait(
                protocol.ready(self._session_id, self.audio.format, theirs=theirs)
            )
        elif self._waits_in_music:
            self._unsent.put_nowait(protocol.unhold())
        self._waits_in_music = False
        self._owes_since = self._loop.time()
        self._expect_sound()
        self._soon(Connected())

    def music(self) -> None:
        self._hears_us = False
        # Where there is none: silence, until `connect`.
        if Ability.MUSIC in self.abilities and not self._waits_in_music:
            self._waits_in_music = True
            self._unsent.put_nowait(protocol.hold())
            if self._lead is not None:
                # What lies ahead may be thrown away, and would never be marked as heard.
                self._lead.clear()
            self._expect_sound()

    def consult(self, target: str, ring_seconds: float) -> None:
        if Ability.CONSULT not in self.abilities:
            self._soon(TargetLost(Result.FAILED.value))
            return
        self._targets += 1
        self._target = str(self._targets)
        self._unsent.put_nowait(protocol.consult(target, self._target, ring_seconds))

    def bring_in(self, target: str, ring_seconds: float, hear: Hear) -> None:
        if Ability.BRING_IN not in self.abilities:
            self._soon(TargetLost(Result.FAILED.value))
            return
        self._targets += 1
        self._target, self._brings_in = str(self._targets), True
        self._unsent.put_nowait(protocol.bring_in(target, self._target, ring_seconds))

    def drop_target(self) -> None:
        if self._target:
            self._unsent.put_nowait(protocol.drop_target(self._target))
        self._forget_target()

    def hand_over(self) -> None:
        if not self._target:
            self._soon(TargetLost("hung_up"))
            return
        self._handed_over, self._hears_us = True, False
        self._stop_ticks()
        self._sound = None
        self._unsent.put_nowait(protocol.hand_over(self._target))
        self._expect_sound()
        self._soon(Connected())

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

    def checkpoint(self) -> None:
        """Keep nothing: the far end's connection ends with this process."""

    async def close(self, outcome: Outcome, end: CallEnd) -> None:
        if self._closed:
            return
        self._closed = True
        self._tell = self._sound = None
        self._stop_ticks()
        self._alarm.stop()
        self._meeting.stop(self)
        # The service stops, and two who speak need nothing of it.
        left_alone = self._two_speak and outcome.status is not Status.COMPLETED
        await self._close_socket(outcome, [] if left_alone else protocol.last_words(outcome, end))
        if self._dialled and not left_alone:
            await self._meeting.over(outcome, end)

    @property
    def _two_speak(self) -> bool:
        """Whether the dialer has joined its caller with somebody else."""
        return self.reachable and (self._handed_over or self._is_joined)

    async def _close_socket(self, outcome: Outcome, last_words: list[str]) -> None:
        if self._socket is None or self._sending is None or self._reading is None:
            return
        transport = self._transport
        assert transport is not None, "it has come with the socket"
        for text in last_words:
            self._unsent.put_nowait(text)
        self._unsent.put_nowait(None)
        await asyncio.wait({self._sending}, timeout=_LAST_WORDS_SECONDS)
        code = WSCloseCode.OK if last_words else WSCloseCode.GOING_AWAY
        if self._over and self._ended is None:
            code = WSCloseCode.POLICY_VIOLATION
        words = f"{outcome.status}: {outcome.reason}".encode()[:_CLOSE_BYTES]
        is_closed = False
        # A dialer that does not read them would not read this either, and in aiohttp whoever waits
        # to write is cancelled with anybody else who does.
        if self._sending.done():
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._socket.close(code=code, message=words)
                    is_closed = True
        if is_closed:
            # A slow dialer may still read them; one that does not would keep it open.
            self._loop.call_later(_LINGER_SECONDS, transport.abort)
        else:
            transport.abort()
        await self._reading.wait()

    # --- the dialer

    async def serve(self, socket: Socket, transport: Transport) -> None:
        """Hold the call over a WebSocket that is there for it; returns when that is closed.

        Args:
            socket: What has come, or to which we have connected.
            transport: What it is written to, which also ends where its far end does not read.
        """
        if self._closed or self._over:
            # It has ended while the handshake was under way.
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"the call has ended")
            return
        self._alarm.stop()
        self._socket, self._transport, self._reading = socket, transport, asyncio.Event()
        self._unread_bytes = _bound(transport, self._coding)
        self._sending = self._loop.create_task(self._send(socket), name=f"call {self.id} sends")
        assert self.audio.format is not None, "see `dial`"
        self._inflow = Inflow(self.audio.format, self._loop.time())
        self.answered = True
        self._tell_call(Answered())
        try:
            async for message in socket:
                self._received(message)
        finally:
            self._reading.set()
            self._sending.cancel()
            self._gone(socket.close_code)

    def vanished(self) -> None:
        """End: the dialer went away in the middle of its handshake."""
        if not self._over and not self._closed:
            self._on_refused("vanished")
            self._end(Ended(Result.NO_ANSWER.value, Result.NO_ANSWER))

    def failed(self, error: DialerError) -> None:
        """End: the dialer's sound could not be fetched."""
        if not self._over and not self._closed:
            log.warning("dialer_not_reached", call=self.id, code=error.code, error=str(error))
            self.cause = EndCause(detail=f"{error}.".replace("..", "."))
            away = error.code in ("unreachable", "timeout")
            result = Result.UNREACHABLE if away else Result.FAILED
            self._end(Ended(result.value, result))

    def hang_up(self) -> None:
        """End: the dialer's caller has gone."""
        self._end(Ended("caller_hung_up"))

    def _received(self, message: WSMessage) -> None:
        if self._over or self._closed:
            return
        try:
            if message.type is WSMsgType.TEXT:
                assert self._inflow is not None, "see `serve`"
                self._inflow.text_came(self._loop.time())
                self._read(message.data)
            elif message.type is WSMsgType.BINARY:
                self._hear(message.data)
            elif isinstance(message.data, WebSocketError):
                raise unreadable(message.data, MAX_MESSAGE_BYTES)
        except BadInput as error:
            self._refuse(error.reason, str(error))

    def _hear(self, data: bytes) -> None:
        pcm = self._coding.read(data, first=self._first_sound)
        if not self._is_ready:
            raise BadInput("too_early", "Sound came before `ready`.")
        assert self._inflow is not None, "see `serve`"
        self._first_sound = False
        problem = self._inflow.sound_came(len(data), self._loop.time())
        if not self._is_owed_sound:
            # Of whoever is on hold, or speaks with the target.
            self._inflow.pause()
            return
        if problem is not None:
            self._wrong_rate(problem)
        self._expect_sound()
        if self._sound is not None:
            self._sound.heard(pcm)

    def _wrong_rate(self, problem: str) -> None:
        log.warning("dialer_rate", call=self.id, problem=problem)
        self._on_refused("rate")
        self._unsent.put_nowait(protocol.error("rate", problem))
        self._tell_call(Noticed(problem))

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
                self._tell_call(KeyPressed(digit))
            case HoldSaid() | UnholdSaid():
                self._holds = isinstance(said, HoldSaid)
                self._tell_call(PhoneHeld(self._holds))
            case MarkSaid(name=name):
                if self._lead is None:
                    raise BadInput("unknown_mark", "A mark is answered that was not sent.")
                self._lead.heard(name)
                self._owes_since = self._loop.time()
            case TargetSaid():
                self._target_said(said)
        self._expect_sound()

    def _target_said(self, said: TargetSaid) -> None:
        if not (said.id.isascii() and said.id.isdigit() and 0 < int(said.id) <= self._targets):
            raise BadInput("unknown_target", "A target is named that was not asked for.")
        if said.id != self._target:
            return  # it was given up as this was said
        match said.state:
            case "answered" if self._brings_in:
                if not self._is_joined:
                    self._is_joined = True
                    self._tell_call(TargetConnected())
            case "answered" if not self._hears_us and not self._handed_over:
                self._hears_us = True
                self._owes_since = self._loop.time()
                self._tell_call(TargetConnected())
            case "lost":
                self._forget_target()
                self._tell_call(TargetLost(said.result))

    def _forget_target(self) -> None:
        # Whoever heard us was the target.
        self._target = ""
        self._brings_in = self._is_joined = False
        if self._waits_in_music:
            self._hears_us = False

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
        if self._unsent.qsize() >= _MOST_UNSENT or self._is_unread:
            self.frames_not_read += 1
            if self._loop.time() - self._owes_since > SILENT_SECONDS:
                self._refuse("stalled", f"Nothing was read for {SILENT_SECONDS:g} s.")
            return
        self._owes_since = self._loop.time()
        self._may_clear = self._may_clear or frame is not None
        self._unsent.put_nowait(self._silence if frame is None else self._coding.encode(frame))

    @property
    def _is_unread(self) -> bool:
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() > self._unread_bytes

    def _give_ahead(self, sound: LineSound, lead: Lead) -> None:
        if not lead.frames or self._holds:
            self._owes_since = self._loop.time()
        elif self._loop.time() - self._owes_since > SILENT_SECONDS:
            self._refuse("no_marks", f"No mark was answered for {SILENT_SECONDS:g} s.")
            return
        # What is no whole frame yet may go on: it is left until next to nothing else is there.
        while lead.has_room and (sound.frames_ready or lead.runs_out) and not self._over:
            frame = sound.next_frame()
            if frame is not None:
                self._may_clear = True
                self._unsent.put_nowait(self._coding.encode(frame))
            if (name := lead.sent(last=frame is None)) is not None:
                self._unsent.put_nowait(protocol.mark(name))
            if frame is None:
                break

    async def _send(self, socket: Socket) -> None:
        # Being cancelled is an end like any other: the task would keep the error, that this frame,
        # and that the line, which has the task, until a collector comes.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while (piece := await self._unsent.get()) is not None:
                if isinstance(piece, str):
                    await socket.send_str(piece)
                else:
                    await socket.send_bytes(piece)

    # --- what is told

    def _fail(self, event: LineFailed | SoundLost) -> None:
        if self._handed_over:
            # Nothing more is needed of us, and nothing more will be heard of the two.
            self._end(Ended("transferred"))
        elif not self._over:
            if self._target and isinstance(event, SoundLost):
                # Without the dialer nothing is known of the two any more, nor can they be joined.
                event = LineFailed(event.reason)
            self._tell_call(event)
            self._over = True

    def _refuse(self, reason: str, sentence: str) -> None:
        if not self._over and not self._closed:
            log.warning("dialer_refused", call=self.id, reason=reason, problem=sentence)
            self._on_refused(reason)
            self._unsent.put_nowait(protocol.error(reason, sentence))
            self._fail(LineFailed(f"dialer_{reason}"))

    def _absent(self) -> None:
        self._meeting.stop(self)
        self._on_refused("never_came")
        self._end(Ended(Result.NO_ANSWER.value, Result.NO_ANSWER))

    @property
    def _is_owed_sound(self) -> bool:
        """Whether somebody is to be heard: the caller, or the target that we speak with."""
        if self._holds or self._handed_over:
            return False
        return self._hears_us or not self._waits_in_music

    def _expect_sound(self) -> None:
        """Wait for the next sign of life; whoever is on hold owes none."""
        if self._is_owed_sound:
            self._alarm.call_in(SILENT_SECONDS, self._silent)
        else:
            if self._inflow is not None:
                self._inflow.pause()
            self._alarm.stop()

    def _silent(self) -> None:
        self._refuse("silent", f"Nothing came for {SILENT_SECONDS:g} s, not even silence.")


def _bound(transport: Transport, coding: Coding) -> int:
    """Let little lie between us and a dialer that does not read, for it would be heard late; how
    many bytes."""
    most = UNREAD_FRAMES * coding.bytes_a_second * protocol.FRAME_MS // 1000
    transport.set_write_buffer_limits(high=most)
    if (connection := transport.get_extra_info("socket")) is not None:
        connection.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return most
