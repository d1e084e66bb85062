"""One call of Twilio's: the answer to its webhook, where it is moved to, and what comes after it.

A call has a leg for its caller, and in an attended transfer one for the target. Each leg is where
the last document has put it: at a stream of ours, or in the waiting room, which is a conference
that has not begun, with Twilio's music. Sound flows through the stream of the target while there is
one, and through the caller's otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, Protocol

import structlog

from ari_app.audio.formats import AgentFormats
from ari_app.errors import LineError
from ari_app.line.base import Alarm, BaseLine
from ari_app.line.interface import (
    Ability,
    CallEnd,
    Connected,
    EndCause,
    Ended,
    Hear,
    KeyPressed,
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
    TargetConnected,
    TargetLost,
)
from ari_app.line.twilio import twiml
from ari_app.line.twilio.leg import (
    AFTER_PATH,
    STATUS_PATH,
    TARGET,
    Leg,
    Rest,
    TwilioOptions,
    after_query,
    result_of_refusal,
)
from ari_app.line.twilio.protocol import (
    ANSWERED,
    RATE_HZ,
    TERMINAL,
    Started,
)
from ari_app.line.twilio.rest import Fields, TwilioError
from ari_app.line.twilio.stream import MediaStream, Relay, Socket, Source
from ari_app.line.twilio.twiml import E164, Ending
from ari_app.line.websocket_input import BadInput
from linekit.clock import FrameClock

log = structlog.get_logger(__name__)

FORMAT: Final = LineFormat("ulaw_8000", RATE_HZ)
ANSWER_SECONDS: Final = 12.0
"""Twilio waits 15 s for the answer to its webhook."""
_LATE_STREAM_SECONDS: Final = 2.5
_NO_STREAM_SECONDS: Final = 5.0
_AFTER_SECONDS: Final = 3.0
_REST_SECONDS: Final = 11.0
_VERDICT_SECONDS: Final = 10.0
"""Less than a call waits for it."""
_DETECTION_SECONDS: Final = 8
_UNSEEN_SECONDS: Final = 3.0
"""Nobody tells when a caller hangs up in the waiting room."""
_CLOSED_LOOKS: Final = (0.3, 0.7)
"""When a call is looked at whose stream has closed."""
_UNTOLD_SECONDS: Final = 8.0
"""Delivery of status callbacks is best effort: a call that rings is looked at so often."""
_LATE_CALLBACK_SECONDS: Final = 2.0
"""A callback says more than a look, which may overtake it."""
_JOINS: Final = (0.0, 1.0, 3.0)
"""When it is tried to join caller and target: the agent has gone by then."""
_SIGNS: Final = (0.0, 0.2, 0.3, 0.5)
"""When a leg is looked at whose move was not answered: has its stream stopped, or another come?"""
_LOOKS: Final = (0.0, 1.0, 2.0)
"""When a call is looked for of which the answer was lost."""
_MOST_TWIML: Final = 4000
"""Characters of a document that Twilio takes by REST; notes of the agent's may be longer. In an
answer to it they may have 64 kB."""
_KEYS: Final = frozenset("0123456789*#ABCD")
_PLAYABLE: Final = re.compile(r"[0-9*#]{1,32}")


class Book(Protocol):
    """Where lines are found by what Twilio says of them; the gateway is one."""

    def enter(self, line: TwilioLine) -> None:
        """Let it be found by its name, and by its calls at Twilio."""
        ...

    def expect(self, token: str, line: TwilioLine) -> None:
        """Let a stream come with this token, once."""
        ...

    def withdraw(self, token: str) -> None:
        """Let none come with it any more."""
        ...

    def leave(self, line: TwilioLine) -> None:
        """Let it be found no more; what comes after it is still known for a while."""
        ...

    def is_known(self, call_sid: str) -> bool:
        """Whether a call belongs to one of our lines."""
        ...

    def owe(self, call_sid: str, fields: Fields) -> None:
        """Change a call whose line is over as soon as Twilio does so: nobody else would."""
        ...


class TwilioLine(BaseLine):
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
    trunk = ""
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
        super().__init__()
        self.id, self.caller, self.called = line_id, caller, called
        self.placed, self.answered = placing is not None, answered
        self.session_id = ""
        self._placing = placing or Placing()
        self._options, self._rest, self._clock, self._book = options, rest, clock, book
        self._on_refused = on_refused
        self._caller = Leg(placed=self.placed, call_sid=call_sid, answered=answered)
        self._target: Leg | None = None
        self._targets = 0
        # With a supervisor: the ways of the two voices to the other's stream.
        self._relays: tuple[Relay, Relay] | None = None
        self._hear: Hear = lambda pcm: None
        self._detail: str | None = None
        self._variables: dict[str, str] = {}

        self._joining: asyncio.Task[None] | None = None
        self._joined = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._creating: asyncio.Task[None] | None = None
        self._document: asyncio.Future[str] = self._loop.create_future()
        self._ending: asyncio.Future[Ending] = self._loop.create_future()

        self._sound: LineSound | None = None
        self._stop_ticks: Callable[[], None] = lambda: None
        self._hears_us = self._wants_room = self._is_asked = False
        self._moving: asyncio.Task[None] | None = None
        self._dropping: set[asyncio.Task[None]] = set()
        self._verdict: Screened | None = None
        self._verdict_alarm = Alarm()
        self._frames_not_read = 0

    # --- ari_app.line.interface.Line

    @property
    def abilities(self) -> Ability:
        can = (
            Ability.RING
            | Ability.MUSIC
            | Ability.SEND_KEYS
            | Ability.TRANSFER
            | Ability.CONSULT
            | Ability.BRING_IN
            | Ability.SCREEN
        )
        return can if self._options.elsewhere.url is None else can | Ability.SET_VARIABLE

    @property
    def reachable(self) -> bool:
        """Whether the call is there."""
        return not self._over

    @property
    def cause(self) -> EndCause:
        """Why the far side has ended."""
        return replace(self._caller.progress.cause, detail=self._detail)

    @property
    def frames_not_read(self) -> int:
        """How many frames were left out because Twilio did not read."""
        media = self._caller.media
        return self._frames_not_read + (0 if media is None else media.frames_not_read)

    @property
    def call_sid(self) -> str:
        """The call's name at Twilio; empty until it is known."""
        return self._caller.call_sid

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
            self._verdict_alarm.call_in(
                _VERDICT_SECONDS, lambda: self._judged(Screened("NOTSURE", "no_verdict"))
            )
        else:
            self._soon(self._verdict or Screened("HUMAN", "not_asked"))

    def open(self, sound: LineSound, seconds: float) -> None:
        self._sound = sound
        self._stop_ticks = self._clock.add(self._tick)
        self._soon(Opened())

    def connect(self) -> None:
        self._hears_us, self._wants_room = True, False
        leg = self._caller
        if leg.in_room or self._moving is not None:
            self._move()
        elif leg.has_sound:
            self._soon(Connected())
        else:
            # `start` says the rest.
            self._answer()
            if leg.media is None:
                self._alarm.call_in(_LATE_STREAM_SECONDS, self._late_stream)

    def music(self) -> None:
        self._hears_us = False
        if self._caller.media is not None:
            self._wants_room = True
            self._move()

    def consult(self, target: str, ring_seconds: float) -> None:
        self._targets += 1
        leg = self._target = Leg(placed=True, name=f"{TARGET}{self._targets}")
        leg.placing = self._spawn(self._call_target(leg, target, ring_seconds))

    def bring_in(self, target: str, ring_seconds: float, hear: Hear) -> None:
        # Two streams instead of a conference: the agent is silent, and back, without a request.
        self._relays, self._hear = (Relay(self._sound), Relay()), hear
        self.consult(target, ring_seconds)

    def drop_target(self) -> None:
        self._relays = None
        leg, self._target = self._target, None
        if leg is not None:
            self._dropping.add(self._spawn(self._end_leg(leg)))

    def hand_over(self) -> None:
        if (leg := self._target) is not None:
            self._joining = self._spawn(self._join(leg))

    def take_back(self) -> float:
        leg = self._ours
        return leg.media.take_back() if leg.media is not None and leg.has_sound else 0.0

    async def send_keys(self, keys: str) -> None:
        if not _PLAYABLE.fullmatch(keys):
            raise LineError("Twilio has the keys 0 to 9, * and #", code="not_possible")
        leg = self._caller
        if self._moving is not None or not leg.has_sound or not self._hears_us:
            raise LineError("the caller is not at a stream", code="not_possible")
        if not await self._to_stream(leg, keys=keys):
            raise LineError("Twilio refused it", code="twilio")

    async def set_variable(self, name: str, value: str) -> None:
        if Ability.SET_VARIABLE not in self.abilities:
            raise LineError("nobody goes on with the caller", code="not_possible")
        self._variables[name] = value

    def checkpoint(self) -> None:
        """Keep nothing: the far end's connection ends with this process."""

    async def close(self, outcome: Outcome, end: CallEnd) -> None:
        if self._closed:
            return
        self._closed = True
        healthy = not self._over
        supervised = healthy and self._relays is not None and self._is_joined
        self._tell = self._sound = self._relays = None
        # A call's sound knows its line: the two would keep each other.
        del self._hear
        self._stop_ticks()
        self._alarm.stop()
        self._verdict_alarm.stop()
        self._ending.set_result(self._ending_for(outcome, end))
        try:
            if supervised and outcome.status is not Status.COMPLETED:
                # Their voices have met here.
                self.hand_over()
            await self._give_back(outcome, healthy=healthy)
            if self._dropping:
                await asyncio.wait(self._dropping, timeout=_REST_SECONDS)
        except Exception:
            log.exception("twilio_line_not_given_back", call=self.id)
        finally:
            self._book.leave(self)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what Twilio asks and tells

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

    async def after(self, call_sid: str) -> str:
        """Return what comes after the stream: Twilio asks, for the stream has ended."""
        if self._leg(call_sid) is not self._caller:
            return twiml.hang_up()
        self._caller.asked_after.set()
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

    @property
    def calls(self) -> list[str]:
        """The names of its calls at Twilio."""
        legs = [self._caller] if self._target is None else [self._caller, self._target]
        return [leg.call_sid for leg in legs if leg.call_sid]

    def is_called(self, call_sid: str, name: str = "") -> bool:
        """Take a call's name at Twilio, by whatever is heard of it first; whether it is the one.

        Args:
            call_sid: The call's name.
            name: That of its leg.
        """
        legs = (self._caller, self._target)
        leg = next((leg for leg in legs if leg is not None and leg.name == name), None)
        if leg is None:
            return False
        if not leg.call_sid:
            leg.call_sid = call_sid
            log.info("twilio_call_placed", call=self.id, call_sid=call_sid)
            self._book.enter(self)
            self._spawn(self._watch_ringing(leg))
        return leg.call_sid == call_sid

    def reported(self, call_sid: str, status: str, sip_code: int | None = None) -> None:
        """Take what Twilio says of a call."""
        if (leg := self._leg(call_sid)) is None:
            return
        events = leg.progress.heard(status, sip_code)
        if leg is self._caller:
            self.answered = leg.progress.answered
        for event in events:
            if leg is not self._caller:
                if isinstance(event, Ended):
                    self._lose_target(
                        leg, "hung_up" if event.result is None else event.result.value
                    )
            elif isinstance(event, Ended):
                self._end(event)
            else:
                self._tell_call(event)

    def judged(self, call_sid: str, found: Screened) -> None:
        """Take what is known of who has answered; the first counts."""
        if self._leg(call_sid) is self._caller:
            self._judged(found)

    def stream_failed(self, call_sid: str, stream_sid: str, why: str) -> None:
        """Take Twilio's word that a stream could not be, or broke."""
        log.warning("twilio_stream_failed", call=self.id, error=why)
        leg = self._leg(call_sid)
        media = None if leg is None or not leg.has_sound else leg.media
        if media is not None and stream_sid not in ("", media.sid):
            return  # one that they have left: such words may be late
        if leg is not self._caller or leg is None:
            self._lose_target(leg, Result.FAILED.value)
        elif leg.media is None:
            self._fail(LineFailed("twilio_no_stream"))
        elif not leg.media.moved:
            self._fail(SoundLost("line_lost"))

    async def serve(self, token: str, socket: Socket, abort: Callable[[], None]) -> None:
        """Hold a stream that has come; returns when it is closed."""
        legs = [leg for leg in (self._caller, self._target) if leg is not None]
        leg = next((leg for leg in legs if leg.token == token), None)
        if leg is None or self._closed or self._over:
            await socket.close(code=1013, message=b"the call has ended")
            return
        if leg.media is not None:
            self._frames_not_read += leg.media.frames_not_read
        leg.media = MediaStream(self, socket, abort)
        if leg is self._caller:
            self._alarm.stop()
        await leg.media.serve()

    def _leg(self, call_sid: str) -> Leg | None:
        legs = (self._caller, self._target)
        return next((leg for leg in legs if leg is not None and leg.call_sid == call_sid), None)

    def _judged(self, found: Screened) -> None:
        if self._verdict is not None:
            return
        self._verdict = found
        self._verdict_alarm.stop()
        if self._is_asked:
            self._tell_call(found)

    # --- ari_app.line.twilio.stream.Owner

    def stream_started(self, stream: MediaStream, started: Started) -> None:
        leg = self._of(stream)
        is_ours = leg is not None and self.is_called(started.call_sid, leg.name)
        if not is_ours or started.account_sid != self._options.account_sid:
            raise BadInput("wrong_call", "The stream belongs to another call.")
        if started.parameters.get("session_id", self.session_id) != self.session_id:
            raise BadInput("wrong_call", "The stream was given to another call.")
        assert leg is not None, "it is ours"
        leg.in_room = False
        self.reported(leg.call_sid, ANSWERED)
        if leg is self._target:
            self._tell_call(TargetConnected())
        elif self._hears_us:
            self._tell_call(Connected())

    def stream_heard(self, stream: MediaStream, pcm: bytes) -> None:
        if self._sound is None:
            return
        is_ours = stream is self._ours.media
        if self._relays is not None and self._is_joined:
            self._relays[is_ours].heard(pcm)
        if is_ours:
            self._sound.heard(pcm)
        elif self._relays is not None:
            self._hear(pcm)

    def stream_key(self, stream: MediaStream, digit: str) -> None:
        if digit in _KEYS and stream is self._caller.media:
            self._tell_call(KeyPressed(digit))

    def stream_stopped(self, stream: MediaStream) -> None:
        leg = self._at(stream)
        if leg is self._caller:
            self._end(Ended("caller_hung_up"))
        elif leg is not None:
            self._lose_target(leg, "hung_up")

    def stream_quiet(self, stream: MediaStream) -> None:
        if (leg := self._of(stream)) is not None:
            self._spawn(self._look_up(leg))

    def stream_refused(self, stream: MediaStream, reason: str) -> None:
        if stream.moved:
            stream.abort()
            return
        self._on_refused(reason)
        leg = self._of(stream)
        if leg is self._caller:
            silent = reason == "silent"
            self._fail(SoundLost("line_silent") if silent else LineFailed(f"twilio_{reason}"))
        else:
            self._lose_target(leg, Result.FAILED.value)

    def stream_gone(self, stream: MediaStream, *, closed: bool) -> None:
        leg = self._at(stream)
        if leg is not None and not self._over and not self._closed:
            self._spawn(self._find_out(leg, closed=closed))

    def _of(self, stream: MediaStream) -> Leg | None:
        legs = (self._caller, self._target)
        return next((leg for leg in legs if leg is not None and leg.media is stream), None)

    def _at(self, stream: MediaStream) -> Leg | None:
        """Return the leg that is at a stream; None: the stream's end means nothing."""
        leg = self._of(stream)
        return None if leg is None or stream.moved or leg.moving.locked() else leg

    # --- sound

    @property
    def _ours(self) -> Leg:
        """The leg that hears us."""
        return self._caller if self._target is None or self._relays is not None else self._target

    @property
    def _is_joined(self) -> bool:
        """Whether a supervisor who was called is there."""
        return self._target is not None and self._target.has_sound

    def _tick(self, frames: int) -> None:
        sound = self._sound
        if sound is None:
            return
        for _ in range(frames):
            sound.tick()
        leg, target = self._ours, self._target
        source: Source = sound
        if self._relays is not None and self._is_joined and target is not None:
            source = self._relays[0]
            assert target.media is not None, "it has sound"
            target.media.give(self._relays[1], frames)
        if leg.media is not None and leg.has_sound and (self._hears_us or leg is target):
            leg.media.give(source, frames)
        elif not self._hears_us and self._caller.media is not None:
            # Time goes on while the caller hears music.
            for _ in range(frames):
                sound.next_frame()

    # --- where a leg is

    def _answer(self) -> None:
        """Let Twilio connect the stream."""
        if not self._document.done() and not self.placed:
            self._document.set_result(self._stream_document(self._caller))

    def _stream_document(self, leg: Leg, *, keys: str = "") -> str:
        """Return the document that gives a leg a stream, whose token is good from now on."""
        options = self._options
        self._book.withdraw(leg.token)
        leg.token = options.new_token()
        self._book.expect(leg.token, self)
        return twiml.stream(
            options.stream_url(leg.token),
            after=options.url(AFTER_PATH),
            status=options.url(STATUS_PATH),
            session_id=self.session_id,
            keys=keys,
        )

    def _move(self) -> None:
        if self._moving is None:
            self._moving = self._spawn(self._follow())

    async def _follow(self) -> None:
        """Put the caller where they were wished last: into the waiting room, or at a stream."""
        leg = self._caller
        try:
            while leg.in_room is not self._wants_room and not self._over:
                if self._wants_room:
                    if not await self._to_room(leg, begins=False):
                        break
                    self._spawn(self._watch_room())
                elif not await self._to_stream(leg) and await self._look_up(leg) not in TERMINAL:
                    self._fail(LineFailed("twilio_not_moved"))
        finally:
            self._moving = None
        if self._hears_us and leg.has_sound:
            # They were never away, or are back already.
            self._tell_call(Connected())

    async def _to_room(self, leg: Leg, *, begins: bool) -> bool:
        """Put a leg into the waiting room; whether that was done."""
        room = twiml.room(f"ari-app-{self.session_id}", begins=begins)
        if not await self._update(leg, room, True):
            return False
        # The stream that it was on the way to has come meanwhile, or comes no more.
        self._book.withdraw(leg.token)
        if leg.media is not None:
            leg.media.moved = True
        return True

    async def _to_stream(self, leg: Leg, *, keys: str = "") -> bool:
        """Put a leg at a new stream; whether that was done."""
        done = await self._update(leg, self._stream_document(leg, keys=keys), False)
        if done and leg is self._caller and not leg.has_sound:
            self._alarm.call_in(_NO_STREAM_SECONDS + len(keys), self._no_stream)
        return done

    async def _update(self, leg: Leg, document: str, in_room: bool) -> bool:
        async with leg.moving:
            media = leg.media
            flowed = leg.has_sound
            if media is not None:
                media.moved = True
            try:
                done = await self._give(leg, document)
            except TwilioError as error:
                log.warning("twilio_not_moved", call=self.id, code=error.code, error=str(error))
                done = False
            if done:
                leg.in_room = in_room
            elif media is not None:
                media.moved = not media.begun
        if not done and (flowed or leg.media is not media) and not leg.has_sound:
            # Its end meant nothing meanwhile: mostly the caller has hung up.
            self._spawn(self._find_out(leg, closed=True))
        return done

    async def _give(self, leg: Leg, document: str, *, again: bool = True) -> bool:
        """Give a leg another document; whether its call was still there.

        One that it has already must not be given anew, though the answer was lost: the stream's
        token is good once, keys would be pressed twice, and the conference that a leg leaves is
        over for the other one, too.

        Raises:
            TwilioError: It was not done.
        """
        before = leg.media
        flowed = before is not None and before.begun
        try:
            return await self._rest.update(leg.call_sid, {"Twiml": document}, once=True)
        except TwilioError as error:
            if not error.may_be_done:
                raise
            if await self._has_left(leg, before, flowed=flowed):
                log.warning("twilio_answer_lost", call=self.id)
                return True
            if not again:
                raise
        return await self._give(leg, document, again=False)

    async def _has_left(self, leg: Leg, stream: MediaStream | None, *, flowed: bool) -> bool:
        """Return whether a leg is no longer where it was, as its streams tell before long."""
        for pause in _SIGNS:
            await asyncio.sleep(pause)
            if leg.media is not stream or (flowed and not (stream is not None and stream.begun)):
                return True
        return False

    async def _watch_room(self) -> None:
        """Find out when the caller hangs up where no stream says so."""
        leg = self._caller
        while leg.in_room and not self._over:
            await asyncio.sleep(_UNSEEN_SECONDS)
            if leg.in_room:
                await self._look_up(leg)

    # --- a transfer's target

    async def _call_target(self, leg: Leg, target: str, ring_seconds: float) -> None:
        own = self.caller if self.placed else self.called
        sender = self._options.number or own
        try:
            info = await self._rest.create(
                self._fields(leg, target, sender, ring_seconds, f"&leg={leg.name}")
            )
        except TwilioError as error:
            log.warning("twilio_target_not_called", call=self.id, code=error.code, error=str(error))
            self._lose_target(leg, result_of_refusal(error)[0].value)
            return
        if leg is self._target:
            self.is_called(info.sid, leg.name)
        else:
            leg.call_sid = info.sid  # `_end_leg` waits for it

    def _lose_target(self, leg: Leg | None, result: str) -> None:
        # Of one who is just being joined with the caller `_join` says it.
        if leg is not None and leg is self._target and (self._joined or self._joining is None):
            self._tell_call(TargetLost(result))

    async def _join(self, leg: Leg) -> None:
        """Let target and caller meet where the caller waits."""
        if self._moving is not None:
            await asyncio.wait({self._moving})
        for pause in _JOINS:
            await asyncio.sleep(pause)
            caller = self._caller
            waits = caller.in_room or await self._to_room(caller, begins=False)
            if waits and await self._to_room(leg, begins=True):
                self._joined = True
                if leg.progress.over:
                    self._lose_target(leg, "hung_up")
                return
            if self._over or leg.progress.over:
                break
        self._fail(LineFailed("twilio_not_joined"))

    async def _end_leg(self, leg: Leg) -> None:
        self._book.withdraw(leg.token)
        if leg.media is not None:
            leg.media.leave()
        if leg.placing is not None:
            await asyncio.wait({leg.placing}, timeout=_REST_SECONDS)
        if leg.call_sid and not leg.progress.over:
            await self._change(leg, {"Status": "completed"})
        if leg.media is not None:
            await leg.media.close("the transfer has come to nothing")

    # --- placing a call

    async def _create(self) -> None:
        sender = self._placing.caller_id or self._options.number
        if sender is None:
            self._detail = "Neither caller_number nor TWILIO_PHONE_NUMBER says who calls."
            self._end(Ended(Result.FAILED.value, Result.FAILED))
            return
        self.caller = sender
        fields = self._fields(self._caller, self.called, sender, self._placing.ring_seconds)
        if self._placing.screened:
            fields |= {
                "MachineDetection": "Enable",
                "MachineDetectionTimeout": str(_DETECTION_SECONDS),
                "AsyncAmd": "true",
                "AsyncAmdStatusCallback": fields["StatusCallback"],
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
            if self.is_called(info.sid):
                self.reported(info.sid, info.status)

    def _fields(
        self, leg: Leg, to: str, sender: str, ring_seconds: float, more: str = ""
    ) -> dict[str, str | list[str]]:
        return {
            "To": to,
            "From": sender,
            "Twiml": self._stream_document(leg),
            "Timeout": str(max(1, round(ring_seconds))),
            "StatusCallback": self._options.url(f"{STATUS_PATH}?call={self.session_id}{more}"),
            "StatusCallbackMethod": "POST",
            "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
        }

    async def _was_placed(self, sender: str, asked_at: float) -> bool:
        """Return whether a call was placed though the answer was lost; asking anew might call
        twice."""
        log.warning("twilio_answer_lost", call=self.id)
        for pause in _LOOKS:
            await asyncio.sleep(pause)
            if self.call_sid:
                return True  # Something was heard of it.
            with contextlib.suppress(TwilioError):
                since = self._loop.time() - asked_at
                for call_sid in await self._rest.placed(self.called, sender, since):
                    if not self._book.is_known(call_sid):
                        return self.is_called(call_sid)
        return bool(self.call_sid)

    def _not_placed(self, error: TwilioError) -> None:
        result, self._detail = result_of_refusal(error)
        log.warning("twilio_call_not_placed", call=self.id, code=error.code, error=self._detail)
        self._end(Ended(result.value, result))

    # --- what may go wrong with it

    def _late_stream(self) -> None:
        if self._caller.media is None and self.call_sid:
            # The caller may have hung up while it rang: nobody tells us then.
            self._spawn(self._look_up(self._caller))

    def _no_stream(self) -> None:
        if not self._caller.has_sound and not self._caller.in_room:
            self._spawn(self._find_out(self._caller, closed=False))

    async def _watch_ringing(self, leg: Leg) -> None:
        """Find out what has become of a call that was placed, though nobody tells."""
        while not (leg.progress.answered or leg.progress.over):
            await asyncio.sleep(_UNTOLD_SECONDS)
            if leg is not self._caller and leg is not self._target:
                return  # it was given up
            status = await self._status(leg)
            if status in TERMINAL:
                await asyncio.sleep(_LATE_CALLBACK_SECONDS)
            if status is not None:
                self.reported(leg.call_sid, status)

    async def _look_up(self, leg: Leg) -> str | None:
        """Ask Twilio whether a call is over; how it is, or None where Twilio does not say."""
        status = await self._status(leg)
        if status in TERMINAL:
            self.reported(leg.call_sid, status)
        return status

    async def _status(self, leg: Leg) -> str | None:
        try:
            info = await self._rest.find(leg.call_sid)
        except TwilioError as error:
            log.warning("twilio_look_up_failed", call=self.id, code=error.code)
            return None
        return "completed" if info is None else info.status

    async def _find_out(self, leg: Leg, *, closed: bool) -> None:
        """Find out why a stream has ended without a word, or has not come.

        Args:
            leg: Whose it is.
            closed: Twilio has closed it: mostly for the caller has hung up, and neither the call's
                state nor the callback about it is there yet. If the call goes on, Twilio asks what
                comes after the stream.
        """
        for pause in _CLOSED_LOOKS if closed else (0.0,):
            await asyncio.sleep(pause)
            if self._over or await self._look_up(leg) in TERMINAL or leg.has_sound:
                return
        if leg is self._caller:
            self._fail(SoundLost("line_lost"))
        else:
            self._lose_target(leg, "hung_up")

    # --- the way out

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

    async def _give_back(self, outcome: Outcome, *, healthy: bool) -> None:
        leg, target = self._caller, self._target
        if not self.placed and not self._document.done():
            ending = self._ending.result()
            self._document.set_result(twiml.refusal(ending, self._options.elsewhere))
            return
        joining, self._joining = self._joining, None
        if joining is not None:
            if outcome.status is not Status.COMPLETED:
                await asyncio.wait({joining}, timeout=_REST_SECONDS)
            joining.cancel()
        if self._joined and outcome.status is not Status.COMPLETED:
            # The two speak, and need nobody else: their conference ends when one of them leaves.
            for each in (leg, target):
                if each is not None and each.media is not None:
                    await each.media.close("transferred")
            return
        if target is not None:
            self._dropping.add(self._spawn(self._end_leg(target)))
        if self._moving is not None:
            await asyncio.wait({self._moving}, timeout=_REST_SECONDS)
        had_sound = leg.has_sound
        if leg.media is not None:
            if healthy and had_sound:
                await leg.media.all_is_heard()
            await leg.media.close(f"{outcome.status}: {outcome.reason}")
        self._book.withdraw(leg.token)
        if self._creating is not None:
            # It may have come about in this very moment.
            await asyncio.wait({self._creating}, timeout=_REST_SECONDS)
        stopped = leg.media is not None and leg.media.stopped and not leg.media.moved
        if leg.progress.over or stopped or not leg.call_sid:
            return
        if leg.media is not None and not leg.in_room and await self._was_asked_after(leg):
            return
        await self._change(leg, self._next_fields())

    async def _change(self, leg: Leg, fields: Fields) -> None:
        """Say what becomes of a leg that is not ours any more."""
        try:
            async with asyncio.timeout(_REST_SECONDS):
                await self._rest.update(leg.call_sid, fields)
        except (TwilioError, TimeoutError) as error:
            log.error("twilio_call_not_given_back", call=self.id, error=str(error))
            self._book.owe(leg.call_sid, fields)

    def _next_fields(self) -> Fields:
        ending = self._ending.result()
        if self.placed and ending.outcome.status is not Status.TRANSFER:
            return {"Status": "completed"}
        document = self._after(ending)
        if len(document) > _MOST_TWIML:
            return {"Url": self._options.url(AFTER_PATH), "Method": "POST"}
        return {"Twiml": document}

    async def _was_asked_after(self, leg: Leg) -> bool:
        """Return whether Twilio has asked what comes after the stream."""
        try:
            async with asyncio.timeout(_AFTER_SECONDS):
                await leg.asked_after.wait()
        except TimeoutError:
            return False
        return True

    # --- what is told

    def _fail(self, event: LineFailed | SoundLost) -> None:
        if self._target is not None and isinstance(event, SoundLost):
            # Without it a supervisor does not hear them either, and of a target that they are
            # joined with nothing more would be told.
            event = LineFailed(event.reason)
        if not self._over and not self._closed:
            self._tell_call(event)
            self._over = True

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work, name=f"call {self.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
