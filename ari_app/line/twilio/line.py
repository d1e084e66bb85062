"""One call of Twilio's: the answer to its webhook, its Media Stream, and what comes after it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import structlog
from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType

from ari_app.audio.formats import AgentFormats
from ari_app.audio.g711 import pcm_to_ulaw, ulaw_to_pcm
from ari_app.errors import LineError
from ari_app.line.interface import (
    Ability,
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
    Placing,
    Result,
    Screened,
    SoundLost,
    Status,
    TargetLost,
    Tell,
)
from ari_app.line.twilio import protocol, twiml
from ari_app.line.twilio.protocol import (
    ANSWERED,
    FRAME_MS,
    LEAD_MS,
    MAX_MESSAGE_BYTES,
    RATE_HZ,
    TERMINAL,
    BadInput,
    Digit,
    Marked,
    Media,
    PlayOut,
    Progress,
    Started,
    Stopped,
    Stream,
)
from ari_app.line.twilio.rest import CallInfo, Fields, TwilioError
from ari_app.line.twilio.twiml import E164, Elsewhere, Ending
from linekit.clock import FrameClock

log = structlog.get_logger(__name__)

FORMAT: Final = LineFormat("ulaw_8000", RATE_HZ)
ANSWER_SECONDS: Final = 12.0
"""Twilio waits 15 s for the answer to its webhook."""
START_SECONDS: Final = 2.0
QUIET_SECONDS: Final = 5.0
"""Twilio sends silence, too: without any of it so long, something is wrong."""
SILENT_SECONDS: Final = 10.0
_WATCH_SECONDS: Final = 0.5
_NO_STREAM_SECONDS: Final = 2.5
_BATCH_MS: Final = 2 * FRAME_MS
"""Sent at once; many tiny messages stutter."""
_DUE_MS: Final = 2.0 * FRAME_MS
"""A frame that is no whole one must be taken now, or there may be a gap before it."""
_MOST_UNSENT: Final = 6
_FASTEST: Final = 10.0
_BURST_SECONDS: Final = 30.0
_TEXT_SECONDS: Final = 0.02
_LATE_MARK_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 1.0
_AFTER_SECONDS: Final = 3.0
_REST_SECONDS: Final = 11.0
_VERDICT_SECONDS: Final = 10.0
"""Less than a call waits for it."""
_DETECTION_SECONDS: Final = 8
_CLOSED_LOOKS: Final = (0.3, 0.7)
"""When a call is looked at whose stream has closed."""
_LOOKS: Final = (0.0, 1.0, 2.0)
"""When a call is looked for of which the answer was lost."""
_KEYS: Final = frozenset("0123456789*#ABCD")
_RESULTS: Final = MappingProxyType(
    {
        **dict.fromkeys((21201, 21211, 21217, 21401), Result.INVALID_NUMBER),
        **dict.fromkeys((21214, 32017), Result.UNREACHABLE),
        **dict.fromkeys((21215, 21216, 21219), Result.REJECTED),
    }
)
_WHY: Final = MappingProxyType(
    {
        21210: "the caller's number is neither TWILIO_PHONE_NUMBER nor verified at Twilio",
        21212: "the caller's number is not one that Twilio can show",
        21215: "the account may not call that country (Voice Geographic Permissions)",
        21219: "a trial account calls verified numbers only",
        10004: "the account has as many calls as it may have",
    }
)


class Socket(Protocol):
    """A WebSocket that is open, as aiohttp's `WebSocketResponse` is one."""

    @property
    def close_code(self) -> int | None: ...

    def __aiter__(self) -> AsyncIterator[WSMessage]: ...

    async def send_str(self, data: str) -> None: ...

    async def close(self, *, code: int, message: bytes) -> object: ...


class Rest(Protocol):
    """The requests of a line, as `TwilioApi` carries them out."""

    async def create(self, fields: Fields) -> CallInfo: ...

    async def find(self, call_sid: str) -> CallInfo | None: ...

    async def placed(self, to: str, sender: str, within_seconds: float) -> list[str]: ...

    async def update(self, call_sid: str, fields: Fields) -> bool: ...


