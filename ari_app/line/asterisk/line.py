"""One caller in Asterisk: their channel, the bridge, the media channel, music, a transfer's target,
and the giving back of all that.

Asterisk reports in any order and more than once; the flags of `AsteriskLine` say what has happened.
Nothing here knows what a call is about: `ari_app.call` asks, and is told `LineEvent`s.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from pydantic import TypeAdapter, ValidationError

from ari_app.audio.formats import AgentFormats
from ari_app.errors import LineError
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import (
    AriBadRequest,
    AriConflict,
    AriError,
    AriNotFound,
    AriServerError,
    AriTimeout,
    AriUnavailable,
)
from ari_app.line.asterisk.ari.rest import Errand
from ari_app.line.asterisk.ari.version import Assessment
from ari_app.line.asterisk.channels import (
    SPARE_RING_SECONDS,
    CallerChannel,
    TargetChannel,
    give_back_caller,
    quietly,
    rtp_report,
    session_variables,
    told_to_callee,
)
from ari_app.line.asterisk.dial_string import device_name, dial_string
from ari_app.line.asterisk.media import MakeMedia, choose_line_format
from ari_app.line.asterisk.media_channel import MediaChannel, MediaOwner
from ari_app.line.asterisk.names import (
    adopted_media_channel_id,
    bridge_id,
    bridge_name,
    media_channel_id,
    target_channel_id,
)
from ari_app.line.asterisk.reconcile import Held
from ari_app.line.interface import (
    Ability,
    Answered,
    CallEnd,
    CallerReplaced,
    Connected,
    EndCause,
    Ended,
    Hear,
    KeyPressed,
    LineEvent,
    LineFailed,
    LineFormat,
    LineSound,
    Noticed,
    Opened,
    Outcome,
    PhoneHeld,
    Placing,
    Result,
    Rings,
    RtpReport,
    Screened,
    SoundLost,
    Status,
    TargetConnected,
    TargetLost,
    TargetPressed,
    Tell,
)
from ari_app.line.numbers import caller_id as as_caller_id
from ari_app.line.numbers import text_value
from ari_app.line.results import Route, result_of
from audiosocket.frames import SLIN, SlinFormat

log = structlog.get_logger(__name__)

_NOT_KNOWN = "Asterisk does not know this endpoint, or nobody is registered there"
_REFUSED = "Asterisk did not take it"

_FIRST_RTP_SECONDS: Final = 6.0
"""A little after the first report (RTCP), with which Asterisk begins to count what is lost."""
_RTP_EVERY_SECONDS: Final = 20.0

ABILITIES: Final = (
    Ability.RING
    | Ability.MUSIC
    | Ability.SEND_KEYS
    | Ability.SET_VARIABLE
    | Ability.TRANSFER
    | Ability.CONSULT
    | Ability.BRING_IN
    | Ability.SCREEN
)


@dataclass(frozen=True, slots=True)
class AsteriskOptions:
    """The settings of calls through Asterisk.

    Attributes:
        app: The name of our Stasis application.
        audiosocket_target: What Asterisk dials for sound: `host:port`.
        media_transport: How sound goes between Asterisk and us: `audiosocket`, `websocket`, or
            `auto` for what this Asterisk does best.
        audiosocket_format: The audio format of lines: Asterisk's name of it, or `auto`.
        outbound_endpoint: The dial string for a number, with `{number}` in it.
        transfer_endpoint: The same for the target of an attended transfer.
        transfer_state: The device whose state says whether that target is free, with `{number}` in
            its name; empty: they are called in any case.
        take_over_endpoint: The same for a supervisor; empty: as `transfer_endpoint`.
        transfer_context: Where a call that we placed goes on (extension `s`) when it is
            transferred blindly.
        amd_context: Where a call is screened for machines (extension `s`).
        channel_variables, sip_headers: The names that a request may use for a callee's channel.
    """

    app: str
    audiosocket_target: str
    media_transport: str = "audiosocket"
    audiosocket_format: str = "slin"
    outbound_endpoint: str = "PJSIP/{number}@trunk"
    transfer_endpoint: str = "PJSIP/{number}@trunk"
    transfer_state: str = ""
    take_over_endpoint: str = ""
    transfer_context: str = "agent-transfer"
    amd_context: str = "agent-amd"
    channel_variables: frozenset[str] = frozenset()
    sip_headers: frozenset[str] = frozenset()


@dataclass(slots=True)
class Asterisk:
    """What all lines of one Asterisk share.

    Attributes:
        ari: Its client.
        make_media: Makes the way of a call's sound.
        options: The settings.
        lines: The lines, by the id of each of their channels.
        version: The abilities of its version; None while that is not known.
    """

    ari: Client
    make_media: MakeMedia
    options: AsteriskOptions
    lines: dict[str, AsteriskLine] = field(default_factory=dict)
    version: Assessment | None = None


@dataclass(frozen=True, slots=True)
class TargetCheckpoint:
    """A `TargetChannel`, as it is kept for another process."""

    id: str
    rang: bool = False
    answered: bool = False


@dataclass(frozen=True, slots=True)
class LineCheckpoint:
    """A line, as it is kept for another process: what cannot be learnt from Asterisk.

    Attributes:
        format: Asterisk's name of its audio format.
        caller_id, ring_seconds: How it was placed; None: it came in.
        trunk, entered, rang, rings_on, screening, wanted, handed_over: As in `AsteriskLine`.
        bridge: The bridge has been made.
        target: The target of a transfer that is under way.
        targets: How many targets there have been.
    """

    id: str
    caller: str
    called: str
    answered: bool
    format: str
    trunk: str = ""
    caller_id: str | None = None
    ring_seconds: float = 0.0
    entered: bool = False
    rang: bool = False
    rings_on: bool = False
    screening: bool = False
    wanted: bool = False
    handed_over: bool = False
    bridge: bool = False
    target: TargetCheckpoint | None = None
    targets: int = 0


_CHECKPOINT: Final = TypeAdapter(LineCheckpoint)


class AsteriskLine:
    """The channel of a caller, or of a callee, and all that belongs to it.

    Args:
        asterisk: What it shares with the other lines.
        channel_id: The caller's channel, or the id that the callee's will get.
        caller: The caller's number, as their telephone says.
        called: The number that was called.
        trunk: The endpoint, where it is known.
        answered: The channel is up.
        placing: How the callee is called; None: the caller came in.
    """

    way = "asterisk"
    abilities = ABILITIES

    def __init__(
        self,
        asterisk: Asterisk,
        channel_id: str,
        *,
        caller: str = "",
        called: str = "",
        trunk: str = "",
        answered: bool = False,
        placing: Placing | None = None,
    ) -> None:
        self.id = channel_id
        self.trunk = trunk
        self.caller = caller
        self.called = called
        self.answered = answered
        self.placed = placing is not None
        self.cause = EndCause()
        self.rtp: RtpReport | None = None
        self.hung_up = False
        """Asterisk has reported a hang-up."""
        self.session_id = ""
        self.bridge_id = ""
        self._asterisk = asterisk
        self._ari = asterisk.ari
        self._placing = placing
        self._tell: Tell | None = None
        self._ended: Ended | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._wire_format: SlinFormat = SLIN
        self._closing = False
        # The request for the bridge, which cannot be removed before it is done.
        self._making_bridge: asyncio.Task[None] | None = None
        self._placing_task: asyncio.Task[None] | None = None
        self._telling_session: asyncio.Task[None] | None = None
        self._there = not self.placed
        # Whom the caller has passed the call on to has not answered yet.
        self._phone_holds = self._rings_on = False
        self._rang = self._entered = self._screening = False
        self._bridge_made = self._handed_over = False
        self._channel = CallerChannel(self._ari, channel_id)
        self._rang_here = self._wanted = False
        # The requests of the set-up: nobody needs them once caller and agent are together.
        self._set_up = Errand()
        owner = MediaOwner(
            call_id=lambda: self.id,
            spawn=self._spawn,
            set_up=lambda request: self._request(request, errand=self._set_up),
            named=self._media_is_named,
            opened=self._sound_is_open,
            lost=lambda reason: self._tell_call(SoundLost(reason)),
        )
        self._media = MediaChannel(self._ari, self._set_up, owner)
        self._target: TargetChannel | None = None
        self._target_count = 0
        self._rtp_timer: asyncio.TimerHandle | None = None
        if not self.placed:
            asterisk.lines[channel_id] = self
        # The way to the callee, where it leads through the dialplan behind a Local channel.
        self._route = Route()
        self._adopted = False

    @classmethod
    def adopt(cls, asterisk: Asterisk, session_id: str, kept: Mapping[str, Any]) -> AsteriskLine:
        """Make the line of a call whose process was lost.

        A look at Asterisk tells what has happened since, as after every reconnection.

        Raises:
            ValueError: This is not what `checkpoint` returned.
        """
        try:
            was = _CHECKPOINT.validate_python(kept)
        except ValidationError:
            raise ValueError("the line does not fit") from None
        placing = None
        if was.caller_id is not None:
            placing = Placing(was.caller_id, was.ring_seconds)
        line = cls(
            asterisk,
            was.id,
            caller=was.caller,
            called=was.called,
            trunk=was.trunk,
            answered=was.answered,
            placing=placing,
        )
        line._take_up(session_id, was)
        return line

    def _take_up(self, session_id: str, was: LineCheckpoint) -> None:
        self._take_name(session_id)
        app, lines = self._asterisk.options.app, self._asterisk.lines
        self._media.name(adopted_media_channel_id(app, session_id), self.bridge_id)
        self._wire_format = SlinFormat.by_name(was.format)
        self._adopted = self._there = self._rang_here = True
        self._entered, self._rang, self._screening = was.entered, was.rang, was.screening
        self._wanted, self._handed_over = was.wanted, was.handed_over
        self._rings_on = was.rings_on
        self._media.leaving = was.handed_over
        if was.bridge:
            self._bridge_is_made()
        self._channel.adopted()
        self._target_count = was.targets
        lines[self.id] = self
        if (kept := was.target) is not None:
            target = self._target = TargetChannel(self._ari, kept.id, "", session_id)
            target.adopted, target.rang, target.answered = True, kept.rang, kept.answered
            lines[target.id] = self

    def checkpoint(self) -> dict[str, Any]:
        placing, target, called = self._placing, self._target, None
        if target is not None:
            called = TargetCheckpoint(target.id, target.rang, target.answered)
        kept = LineCheckpoint(
            self.id,
            self.caller,
            self.called,
            self.answered,
            self._wire_format.name,
            trunk=self.trunk,
            caller_id=None if placing is None else placing.caller_id,
            ring_seconds=0.0 if placing is None else placing.ring_seconds,
            entered=self._entered,
            rang=self._rang,
            rings_on=self._rings_on,
            screening=self._screening,
            wanted=self._wanted,
            handed_over=self._handed_over,
            bridge=self._bridge_made,
            target=called,
            targets=self._target_count,
        )
        told: dict[str, Any] = _CHECKPOINT.dump_python(kept)
        return told

    # --- ari_app.line.interface.Line

    def listen(self, tell: Tell) -> None:
        self._tell = tell
        if self._ended is not None:
            tell(self._ended)
        elif self._phone_holds:
            tell(PhoneHeld(True))

    def name(self, session_id: str) -> None:
        self._take_name(session_id)
        if not self.placed:
            self._tell_session()

    async def prepare(self, agent: AgentFormats) -> LineFormat:
        options, version = self._asterisk.options, self._asterisk.version
        wide = version is not None and version.capabilities.slin_wide
        codec = ""
        # Of a callee nothing is known before the call.
        if wide and options.audiosocket_format == "auto" and not self.placed:
            try:
                codec = await self._ari.channels.get_channel_var(
                    self.id, "CHANNEL(audioreadformat)"
                )
            except AriError as error:
                log.info("caller_codec_unknown", call=self.id, code=error.code)
        self._wire_format = choose_line_format(
            options.audiosocket_format, wide=wide, caller_codec=codec, agent=agent
        )
        return LineFormat(self._wire_format.name, self._wire_format.rate_hz)

    def ring(self) -> None:
        if not self._rang_here:
            self._rang_here = True
            self._request(self._ari.channels.ring(self.id), essential=False)

    def dial(self) -> None:
        self._asterisk.lines[self.id] = self
        self._placing_task = self._spawn(self._dial())

    def screen(self) -> None:
        self._screening = True
        self._request(self._screen())

    def open(self, sound: LineSound, seconds: float) -> None:
        make = self._asterisk.make_media
        transport = make(self._wire_format, sound, seconds, self._media.lost)
        transport.on_key = self._key_on_media
        self._media.open(transport)
        if not self._bridge_made:
            making = self._make_bridge(self._ari.persistent(self._set_up))
            self._making_bridge = self._request(
                making, then=self._bridge_is_made, errand=self._set_up
            )

    def connect(self) -> None:
        self._wanted = True
        if self.answered:
            self._request(self._join())
        else:
            ari = self._ari.persistent(self._set_up)
            self._request(ari.channels.answer(self.id), then=self.is_up, errand=self._set_up)

    def music(self) -> None:
        self._wanted = False
        self._request(self._play_music())

    def consult(self, target: str, ring_seconds: float) -> None:
        options = self._asterisk.options
        device = device_name(options.transfer_state, target) if options.transfer_state else ""
        self._call_target(target, ring_seconds, options.transfer_endpoint, device)

    def bring_in(self, target: str, ring_seconds: float, hear: Hear) -> None:
        # Caller and media channel stay in the bridge, which the target enters.
        options = self._asterisk.options
        endpoint = options.take_over_endpoint or options.transfer_endpoint
        self._call_target(target, ring_seconds, endpoint)

    def _call_target(
        self, target: str, ring_seconds: float, endpoint: str, device: str = ""
    ) -> None:
        self._target_count += 1
        channel = self._target = TargetChannel(
            self._ari,
            f"{target_channel_id(self._asterisk.options.app, self.session_id)}"
            f".{self._target_count}",
            dial_string(endpoint, target),
            self.session_id,
        )
        self._asterisk.lines[channel.id] = self
        calling = channel.call(self.caller, ring_seconds, endpoint, device)
        channel.calling = self._spawn(self._unless_lost(channel, calling))

    def drop_target(self) -> None:
        self._spawn(self._drop_target())

    def hand_over(self) -> None:
        self._handed_over = self._media.leaving = True
        self._media.hang_up()
        self.connect()
        self._spawn(self._media.remove())

    @property
    def reachable(self) -> bool:
        return self._ari.link.up

    def take_back(self) -> float:
        return self._media.take_back()

    async def send_keys(self, keys: str) -> None:
        await self._ask(self._ari.channels.send_dtmf(self.id, keys))

    async def set_variable(self, name: str, value: str) -> None:
        await self._ask(self._ari.channels.set_channel_var(self.id, name, text_value(value)))

    @property
    def frames_not_read(self) -> int:
        return self._media.frames_not_read

    async def close(self, outcome: Outcome, end: CallEnd) -> None:
        # The sound goes first where it can: a thread of Asterisk's that waits for our next frame
        # holds the channel's lock, and the requests below would wait with it (asterisk#2078).
        self._closing = self._media.leaving = True
        self._tell = None
        self._set_up.drop()
        if self._rtp_timer is not None:
            self._rtp_timer.cancel()
        parts: list[Coroutine[Any, Any, object]] = []
        failures: list[object] = []
        present = self._ended is None
        if self._two_speak and outcome.status is not Status.COMPLETED:
            # The service stops, and caller and target do not need it. The next process gives the
            # caller back when the target has hung up.
            parts += [self._end_sound(heard_out=False), self._media.remove()]
        elif present and self._channel.in_bridge and not self.reachable:
            # Nobody else can take care of the caller yet.
            parts += [self._drop_target(), self._keep_company(self._give_back(outcome, end))]
        else:
            # Whatever becomes of the sound, the caller is given back.
            ending = self._end_sound(heard_out=present)
            failures += await asyncio.gather(ending, return_exceptions=True)
            parts.append(self._drop_target())
            if present:
                parts.append(self._give_back(outcome, end))
            parts.append(self._remove_resources())
        failures += await asyncio.gather(*parts, return_exceptions=True)
        for failure in failures:
            if isinstance(failure, BaseException):
                log.error("release_part_failed", call=self.id, exc_info=failure)
        # Requests that nobody needs an answer to any more.
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)
        # A caller who comes back has another line.
        lines = self._asterisk.lines
        for channel_id in (self.id, self.media_id, self.target_id):
            if lines.get(channel_id) is self:
                del lines[channel_id]
        self._media.forget()

    # --- what Asterisk reports, by way of the gateway

    @property
    def closing(self) -> bool:
        """Whether the line is being closed, or has been."""
        return self._closing

    @property
    def over(self) -> bool:
        """Whether the caller has gone or is being given back: a channel that enters now is a new
        arrival."""
        return self._closing or self._ended is not None

    @property
    def media_id(self) -> str:
        """The media channel, whether or not it exists."""
        return self._media.id

    @property
    def target_id(self) -> str:
        """The channel of a transfer's target; empty when there is none."""
        return "" if self._target is None else self._target.id

    @property
    def held(self) -> Held:
        """What the line holds in Asterisk."""
        lives = self._ended is None and not self._closing
        return Held(
            self.id,
            caller=self.id,
            media=self.media_id,
            bridge=self.bridge_id,
            caller_expected=lives and self._there,
            media_expected=lives and self._media.expected,
            target=self.target_id,
            target_expected=(
                lives and self._target is not None and (self._target.joined or self._target.adopted)
            ),
        )

    def entered(self, channel_id: str, found: Screened | None = None) -> None:
        """Handle a channel that has entered the application, for the first time or again.

        Args:
            channel_id: The caller's, the media channel, or the target's.
            found: Who has answered, as the dialplan says after AMD().
        """
        if channel_id == self.media_id:
            self._media.entered()
        elif (target := self._target) is not None and channel_id == target.id:
            if not target.answered:
                target.answered = True
                self._spawn(self._unless_lost(target, target.join(self.bridge_id)))
        elif self._screening:
            self._screening = False
            self._tell_call(found or Screened(""))
        elif self.placed and not self._entered:
            self._entered = self.answered = True
            self._tell_call(Answered())

    def replaced(self, channel_id: str, by: str, *, there: bool) -> None:
        """Handle a channel that has taken the place of the caller's or the target's, in the bridge
        or out of it: their telephone has transferred the call.

        Args:
            channel_id: The channel before, which no longer matters.
            by: The channel that has taken its place.
            there: That one is up.
        """
        lines = self._asterisk.lines
        log.info("channel_replaced", call=self.id, channel=channel_id, by=by)
        if channel_id == self.id:
            self.id = by
            self._tell_session()
            # The phone before may have held us, and does not tell that this is over. While the one
            # that is called now rings nobody hears us, and what comes from there is its ringing.
            self.held_by_phone(not there)
            self._rings_on = not there
            if self._channel.replaced(by):
                self.music()
            told: LineEvent = CallerReplaced(there)
        elif (target := self._target) is not None and channel_id == target.id:
            target.id = by
            told = Noticed("whom the call was transferred to has passed it on")
        else:
            return
        lines.pop(channel_id, None)
        lines[by] = self
        self._tell_call(told)

    def in_bridge(self, channel_id: str, bridge: str) -> None:
        """Handle a channel that is in a bridge."""
        if bridge != self.bridge_id:
            return
        if channel_id == self.media_id:
            self._media.in_bridge()
        elif channel_id == self.id:
            self._channel.joined()
            self._connected()
        elif (target := self._target) and channel_id == target.id and not target.joined:
            target.joined = True
            self._tell_call(TargetConnected())

    def rings(self, channel_id: str) -> None:
        """Handle a channel of ours that rings."""
        if (target := self._target) is not None and channel_id == target.id:
            target.rang = True
        elif self.placed and not self._entered:
            self._rang = True
            self._tell_call(Rings())

    def is_up(self) -> None:
        """Handle the caller's channel being up."""
        if self._rings_on:
            self._rings_on = False
            self.held_by_phone(False)
            self._tell_call(CallerReplaced(True))
        if not self.answered:
            self.answered = True
            if self._wanted:
                self._request(self._join())

    def key_pressed(self, channel_id: str, digit: str) -> None:
        """Handle an event that says that somebody has pressed a key."""
        if channel_id == self.target_id:
            self._tell_call(TargetPressed(digit))
        elif channel_id == self.id and not self._media_tells_keys:
            self._tell_call(KeyPressed(digit))

    def held_by_phone(self, on: bool) -> None:
        """Handle the caller's phone having put us on hold, or taken us back."""
        self._phone_holds = on
        self._tell_call(PhoneHeld(on))

    def keep_cause(self, hangup_cause: int | None, sip_code: int | None) -> None:
        """Keep why the caller's channel ends, as far as it is known."""
        self.cause = replace(
            self.cause,
            hangup_cause=hangup_cause or self.cause.hangup_cause,
            sip_code=sip_code or self.cause.sip_code,
        )

    def left(self, channel_id: str) -> None:
        """Handle a channel that has left the application."""
        if channel_id == self.media_id:
            self._media.left()
        elif channel_id == self.target_id:
            self.target_gone(None, None)
        elif not self._screening:
            # Without a hang-up somebody else has taken the caller: a transfer from outside, a
            # redirect.
            self._caller_gone("caller_hung_up" if self.hung_up else "caller_left")

    def destroyed(self, channel_id: str, cause: int | None, sip_code: int | None) -> None:
        """Handle a channel that is no more."""
        if channel_id == self.media_id:
            self._media.destroyed(cause)
        elif channel_id == self.target_id:
            self.target_gone(cause, sip_code)
        else:
            self.keep_cause(cause, sip_code)
            self._caller_gone("caller_hung_up")

    def gone(self) -> None:
        """Handle the caller's channel being found to be no more."""
        self._caller_gone("caller_hung_up")

    def media_gone(self) -> None:
        """Handle the media channel being found to be no more."""
        self._media.gone()

    def target_gone(self, cause: int | None, sip_code: int | None) -> None:
        """Handle a target of a transfer that has gone, or never answered."""
        if self._target is not None:
            why = EndCause(hangup_cause=cause, sip_code=sip_code)
            self._tell_call(TargetLost(self._target.why_gone(cause, sip_code), why))

    def route_to(self, channel_id: str) -> Route | None:
        """Return the route to a channel that we call; None for any other channel."""
        if (target := self._target) is not None and channel_id == target.id:
            return target.route
        return self._route if self.placed and channel_id == self.id else None

    def has_answered(self, channel_id: str) -> bool:
        """Return whether a channel that we called has been answered."""
        if (target := self._target) is not None and channel_id == target.id:
            return target.answered
        return self._entered

    def follow(self, channel_id: str) -> None:
        """Subscribe to a channel that a dialplan calls for us."""
        self._spawn(self._follow(channel_id))

    # --- inside

    def _take_name(self, session_id: str) -> None:
        app = self._asterisk.options.app
        self.session_id = session_id
        self.bridge_id = bridge_id(app, session_id)
        self._media.name(media_channel_id(app, session_id), self.bridge_id)

    def _tell_session(self) -> None:
        """Name the call on its channel, for what the dialplan and Asterisk write while it runs."""
        before = self._telling_session

        async def tell() -> None:
            if before is not None:
                # A caller who waits gets another name; the last one counts.
                await asyncio.wait([before])
            for name, value in session_variables(self.session_id).items():
                await self._ari.channels.set_channel_var(self.id, name, value)

        self._telling_session = self._request(tell(), essential=False)

    async def _follow(self, channel_id: str) -> None:
        try:
            await self._ari.applications.subscribe(f"channel:{channel_id}")
        except AriError as error:
            # It has ended already; how the Dial() went is told in any case.
            log.debug("route_not_followed", call=self.id, code=error.code)

    def _tell_call(self, event: LineEvent) -> None:
        if self._tell is not None and not self._closing:
            self._tell(event)

    def _key_on_media(self, digit: str) -> None:
        if self._media_tells_keys:
            self._tell_call(KeyPressed(digit))

    @property
    def _media_tells_keys(self) -> bool:
        """Whether the media channel tells the caller's keys, and nobody else's.

        It tells each once. Asterisk (22.10.1) sends the event of ARI's again when it takes up a key
        that it has put off, as it does with one that follows the last within 45 ms.
        """
        version = self._asterisk.version
        return (
            version is not None
            and version.capabilities.keys
            and self._media.expected
            and self._channel.in_bridge
            and self._target is None
        )

    def _caller_gone(self, reason: str) -> None:
        if self._ended is not None:
            return
        result = None
        if self.placed and not self._entered:
            route = self._route
            cause, sip_code = route.why(self.cause.hangup_cause, self.cause.sip_code)
            self.cause = replace(self.cause, hangup_cause=cause, sip_code=sip_code)
            result = result_of(cause, sip_code, rang=self._rang, dial_status=route.dial_status)
            reason = result.value
        self._ended = Ended(reason, result)
        self._there = False
        self._tell_call(self._ended)

    def _media_is_named(self, before: str, media_id: str) -> None:
        self._asterisk.lines.pop(before, None)
        self._asterisk.lines[media_id] = self

    def _sound_is_open(self) -> None:
        if self._wanted and self._channel.in_bridge:
            self._set_up.drop()
        self._tell_call(Opened())

    async def _make_bridge(self, ari: Client) -> None:
        if self._adopted:
            # The lost process may just have made it.
            with suppress(AriNotFound):
                await ari.bridges.get(self.bridge_id)
                return
        await ari.bridges.create_with_id(self.bridge_id, name=bridge_name(self.id))

    def _connected(self) -> None:
        if self._wanted:
            # The caller of an adopted call is there before its sound is.
            if self._media.opened or self._handed_over:
                self._set_up.drop()
            if self._rtp_timer is None:
                self._watch_rtp()
            self._tell_call(Connected())

    def _bridge_is_made(self) -> None:
        if not self._bridge_made:
            self._bridge_made = True
            self._media.bridge_is_made()

    async def _play_music(self) -> None:
        # Until the music begins, the caller hears a soft tone now and then.
        if self._channel.in_bridge:
            self._media.keep_company(True)
        try:
            await self._channel.music(self.bridge_id)
        finally:
            self._media.keep_company(False)

    async def _keep_company(self, giving_back: Coroutine[Any, Any, None]) -> None:
        """Keep the sound, with a soft tone now and then, until the caller has been given back."""
        self._media.keep_company(True)
        try:
            await giving_back
        finally:
            self._media.hang_up()
            await self._remove_resources()

    def _watch_rtp(self, seconds: float = _FIRST_RTP_SECONDS) -> None:
        """Read the counters of the caller's RTP every 20 s: with the channel they are gone."""

        async def look() -> None:
            if await self._read_rtp(final=False) and not self._closing:
                self._watch_rtp(_RTP_EVERY_SECONDS)

        self._rtp_timer = asyncio.get_running_loop().call_later(
            seconds, lambda: self._spawn(look())
        )

    async def _read_rtp(self, *, final: bool) -> bool:
        """Read the counters of the caller's RTP; return whether any are known."""
        if self.reachable and (told := await rtp_report(self._ari, self.id)) is not None:
            self.rtp = replace(told, final=final)
        return self.rtp is not None

    async def _join(self) -> None:
        if await self._channel.join(self.bridge_id):
            self._connected()

    async def _dial(self) -> None:
        placing = self._placing
        assert placing is not None, "only a line of ours is dialled"
        variables = {
            # The route behind a Local channel, and whatever it dials, inherit them.
            **{f"__{name}": value for name, value in placing.channel_variables.items()},
            **{f"PJSIP_HEADER(add,{name})": value for name, value in placing.sip_headers.items()},
            **told_to_callee(self.session_id),
        }
        try:
            await self._ari.channels.originate(
                self.id,
                dial_string(self._asterisk.options.outbound_endpoint, self.called),
                caller_id=as_caller_id(placing.caller_id),
                ring_seconds=math.ceil(placing.ring_seconds) + SPARE_RING_SECONDS,
                variables=variables,
            )
        except AriServerError as error:
            # "Allocation failed": the endpoint is not known, or nobody is registered there.
            self._not_dialled(Result.UNREACHABLE, error, _NOT_KNOWN)
        except AriError as error:
            # After a time-out it may have been dialled all the same.
            self._there = isinstance(error, AriTimeout) or (
                isinstance(error, AriUnavailable) and error.may_be_done
            )
            self._not_dialled(Result.FAILED, error, _REFUSED)
        else:
            self._there = True

    def _not_dialled(self, result: Result, error: AriError, why: str) -> None:
        endpoint = self._asterisk.options.outbound_endpoint
        log.warning(
            "callee_not_dialled",
            call=self.id,
            endpoint=endpoint,
            code=error.code,
            error=str(error),
        )
        detail = f"OUTBOUND_ENDPOINT is {endpoint}: {why} ({error.code})."
        self.cause = replace(self.cause, detail=detail)
        if not self._there:
            self._ended = Ended(result.value, result)
        self._tell_call(Ended(result.value, result))

    async def _screen(self) -> None:
        ari = self._ari.persistent(self._set_up)
        await ari.applications.subscribe(f"channel:{self.id}")
        try:
            await ari.channels.continue_in_dialplan(
                self.id, context=self._asterisk.options.amd_context, extension="s", priority=1
            )
        except AriConflict:
            if not self._set_up.in_doubt:
                raise
            # It is in the dialplan: only the answer was lost.

    async def _unless_lost(
        self, target: TargetChannel, step: Coroutine[Any, Any, Result | None]
    ) -> None:
        result = await step
        # If another target is called by now, that one is not lost.
        if result is not None and self._target is target:
            self._tell_call(TargetLost(result.value))

    @property
    def _two_speak(self) -> bool:
        """Whether the caller speaks with the target of a transfer, or a supervisor."""
        target = self._target
        joined = target is not None and target.joined
        return joined and self._channel.in_bridge and self._ended is None

    def _drop_target(self) -> Coroutine[Any, Any, None]:
        """Hang up the target, if there is one; another one may be called meanwhile."""
        target, self._target = self._target, None
        if target is None:
            return asyncio.sleep(0)
        # Its events no longer concern this line.
        self._asterisk.lines.pop(target.id, None)
        target.give_up()
        return target.hang_up()

    async def _end_sound(self, *, heard_out: bool) -> None:
        try:
            if heard_out:
                await self._media.heard_out()
        finally:
            self._media.hang_up()

    async def _remove_resources(self) -> None:
        if not self._media.was_wanted and not self._adopted:
            return
        # Bridge or channel must have been made before they can be removed; every request has a
        # deadline.
        making = set(self._media.making)
        if self._making_bridge is not None and not self._making_bridge.done():
            making.add(self._making_bridge)
        if making:
            await asyncio.wait(making)
        ari = self._ari.persistent()
        await asyncio.gather(
            self._media.remove(),
            quietly(lambda: ari.bridges.destroy(self.bridge_id), attempts=2),
        )

    async def _give_back(self, outcome: Outcome, end: CallEnd) -> None:
        """Let a caller go on in the dialplan; hang up a callee, unless it is transferred there."""
        ari = self._ari.persistent()
        placing, self._placing_task = self._placing_task, None
        if placing is not None:
            # A channel that is being made cannot be hung up.
            await asyncio.wait([placing])
        if self.placed and not self._there:
            return
        # The counters of its RTP are gone with the channel.
        if self._rtp_timer is not None:
            await self._read_rtp(final=True)
        if self.placed and outcome.status is not Status.TRANSFER:
            reason = "no_answer" if outcome.reason == Result.NO_ANSWER else "normal"
            await quietly(lambda: ari.channels.hangup(self.id, reason=reason), attempts=2)
            return
        await self._channel.end_music(ari)
        await give_back_caller(
            ari,
            self.id,
            outcome,
            session_id=end.session_id,
            conversation_id=end.conversation_id,
            context=self._asterisk.options.transfer_context if self.placed else None,
        )

    async def _ask(self, request: Awaitable[object]) -> None:
        try:
            await request
        except AriError as error:
            raise LineError(str(error), code=error.code) from None

    def _request(
        self,
        request: Coroutine[Any, Any, object],
        *,
        then: Callable[[], None] | None = None,
        essential: bool = True,
        errand: Errand | None = None,
    ) -> asyncio.Task[None]:
        async def request_of_line() -> None:
            try:
                await request
            except AriError as error:
                gone = essential and await self._caller_is_gone(error)
                fails = essential and not gone and (errand is None or errand.wanted)
                write = log.warning if fails else log.info
                write("ari_request_failed", call=self.id, code=error.code, error=str(error))
                if gone:
                    self.gone()
                elif fails:
                    self._tell_call(LineFailed(error.code))
            else:
                if then is not None:
                    then()

        return self._spawn(request_of_line())

    async def _caller_is_gone(self, refusal: AriError) -> bool:
        """Return whether a request was refused because the caller has hung up: the refusal may come
        before the event of the hang-up."""
        if not self._there or not isinstance(refusal, AriNotFound | AriBadRequest):
            return False
        try:
            await self._ari.channels.get(self.id)
        except AriNotFound:
            return True
        except AriError:
            pass
        return False

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"call {self.id}")
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("call_task_failed", call=self.id, exc_info=error)
            self._tell_call(LineFailed("internal_error"))
