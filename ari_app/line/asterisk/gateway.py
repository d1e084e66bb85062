"""The way in and out through an Asterisk: its events become lines and what happens on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import structlog

from ari_app.errors import LineError
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriError
from ari_app.line.asterisk.ari.events import (
    AriEvent,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelEnteredBridge,
    ChannelHangupRequest,
    ChannelHold,
    ChannelStateChange,
    ChannelUnhold,
    Dial,
    StasisEnd,
    StasisStart,
)
from ari_app.line.asterisk.ari.models import Channel
from ari_app.line.asterisk.ari.socket import EventSocket
from ari_app.line.asterisk.ari.version import Assessment, assess
from ari_app.line.asterisk.channels import give_back_caller
from ari_app.line.asterisk.cleanup import Mender, Sweeper
from ari_app.line.asterisk.dialplan import parse_arguments, read_moved
from ari_app.line.asterisk.line import Asterisk, AsteriskLine, AsteriskOptions
from ari_app.line.asterisk.media import AudioSocketMedia, Media, OnLost
from ari_app.line.asterisk.media_transport import Choice, choose_transport
from ari_app.line.asterisk.names import (
    FAR_HALF,
    media_channel_id,
    placed_channel_id,
    target_channel_id,
    trunk_of,
)
from ari_app.line.asterisk.websocket_media import WebSocketMedia
from ari_app.line.interface import Arrival, LineSound, Outcome, Placing, Screened, Status
from ari_app.line.numbers import text_value
from ari_app.line.results import Route
from audiosocket.frames import SlinFormat
from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock

log = structlog.get_logger(__name__)

_RINGING: Final = frozenset({"RINGING", "PROGRESS"})
_FAILED: Final = frozenset({"BUSY", "NOANSWER", "CONGESTION", "CHANUNAVAIL"})
_ROUTE_SECONDS: Final = 0.3
_LOOK_SECONDS: Final = 0.02
_BUSY_CHANNELS: Final = 100
"""Those of fifty calls, each with a media channel: as `UPLINK_BUSY_CHUNK_MS` has it."""
_NOT_CONNECTED: Final = "not connected yet"


class AsteriskGateway:
    """One Stasis application.

    Attributes:
        take: Takes arrivals; `run` sets it.

    Args:
        ari: Asterisk's REST interface.
        clock: Gives the pace.
        server: Where Asterisk's sound comes in over AudioSocket; None: it never does.
        options: How calls go through Asterisk.
        on_state: Told of the event socket's state: `connected`, `replaced`, or what it waits for.
        on_moved: Told of each channel that another application of ours has given to this one.
    """

    name = "asterisk"
    routes = ()

    def __init__(
        self,
        ari: Client,
        clock: FrameClock,
        server: AudioSocketServer | None,
        options: AsteriskOptions,
        *,
        on_state: Callable[[str], None] = lambda state: None,
        on_moved: Callable[[str], None] = lambda channel: None,
    ) -> None:
        self._ari = ari
        self._clock, self._server, self._options = clock, server, options
        self._choice = Choice.before(options.media_transport)
        self._app = options.app
        self._on_state = on_state
        self._on_moved = on_moved
        self._state = _NOT_CONNECTED
        self.asterisk = Asterisk(ari, self._make_media, options)
        self._lines = self.asterisk.lines
        self.take: Callable[[Arrival], object] = self._refuse
        # Channels that a dialplan calls for us, and the channel of ours that each is for.
        self._routes: dict[str, str] = {}
        self._adopted: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self._mender = Mender(ari, self._app, options.amd_context)
        self._sweeper = Sweeper(self._mender, ari, self._lines, self.handle)
        self._ours = (
            media_channel_id(self._app, ""),
            placed_channel_id(self._app, ""),
            target_channel_id(self._app, ""),
        )

    # --- ari_app.line.interface.Gateway

    async def run(self, take: Callable[[Arrival], object]) -> None:
        """Take calls in until cancelled, or until another process has the application.

        Raises:
            AriUnauthorized: Asterisk refuses our name or password, or lets us only read.
        """
        self.take = take
        # Goes on until `close`: once another process gets the events, a look is the only way to
        # see that a caller of ours has hung up.
        self._spawn(self._sweeper.sweep_forever())
        await EventSocket(self._ari, self.handle, self._state_changed).run()

    def serves(self, how: Placing) -> bool:
        """Whether we call: without audio of the dialer's own."""
        return how.audio is None

    def place(self, session_id: str, number: str, how: Placing) -> AsteriskLine:
        """Make a line to a callee; see `Gateway`."""
        options = self._options
        _check(how.channel_variables, options.channel_variables, "OUTBOUND_VARIABLES")
        _check(how.sip_headers, options.sip_headers, "OUTBOUND_HEADERS")
        return AsteriskLine(
            self.asterisk,
            placed_channel_id(self._app, session_id),
            caller=how.caller_id,
            called=number,
            placing=how,
        )

    def problems(self) -> list[str]:
        """Say why no call can come in or go out now; empty when all is well."""
        problems = []
        if self._state != "connected":
            problems.append(f"Asterisk's event socket is {self._state}")
        elif self.asterisk.version is None:
            problems.append("Asterisk has not said its version yet")
        if self._choice.problem:
            problems.append(self._choice.problem)
        if self._server is not None and not self._server.listening:
            problems.append("the AudioSocket server does not listen")
        return problems

    @property
    def media_transport(self) -> str:
        """How sound goes between Asterisk and us: `audiosocket` or `websocket`."""
        return self._choice.transport

    def adopt(
        self, session_id: str, kept: Mapping[str, Any], begin: Callable[[], None]
    ) -> AsteriskLine | None:
        """Make the line of a call whose process was lost; see `Gateway`."""
        try:
            line = AsteriskLine.adopt(self.asterisk, session_id, kept)
        except ValueError as error:
            log.error("line_not_adopted", session=session_id, error=str(error))
            return None
        self._adopted.append(begin)
        return line

    async def mend(self, *, expected: bool, adopting: bool = False) -> None:
        """Give back what a lost process has left in Asterisk; see `Gateway`."""
        if adopting:
            await self._sweeper.take_up()
        else:
            await self._mender.mend(expected=expected)

    def abandon(self) -> None:
        """Give up the requests that wait for Asterisk's return."""
        self._ari.link.abandon()

    async def close(self) -> None:
        """Stop what runs in the background."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def connected(self) -> bool:
        """Whether Asterisk can be told to call."""
        return self._state == "connected"

    # --- Asterisk's events

    def handle(self, event: AriEvent) -> None:
        """Hand one of Asterisk's events to the line that it concerns."""
        match event:
            case StasisStart():
                self._entered(event)
            case ChannelEnteredBridge(channel=Channel(id=channel_id)):
                if (line := self._lines.get(channel_id)) is not None:
                    line.in_bridge(channel_id, event.bridge.id)
            case ChannelHangupRequest(channel=channel):
                if (line := self._line_of_caller(channel.id)) is not None:
                    line.hung_up = True
                    line.keep_cause(event.cause, event.tech_cause)
            case Dial():
                self._dials(event)
            case StasisEnd(channel=channel):
                if (line := self._lines.get(channel.id)) is not None:
                    line.left(channel.id)
                else:
                    self._sweeper.channel_gone(channel.id)
            case ChannelDestroyed(channel=Channel(id=channel_id)) if channel_id in self._routes:
                if (route := self._route_to(self._routes.pop(channel_id))) is not None:
                    route.cause, route.sip_code = event.cause, event.tech_cause
            case ChannelDestroyed(channel=channel):
                if (line := self._lines.get(channel.id)) is None:
                    pass
                elif channel.id in self._routes.values() and not line.has_answered(channel.id):
                    self._spawn(self._end_after_route(line, event))
                else:
                    line.destroyed(channel.id, event.cause, event.tech_cause)
            case ChannelStateChange(channel=Channel(state="Ringing") as channel):
                if (line := self._lines.get(channel.id)) is not None:
                    line.rings(channel.id)
            case ChannelStateChange(channel=Channel(state="Up") as channel):
                if (line := self._line_of_caller(channel.id)) is not None:
                    line.is_up()
            case ChannelDtmfReceived(channel=channel):
                if (line := self._lines.get(channel.id)) is not None:
                    line.key_pressed(channel.id, event.digit)
            case ChannelHold(channel=channel) | ChannelUnhold(channel=channel):
                if (line := self._line_of_caller(channel.id)) is not None:
                    line.held_by_phone(isinstance(event, ChannelHold))
            case _:
                pass

    def _dials(self, event: Dial) -> None:
        """Handle a channel being called: by us, or by the dialplan behind a Local channel of
        ours."""
        status, peer = event.dialstatus, event.peer.id
        self._at_trunk(event)
        if status in _RINGING:
            if (line := self._lines.get(peer)) is not None:
                line.rings(peer)
            return
        ours = peer if event.caller is None else event.caller.id.removesuffix(FAR_HALF)
        if (route := self._route_to(ours)) is None:
            return
        if status in _FAILED:
            # The status of our own channel is only what the dialplan has made of the other one's.
            if ours != peer or not route.dial_status:
                route.dial_status = status
        elif not status and ours != peer:
            self._routes = {
                called: leg for called, leg in self._routes.items() if leg in self._lines
            }
            self._routes[peer] = ours
            self._lines[ours].follow(peer)

    def _at_trunk(self, event: Dial) -> None:
        """Keep the trunk of a call that we place: the endpoint of the channel that we asked for, or
        of the last one that the dialplan behind a Local channel calls."""
        caller = event.peer if event.caller is None else event.caller
        ours = self._line_of_caller(event.peer.id) or self._line_of_caller(
            caller.id.removesuffix(FAR_HALF)
        )
        if ours is not None and ours.placed and (trunk := trunk_of(event.peer.name)):
            ours.trunk = trunk

    async def _end_after_route(self, line: AsteriskLine, event: ChannelDestroyed) -> None:
        """End a channel that a dialplan failed to connect, once the reason is known.

        Asterisk tells the end of the channel that was dialled and of ours in no fixed order.
        """
        ours = event.channel.id
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ROUTE_SECONDS):
                while ours in self._routes.values():  # noqa: ASYNC110 - no event of its own
                    await asyncio.sleep(_LOOK_SECONDS)
        if self._lines.get(ours) is line:
            line.destroyed(ours, event.cause, event.tech_cause)

    def _route_to(self, ours: str) -> Route | None:
        line = self._lines.get(ours)
        return None if line is None else line.route_to(ours)

    def _entered(self, event: StasisStart) -> None:
        channel = event.channel
        has_room: bool | None = None
        if (moved := read_moved(event.args)) is not None:
            args, has_room = moved
            event = event.model_copy(update={"args": tuple(args)})
            self._on_moved(channel.id)
        if (before := event.replace_channel) is not None and (
            (line := self._lines.get(before.id)) is not None and not line.over
        ):
            line.replaced(before.id, channel.id, there=channel.state == "Up")
            return
        line = self._lines.get(channel.id)
        # A caller may come back while their last call is still being given back: from the dialplan,
        # or redirected from outside. Either way this is a new arrival.
        if line is not None and not (line.over and channel.id == line.id):
            line.entered(channel.id, _screened(event))
        elif channel.id.startswith(self._ours):
            self._spawn(self._of_a_call_that_is_over(event, has_room))
        else:
            self._arrived(event, has_room)

    async def _of_a_call_that_is_over(self, event: StasisStart, has_room: bool | None) -> None:
        """Hang up a channel of ours whose call ended while Asterisk was still making it.

        A callee whom a call has transferred into the dialplan has `AGENT_STATUS`: the dialplan has
        brought them to another agent, so they are a new arrival.
        """
        channel_id = event.channel.id
        try:
            told = await self._ari.channels.get_channel_var(channel_id, "AGENT_STATUS")
        except AriError:
            told = ""
        if told:
            self._arrived(event, has_room)
        else:
            await self._mender.remove_channel(channel_id)

    def _arrived(self, event: StasisStart, has_room: bool | None) -> None:
        channel, arguments = event.channel, parse_arguments(event.args)
        line = AsteriskLine(
            self.asterisk,
            channel.id,
            caller=channel.caller.number,
            # An extension such as `s`, which all calls pass, tells nobody who was called.
            called=arguments.variables.get("called_number") or channel.dialplan.exten,
            trunk=trunk_of(channel.name),
            answered=channel.state == "Up",
        )
        self.take(
            Arrival(
                line,
                agent_id=arguments.agent_id,
                variables=arguments.variables,
                overrides=arguments.overrides,
                limits=arguments.limits,
                wait_seconds=arguments.wait_seconds,
                recorded=arguments.recorded,
                screened=_screened(event),
                traceparent=arguments.traceparent,
                problems=arguments.problems,
                has_room=has_room,
            )
        )

    def _refuse(self, arrival: Arrival) -> None:
        """Ignore an arrival: nobody takes calls yet."""
        failed = Outcome(Status.FAILED, "internal_error")
        self._spawn(give_back_caller(self._ari, arrival.line.id, failed))

    def _line_of_caller(self, channel_id: str) -> AsteriskLine | None:
        """Return the line that has this as its caller's, or callee's, channel."""
        line = self._lines.get(channel_id)
        return line if line is not None and line.id == channel_id else None

    # --- the way to Asterisk

    def _state_changed(self, state: str) -> None:
        self._state = state
        if state == "replaced":
            self._sweeper.replaced = True
        if state == "connected":
            self._spawn(self._connected())
        self._on_state(state)

    async def _connected(self) -> None:
        try:
            info = await self._ari.asterisk.get_info()
        except AriError as error:
            log.warning("asterisk_version_unknown", code=error.code, error=str(error))
            version = self.asterisk.version or assess("")
        else:
            version = assess(info.version)
            log.info("asterisk_connected", version=info.version, app=self._app)
        await self._choose_transport(version)
        self.asterisk.version = version
        adopted, self._adopted = self._adopted, []
        for begin in adopted:
            begin()
            # Hundreds take seconds, and a process that is silent so long counts as stalled.
            await asyncio.sleep(0)
        await self._sweeper.catch_up()

    async def _choose_transport(self, version: Assessment) -> None:
        chosen = await choose_transport(self._ari, self._options.media_transport, version)
        if chosen != self._choice:
            self._choice = chosen
            say = log.error if chosen.problem else log.info
            say("media_transport", transport=chosen.transport, why=chosen.problem or chosen.why)

    def _is_busy(self) -> bool:
        return len(self._lines) >= _BUSY_CHANNELS

    def _make_media(
        self, line_format: SlinFormat, sound: LineSound, seconds: float, on_lost: OnLost
    ) -> Media:
        server = self._server
        if server is None or self._choice.transport == "websocket":
            return WebSocketMedia(
                self._ari.rest, self._clock, self._is_busy, line_format, sound, on_lost
            )
        target = self._options.audiosocket_target
        return AudioSocketMedia(server, target, line_format, sound, seconds, on_lost)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("gateway_task_failed", exc_info=error)


def _check(given: Mapping[str, str], allowed: frozenset[str], setting: str) -> None:
    """Raise a LineError where something must not be given to a callee's channel."""
    for name, value in given.items():
        if name not in allowed:
            raise LineError(f"{name} is not named in {setting}.", code="bad_variable")
        try:
            text_value(value)
        except ValueError as error:
            raise LineError(f"{name}: {error}.", code="bad_variable") from None


def _screened(event: StasisStart) -> Screened | None:
    found = parse_arguments(event.args).variables
    if "amd_status" not in found:
        return None
    return Screened(found["amd_status"], found.get("amd_cause", ""))