class Book(Protocol):
    """Where lines are found by what Twilio says of them; the gateway is one."""

    def enter(self, line: TwilioLine) -> None:
        """Let it be found by its token, its call and its name."""
        ...

    def withdraw(self, line: TwilioLine) -> None:
        """Let nobody come with its token any more."""
        ...

    def leave(self, line: TwilioLine) -> None:
        """Let it be found no more; what comes after it is still known for a while."""
        ...

    def is_known(self, call_sid: str) -> bool:
        """Whether a call belongs to one of our lines."""
        ...


@dataclass(frozen=True, slots=True)
class TwilioOptions:
    """The facts that all lines share.

    Attributes:
        public_url: How Twilio reaches us, without a slash at its end.
        account_sid: Whose calls they are.
        number: What people whom we call see; None: each request says.
        elsewhere: Where callers go on after the agent.
    """

    public_url: str
    account_sid: str
    number: str | None = None
    elsewhere: Elsewhere = field(default_factory=Elsewhere)

    def url(self, path: str) -> str:
        """Return where Twilio reaches a path of ours."""
        return self.public_url + path

    def stream_url(self, token: str) -> str:
        """Return where Twilio connects a stream."""
        return "ws" + self.url(MEDIA_PATH.format(token=token)).removeprefix("http")


VOICE_PATH: Final = "/twilio/voice"
AFTER_PATH: Final = "/twilio/after"
STATUS_PATH: Final = "/twilio/status"
MEDIA_PATH: Final = "/twilio/media/{token}"


class TwilioLine:
    """A call that Twilio holds.

    Args:
        line_id: Its name: the call's at Twilio, or for one that we place our own.
        caller, called: The numbers.
        options: What all lines share.
        rest: Carries out requests.
        clock: Gives out the frames.
        book: Where it is found.
        on_refused: Called with a reason when what came cannot be used.
        call_sid: The call's name at Twilio; empty: it is still to be placed.
        answered: It is up already.
        placing: How it is to be placed; None: it has come in.
    """

    way = "twilio"
    rtp = None

    def __init__(
        self,
        line_id: str,
        caller: str,
        called: str,
        *,
        options: TwilioOptions,
        rest: Rest,
        clock: FrameClock,
        book: Book,
        on_refused: Callable[[str], None],
        call_sid: str = "",
        answered: bool = False,
        placing: Placing | None = None,
    ) -> None:
        self.id, self.caller, self.called = line_id, caller, called
        self.placed, self.answered = placing is not None, answered
        self.call_sid = call_sid
        self.session_id = ""
        self.token = secrets.token_urlsafe(24)
        self.frames_not_read = 0
        self._placing = placing or Placing()
        self._options, self._rest, self._clock, self._book = options, rest, clock, book
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        self._progress = Progress(placed=self.placed, answered=answered)
        self._detail: str | None = None
        self._variables: dict[str, str] = {}

        self._tell: Tell | None = None
        self._ended: Ended | None = None
        self._over = self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._creating: asyncio.Task[None] | None = None
        self._document: asyncio.Future[str] = self._loop.create_future()
        self._ending: asyncio.Future[Ending] = self._loop.create_future()
        self._asked_after = asyncio.Event()

        self._sound: LineSound | None = None
        self._stop_ticks: Callable[[], None] = lambda: None
        self._hears_us = self._is_asked = False
        self._timer: asyncio.TimerHandle | None = None
        self._verdict: Screened | None = None
        self._verdict_timer: asyncio.TimerHandle | None = None

        self._stream = Stream()
        self._play_out = PlayOut()
        self._unsent: asyncio.Queue[str | None] = asyncio.Queue()
        self._came_at = self._seconds_came = self._media_at = 0.0
        self._is_quiet = False
        self._heard_all: asyncio.Event | None = None
        self._socket: Socket | None = None
        self._abort: Callable[[], None] = lambda: None
        self._sending: asyncio.Task[None] | None = None
        self._reading: asyncio.Event | None = None

    # --- ari_app.line.interface.Line

    @property
    def abilities(self) -> Ability:
        can = Ability.RING | Ability.TRANSFER | Ability.SCREEN
        return can if self._options.elsewhere.url is None else can | Ability.SET_VARIABLE

    @property
    def reachable(self) -> bool:
        """Whether the stream is there, or Twilio waits for our answer."""
        return not self._over

    @property
    def cause(self) -> EndCause:
        """Why the far side has ended."""
        return replace(self._progress.cause, detail=self._detail)

    def listen(self, tell: Tell) -> None:
        self._tell = tell
        if self._ended is not None:
            tell(self._ended)

    def name(self, session_id: str) -> None:
        self.session_id = session_id

    async def prepare(self, agent: AgentFormats) -> LineFormat:
        return FORMAT

    def ring(self) -> None:
        """Do nothing: while Twilio waits for our answer the caller hears ringing."""

    def dial(self) -> None:
        self._book.enter(self)
        self._creating = self._spawn(self._create())

    def screen(self) -> None:
        if self._verdict is None and self._placing.screened:
            self._is_asked = True
            self._verdict_timer = self._loop.call_later(
                _VERDICT_SECONDS, self.judged, Screened("NOTSURE", "no_verdict")
            )
        else:
            self._soon(self._verdict or Screened("HUMAN", "not_asked"))

    def open(self, sound: LineSound, seconds: float) -> None:
        self._sound = sound
        self._stop_ticks = self._clock.add(self._tick)
        self._soon(Opened())

    def connect(self) -> None:
        self._hears_us = True
        if self._stream.sid:
            self._soon(Connected())
        else:
            # `start` says the rest.
            self._answer()
            if self._socket is None:
                self._wait(_NO_STREAM_SECONDS, self._no_stream)

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
        if not (self._play_out.pending or self._play_out.unmarked):
            return 0.0
        while not self._unsent.empty():
            self._unsent.get_nowait()
        lost_ms = self._play_out.clear(self._loop.time())
        self._unsent.put_nowait(protocol.clear(self._stream.sid))
        return lost_ms

    async def send_keys(self, keys: str) -> None:
        raise LineError("a Media Stream has no keys towards the caller", code="not_possible")

    async def set_variable(self, name: str, value: str) -> None:
        if Ability.SET_VARIABLE not in self.abilities:
            raise LineError("nobody goes on with the caller", code="not_possible")
        self._variables[name] = value

    async def close(self, outcome: Outcome, end: CallEnd) -> None:
        if self._closed:
            return
        self._closed = True
        healthy = not self._over
        self._tell = self._sound = None
        self._stop_ticks()
        self._wait(0, None)
        if self._verdict_timer is not None:
            self._verdict_timer.cancel()
        self._ending.set_result(self._ending_for(outcome, end))
        try:
            await self._give_back(outcome, healthy=healthy)
        except Exception:
            log.exception("twilio_line_not_given_back", call=self.id)
        finally:
            self._book.leave(self)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the webhooks

    async def document(self) -> str:
        """Return the answer to Twilio's webhook, as soon as it is known.

        Until then the caller hears ringing. A call that takes too long to be decided is answered:
        what comes of it is found out by what comes after the stream.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.shield(self._document)
        self._answer()
        return self._document.result()

    async def after(self) -> str:
        """Return what comes after the stream: Twilio asks, for the stream has ended."""
        self._asked_after.set()
        if not self._ending.done():
            # It broke, and nobody has noticed yet.
            self._fail(SoundLost("line_lost"))
        try:
            async with asyncio.timeout(_AFTER_SECONDS):
                ending = await asyncio.shield(self._ending)
        except TimeoutError:
            ending = self._ending_for(Outcome(Status.FAILED, "line_lost"), CallEnd(self.session_id))
        return self._after(ending)

    @property
    def ending(self) -> Ending | None:
        """How the agent's part has ended; None: it has not."""
        return self._ending.result() if self._ending.done() else None

    def reported(self, status: str, sip_code: int | None = None) -> None:
        """Take what Twilio says of the call."""
        events = self._progress.heard(status, sip_code)
        self.answered = self._progress.answered
        for event in events:
            if isinstance(event, Ended):
                self._end(event)
            else:
                self._told(event)

    def judged(self, found: Screened) -> None:
        """Take what is known of who has answered; the first counts."""
        if self._verdict is not None:
            return
        self._verdict = found
        if self._verdict_timer is not None:
            self._verdict_timer.cancel()
        if self._is_asked:
            self._told(found)

    def is_called(self, call_sid: str) -> None:
        """Take the call's name at Twilio, by whatever is heard of it first."""
        if not self.call_sid:
            self.call_sid = call_sid
            log.info("twilio_call_placed", call=self.id, call_sid=call_sid)
            self._book.enter(self)

    def _answer(self) -> None:
        """Let Twilio connect the stream."""
        if self._document.done() or self.placed:
            return
        self._book.enter(self)
        self._document.set_result(self._stream_document())

    def _stream_document(self) -> str:
        options = self._options
        return twiml.stream(
            options.stream_url(self.token),
            after=options.url(AFTER_PATH),
            status=options.url(STATUS_PATH),
            session_id=self.session_id,
        )

    def _ending_for(self, outcome: Outcome, end: CallEnd) -> Ending:
        own = self.called if self.placed else self.caller
        if E164.fullmatch(own) is None and not self.placed:
            own = self.called
        return Ending(outcome, end, own if E164.fullmatch(own) else None, dict(self._variables))

    def _after(self, ending: Ending) -> str:
        return twiml.after(
            ending,
            self._options.elsewhere,
            dialled=self._options.url(after_query(ending)),
            placed=self.placed,
        )

    # --- placing a call

    async def _create(self) -> None:
        options, placing = self._options, self._placing
        sender = placing.caller_id or options.number
        if sender is None:
            self._detail = "Neither caller_number nor TWILIO_PHONE_NUMBER says who calls."
            self._end(Ended(Result.FAILED.value, Result.FAILED))
            return
        self.caller = sender
        status_url = options.url(f"{STATUS_PATH}?call={self.session_id}")
        fields: dict[str, str | list[str]] = {
            "To": self.called,
            "From": sender,
            "Twiml": self._stream_document(),
            "Timeout": str(max(1, round(placing.ring_seconds))),
            "StatusCallback": status_url,
            "StatusCallbackMethod": "POST",
            "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
        }
        if placing.screened:
            fields |= {
                "MachineDetection": "Enable",
                "MachineDetectionTimeout": str(_DETECTION_SECONDS),
                "AsyncAmd": "true",
                "AsyncAmdStatusCallback": status_url,
                "AsyncAmdStatusCallbackMethod": "POST",
            }
        asked_at = self._loop.time()
        try:
            info = await self._rest.create(fields)
        except TwilioError as error:
            if error.may_be_done and await self._was_placed(sender, asked_at):
                return
            self._not_placed(error)
        else:
            self.is_called(info.sid)
            self.reported(info.status)

    async def _was_placed(self, sender: str, asked_at: float) -> bool:
        """Return whether a call was placed though the answer was lost; asking anew might call
        twice."""
        log.warning("twilio_answer_lost", call=self.id)
        for pause in _LOOKS:
            await asyncio.sleep(pause)
            if self.call_sid:
                return True  # Something was heard of it.
            with contextlib.suppress(TwilioError):
                found = await self._rest.placed(self.called, sender, self._loop.time() - asked_at)
                for call_sid in found:
                    if not self._book.is_known(call_sid):
                        self.is_called(call_sid)
                        return True
        return bool(self.call_sid)

    def _not_placed(self, error: TwilioError) -> None:
        result = _RESULTS.get(error.number, Result.FAILED)
        why = _WHY.get(error.number)
        self._detail = f"{error} ({why})" if why else str(error)
        log.warning("twilio_call_not_placed", call=self.id, code=error.code, error=self._detail)
        self._end(Ended(result.value, result))

    # --- the stream

    async def serve(self, socket: Socket, abort: Callable[[], None]) -> None:
        """Hold the call over a stream that has come for it; returns when that is closed.

        Args:
            socket: What has come.
            abort: Ends it at once, also where its far end does not read.
        """
        self._book.withdraw(self)
        if self._closed or self._over:
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"the call has ended")
            return
        self._socket, self._abort, self._reading = socket, abort, asyncio.Event()
        self._sending = self._loop.create_task(self._send(socket), name=f"call {self.id} sends")
        self._came_at = self._loop.time()
        self._wait(START_SECONDS, self._no_start)
        try:
            async for message in socket:
                self._received(message)
        finally:
            self._reading.set()
            self._sending.cancel()
            if self._heard_all is not None:
                self._heard_all.set()
            if not self._over and not self._closed:
                self._spawn(self._find_out(closed=socket.close_code == WSCloseCode.OK))

    def stream_failed(self, why: str) -> None:
        """Take Twilio's word that the stream could not be, or broke."""
        log.warning("twilio_stream_failed", call=self.id, error=why)
        self._fail(SoundLost("line_lost") if self._stream.sid else LineFailed("twilio_no_stream"))

    def _received(self, message: WSMessage) -> None:
        if self._over:
            return
        try:
            if message.type is WSMsgType.TEXT:
                said = self._stream.read(message.data)
                if said is not None:
                    self._said(said)
            elif message.type is WSMsgType.BINARY:
                raise BadInput("malformed", "A binary message came.")
            elif message.type is WSMsgType.ERROR:
                raise _unreadable(message.data)
        except BadInput as error:
            self._refuse(error.reason, str(error))

    def _said(self, said: protocol.Said) -> None:
        now = self._loop.time()
        match said:
            case Media(ulaw):
                self._came(len(ulaw) / RATE_HZ, now)
                self._media_at, self._is_quiet = now, False
                if self._sound is not None:
                    self._sound.heard(ulaw_to_pcm(ulaw))
                return
            case Marked(name):
                self._play_out.marked(name, now)
                if self._heard_all is not None and not self._play_out.pending:
                    self._heard_all.set()
            case Digit(digit):
                if digit in _KEYS:
                    self._told(KeyPressed(digit))
            case Started():
                self._started(said, now)
            case Stopped():
                self._end(Ended("caller_hung_up"))
        self._came(_TEXT_SECONDS, now)

    def _started(self, started: Started, now: float) -> None:
        self.is_called(started.call_sid)
        if (started.account_sid, started.call_sid) != (self._options.account_sid, self.call_sid):
            raise BadInput("wrong_call", "The stream belongs to another call.")
        if started.parameters.get("session_id", self.session_id) != self.session_id:
            raise BadInput("wrong_call", "The stream was given to another call.")
        self._media_at = now
        self._wait(_WATCH_SECONDS, self._watch)
        self.reported(ANSWERED)
        if self._hears_us:
            self._told(Connected())

    def _came(self, seconds: float, now: float) -> None:
        self._seconds_came += seconds
        if self._seconds_came > _BURST_SECONDS + _FASTEST * (now - self._came_at):
            raise BadInput("too_fast", f"Over {_FASTEST:g} times as much came as time has passed.")

    def _tick(self, frames: int) -> None:
        sound = self._sound
        if sound is None:
            return
        for _ in range(frames):
            sound.tick()
        if not self._stream.sid or self._over:
            return
        if not self._hears_us or self._unsent.qsize() >= _MOST_UNSENT:
            # Time goes on all the same.
            for _ in range(frames):
                if sound.next_frame() is not None and self._hears_us:
                    self.frames_not_read += 1
        else:
            self._give(sound)

    def _give(self, sound: LineSound) -> None:
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

    async def _send(self, socket: Socket) -> None:
        with contextlib.suppress(ConnectionError):
            while (piece := await self._unsent.get()) is not None:
                await socket.send_str(piece)

    # --- what may go wrong with it

    def _watch(self) -> None:
        gap = self._loop.time() - self._media_at
        if gap >= SILENT_SECONDS:
            self._on_refused("silent")
            log.warning("twilio_stream_silent", call=self.id, seconds=round(gap, 1))
            self._fail(SoundLost("line_silent"))
            return
        if gap >= QUIET_SECONDS and not self._is_quiet:
            self._is_quiet = True
            log.warning("twilio_stream_quiet", call=self.id, seconds=round(gap, 1))
            self._spawn(self._look_up())
        self._wait(_WATCH_SECONDS, self._watch)

    def _no_start(self) -> None:
        self._refuse("no_start", f"There was no `start` within {START_SECONDS:g} s.")

    def _no_stream(self) -> None:
        if not self._stream.sid and self._socket is None and self.call_sid:
            # The caller may have hung up while it rang: nobody tells us then.
            self._spawn(self._look_up())

    async def _look_up(self) -> str | None:
        """Ask Twilio what has become of the call; None where it does not say."""
        try:
            info = await self._rest.find(self.call_sid)
        except TwilioError as error:
            log.warning("twilio_look_up_failed", call=self.id, code=error.code)
            return None
        status = "completed" if info is None else info.status
        if status in TERMINAL:
            self.reported(status)
        return status

    async def _find_out(self, *, closed: bool) -> None:
        """Find out why the stream has ended without a word.

        Args:
            closed: Twilio has closed it: mostly for the caller has hung up, and neither the call's
                state nor the callback about it is there yet. If the call goes on, Twilio asks what
                comes after the stream.
        """
        for pause in _CLOSED_LOOKS if closed else (0.0,):
            await asyncio.sleep(pause)
            if self._over or await self._look_up() in TERMINAL:
                return
        self._fail(SoundLost("line_lost"))

    # --- the way out

    async def _give_back(self, outcome: Outcome, *, healthy: bool) -> None:
        if not self.placed and not self._document.done():
            ending = self._ending.result()
            self._document.set_result(twiml.refusal(ending, self._options.elsewhere))
            return
        if self._socket is not None:
            await self._hang_up_stream(outcome, healthy=healthy)
        else:
            self._book.withdraw(self)
        if self._creating is not None:
            # It may have come about in this very moment.
            await asyncio.wait({self._creating}, timeout=_REST_SECONDS)
        if self._progress.over or self._stream.over or not self.call_sid:
            return
        if self._socket is not None and await self._was_asked_after():
            return
        try:
            async with asyncio.timeout(_REST_SECONDS):
                await self._rest.update(self.call_sid, self._next_fields())
        except (TwilioError, TimeoutError) as error:
            log.error("twilio_call_not_given_back", call=self.id, error=str(error))

    def _next_fields(self) -> Mapping[str, str]:
        ending = self._ending.result()
        if self.placed and ending.outcome.status is not Status.TRANSFER:
            return {"Status": "completed"}
        return {"Twiml": self._after(ending)}

    async def _was_asked_after(self) -> bool:
        """Return whether Twilio has asked what comes after the stream."""
        try:
            async with asyncio.timeout(_AFTER_SECONDS):
                await self._asked_after.wait()
        except TimeoutError:
            return False
        return True

    async def _hang_up_stream(self, outcome: Outcome, *, healthy: bool) -> None:
        socket, reading, sending = self._socket, self._reading, self._sending
        assert socket is not None and reading is not None and sending is not None
        if healthy and self._stream.sid:
            await self._last_words_are_heard()
        self._unsent.put_nowait(None)
        await asyncio.wait({sending}, timeout=_CLOSE_SECONDS / 2)
        refused = self._over and self._ended is None
        code = WSCloseCode.POLICY_VIOLATION if refused else WSCloseCode.OK
        words = f"{outcome.status}: {outcome.reason}".encode()[:120]
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await socket.close(code=code, message=words)
        if not reading.is_set():
            self._abort()
        await reading.wait()

    async def _last_words_are_heard(self) -> None:
        out = self._play_out
        if out.unmarked:
            self._unsent.put_nowait(protocol.mark(self._stream.sid, out.mark()))
        if not out.pending:
            return
        self._heard_all = asyncio.Event()
        seconds = out.unheard_ms(self._loop.time()) / 1000 + _LATE_MARK_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard_all.wait()

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
        if self._heard_all is not None:
            self._heard_all.set()

    def _fail(self, event: LineFailed | SoundLost) -> None:
        if not self._over:
            self._told(event)
            self._over = True

    def _refuse(self, reason: str, sentence: str) -> None:
        if not self._over:
            log.warning("twilio_refused", call=self.id, reason=reason, problem=sentence)
            self._on_refused(reason)
            self._fail(LineFailed(f"twilio_{reason}"))

    def _wait(self, seconds: float, then: Callable[[], None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if then is None else self._loop.call_later(seconds, then)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work, name=f"call {self.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def after_query(ending: Ending) -> str:
    """Return the path at which Twilio tells how the call to a transfer's target has ended.

    It says by itself how the agent's part ended, so that it is known for as long as the two speak.
    """
    return f"{AFTER_PATH}?{urlencode(sorted(twiml.told(ending).items()))}"


def _unreadable(error: object) -> BadInput:
    """Return what is wrong with what aiohttp could not read; it has closed the socket."""
    if isinstance(error, WebSocketError) and error.code == WSCloseCode.MESSAGE_TOO_BIG:
        return BadInput("oversized", f"A message had over {MAX_MESSAGE_BYTES} bytes.")
    return BadInput("malformed", "What came is no WebSocket message (RFC 6455).")
