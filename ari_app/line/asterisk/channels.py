"""Channels in Asterisk: the caller's and that of a transfer's target, and how each is let go.

A wish that cannot be carried out now is carried out once Asterisk can be reached, unless another
has taken its place.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from types import TracebackType
from typing import Final

import structlog

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriConflict, AriError, AriNotFound
from ari_app.line.asterisk.ari.rest import Errand
from ari_app.line.asterisk.dialplan import word
from ari_app.line.interface import Outcome, Result, RtpReport
from ari_app.line.numbers import caller_id as as_caller_id
from ari_app.line.numbers import transfer_target
from ari_app.line.results import Route, result_of

log = structlog.get_logger(__name__)

# We watch the ringing ourselves, for Asterisk did not say "no answer" before 20.18 and 22.8; its
# own limit is for the case that we are gone.
SPARE_RING_SECONDS: Final = 5
# Somebody who has answered does not sit in silence for longer.
_JOIN_SECONDS: Final = 5.0
# No hang-up waits longer for what the channel's RTP has counted; Asterisk answers in 2 ms.
_RTP_SECONDS: Final = 0.2
# Asterisk counts what was lost with each of its own reports to the telephone.
_RTCP_SECONDS: Final = 5.0
_PACKETS_A_SECOND: Final = 50


class _Where(Enum):
    NEITHER = auto()
    JOINING = auto()  # on the way into the bridge
    BRIDGE = auto()
    MUSIC = auto()
    UNKNOWN = auto()  # an answer was lost


class CallerChannel:
    """The channel of whoever speaks with the agent.

    It hears music or is in the bridge. Whatever is wished last is brought about as soon as Asterisk
    can be reached, and a wish of which nothing has been begun until the next one costs nothing.

    Args:
        ari: Asterisk.
        channel_id: The channel.

    Attributes:
        wish: The last one.
        changing: Held while one is carried out.
    """

    def __init__(self, ari: Client, channel_id: str) -> None:
        self._ari = ari
        self._id = channel_id
        self._where = _Where.NEITHER
        # Music and bridge exclude each other, so each change waits for the one before it.
        self.changing = asyncio.Lock()
        self.wish = Errand()

    def adopted(self) -> None:
        """Take note that it is here since before this process: it is not known where."""
        self._where = _Where.UNKNOWN

    def replaced(self, channel_id: str) -> bool:
        """Go on with a channel that has taken this one's place, in the bridge or out of it.

        Returns:
            Whether music has to begin anew, for that does not come with the place.
        """
        self._id = channel_id
        heard_music = self._where is _Where.MUSIC
        if self._where is not _Where.BRIDGE:
            self._where = _Where.UNKNOWN
        return heard_music

    @property
    def in_bridge(self) -> bool:
        """Whether it is known to be in the bridge, and hears the line."""
        return self._where is _Where.BRIDGE

    async def join(self, bridge_id: str) -> bool:
        """Put the channel into a bridge; the music, if any, ends.

        Returns:
            Whether Asterisk may have nothing to report of it, for the channel was there before.

        Raises:
            AriError: It cannot be done.
        """
        async with _Wishing(self) as wish:
            if not wish.wanted:
                return False
            if self._where is _Where.BRIDGE:
                return True
            unsure = self._where is _Where.UNKNOWN
            ari = self._ari.persistent(wish)
            if self._where is not _Where.NEITHER:
                await ari.channels.stop_moh(self._id)
            self._where = _Where.JOINING
            try:
                await ari.bridges.add_channel(bridge_id, self._id)
            except AriError:
                if self._where is _Where.JOINING:
                    self._where = _Where.UNKNOWN if wish.in_doubt else _Where.NEITHER
                raise
            self._where = _Where.BRIDGE
            return unsure or wish.in_doubt
        return False  # another wish has taken its place

    def joined(self) -> None:
        """Take note that the channel is in the bridge, whatever becomes of the answer."""
        if self._where is _Where.JOINING:
            self._where = _Where.BRIDGE
            self.wish.drop()
        elif self._where is _Where.UNKNOWN and not self.changing.locked():
            self._where = _Where.BRIDGE

    async def music(self, bridge_id: str) -> None:
        """Play music; a channel in the bridge leaves it first.

        Raises:
            AriError: It cannot be done.
        """
        async with _Wishing(self) as wish:
            if not wish.wanted or self._where is _Where.MUSIC:
                return
            ari = self._ari.persistent(wish)
            try:
                if self._where is not _Where.NEITHER:
                    await self._leave_bridge(ari, bridge_id, wish)
                await ari.channels.start_moh(self._id)
            except AriError:
                if wish.in_doubt:
                    self._where = _Where.UNKNOWN
                raise
            self._where = _Where.MUSIC

    async def end_music(self, ari: Client) -> None:
        """End the music, for a channel that goes elsewhere; never raises for Asterisk's sake."""
        async with _Wishing(self):
            if self._where in (_Where.MUSIC, _Where.UNKNOWN):
                await quietly(lambda: ari.channels.stop_moh(self._id))

    async def _leave_bridge(self, ari: Client, bridge_id: str, wish: Errand) -> None:
        try:
            await ari.bridges.remove_channel(bridge_id, self._id)
        except AriConflict:
            if self._where is _Where.BRIDGE and not wish.in_doubt:
                raise
            # It has left it: only the answer was lost.
        self._where = _Where.NEITHER


class _Wishing:
    """Takes the place of a channel's last wish; what of that is under way is waited for.

    Not made of a generator: `contextlib` then keeps an error that is passed over for the collector
    (CPython 3.13.0).
    """

    def __init__(self, channel: CallerChannel) -> None:
        self._channel = channel

    async def __aenter__(self) -> Errand:
        channel = self._channel
        channel.wish.drop()
        self._wish = channel.wish = Errand()
        await channel.changing.acquire()
        return self._wish

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._channel.changing.release()
        # Of a wish that has been overtaken nobody needs to hear.
        return isinstance(error, AriError) and not self._wish.wanted


class TargetChannel:
    """The channel of the one to whom a caller is transferred, from the call to the hang-up.

    Args:
        ari: Asterisk.
        channel_id: The name that it will have.
        dialled: What Asterisk dials.

    Attributes:
        rang, answered, joined: What has been heard of it: it rings, it is in our application, it is
            in the bridge.
        route: What is known of the way to it that leads through a dialplan.
        calling: The request that makes it, while that is under way.
        adopted: A process that was lost has called it.
    """

    def __init__(self, ari: Client, channel_id: str, dialled: str) -> None:
        self.id = channel_id
        self.rang = self.answered = self.joined = False
        self.route = Route()
        self.calling: asyncio.Task[None] | None = None
        self.adopted = False
        self._ari = ari
        self._dialled = dialled
        self._joining = Errand()

    async def call(self, caller: str, ring_seconds: float, endpoint: str) -> Result | None:
        """Call it; why it cannot be called, or None.

        Args:
            caller: The number that it sees.
            ring_seconds: How long it may ring.
            endpoint: The setting that it is dialled by, for the log.
        """
        try:
            await self._ari.channels.originate(
                self.id,
                self._dialled,
                caller_id=as_caller_id(caller),
                ring_seconds=math.ceil(ring_seconds) + SPARE_RING_SECONDS,
            )
        except AriError as error:
            log.warning(
                "target_not_dialled",
                channel=self.id,
                endpoint=endpoint,
                code=error.code,
                error=str(error),
            )
            return Result.UNREACHABLE
        return None

    async def join(self, bridge_id: str) -> Result | None:
        """Put it into a bridge; why it cannot be put there, or None."""
        ari = self._ari.persistent(self._joining)
        try:
            async with asyncio.timeout(_JOIN_SECONDS):
                await ari.bridges.add_channel(bridge_id, self.id)
        except TimeoutError:
            return Result.FAILED
        except AriError as error:
            log.info("target_not_joined", channel=self.id, code=error.code, error=str(error))
            return Result.FAILED
        return None

    def give_up(self) -> None:
        """Join it no more."""
        self._joining.drop()

    async def hang_up(self) -> None:
        """Hang up; never raises for Asterisk's sake."""
        # A channel that is still being made cannot be hung up.
        if self.calling is not None:
            await asyncio.wait([self.calling])
        ari = self._ari.persistent()
        await quietly(lambda: ari.channels.hangup(self.id), attempts=2)

    def why_gone(self, cause: int | None, sip_code: int | None) -> str:
        """Say why it is no longer there: `hung_up`, or why it never answered."""
        if self.answered:
            return "hung_up"
        route = self.route
        cause, sip_code = route.why(cause, sip_code)
        return result_of(cause, sip_code, rang=self.rang, dial_status=route.dial_status).value


async def quietly(request: Callable[[], Awaitable[object]], *, attempts: int = 1) -> bool:
    """Make a request that removes something; what is gone already counts as removed.

    Returns:
        Whether it is gone. A failure is logged; a sweep (`cleanup.Sweeper`) finds what is left.
    """
    for _ in range(attempts):
        try:
            await request()
        except AriNotFound:
            return True
        except AriError as error:
            log.warning("release_request_failed", code=error.code, error=str(error))
        else:
            return True
    return False


async def give_back_caller(
    ari: Client,
    channel_id: str,
    outcome: Outcome,
    *,
    session_id: str = "",
    conversation_id: str = "",
    context: str | None = None,
) -> bool:
    """Let a channel go on in the dialplan, and tell it there how the agent's part ended.

    Args:
        ari: Asterisk.
        channel_id: The channel.
        outcome: How the agent's part ended.
        session_id, conversation_id: Ours, and ElevenLabs'.
        context: Go on there, at the extension `s`; None: after `Stasis()`.

    Returns:
        Whether the channel has left us; one that has hung up has, and one that is no longer in
        Stasis (409).
    """
    variables = {
        "AGENT_STATUS": outcome.status.value,
        "AGENT_REASON": word(outcome.reason),
        "AGENT_SESSION_ID": word(session_id),
        # The agent's service has chosen it.
        "AGENT_CONVERSATION_ID": word(conversation_id),
    }
    if outcome.transfer_to is not None:
        variables["AGENT_TRANSFER_TO"] = transfer_target(outcome.transfer_to)
    # Asterisk sets them one after the other, in the channel's own thread; nobody waits for each.
    there = await asyncio.gather(
        *(_set_variable(ari, channel_id, name, value) for name, value in variables.items())
    )
    if not all(there):
        return True
    extension = None if context is None else "s"

    async def let_go() -> None:
        try:
            await ari.channels.continue_in_dialplan(
                channel_id, context=context, extension=extension
            )
        except AriConflict:
            # It is in the dialplan: only the answer to the first attempt was lost.
            return

    left = await quietly(let_go, attempts=2)
    if not left:
        log.error("caller_not_released", call=channel_id)
    return left


async def _set_variable(ari: Client, channel_id: str, name: str, value: str) -> bool:
    """Set a variable of a channel. Returns whether the channel is still there, and in Stasis."""
    try:
        await ari.channels.set_channel_var(channel_id, name, value)
    except (AriNotFound, AriConflict):
        return False
    except AriError as error:
        # Going on without a variable is better than not going on.
        log.warning("variable_not_set", variable=name, code=error.code, error=str(error))
    return True


async def rtp_report(ari: Client, channel_id: str) -> RtpReport | None:
    """Ask what a channel's RTP has counted; what Asterisk cannot know is None, and not 0.

    Returns:
        None: It is a channel without RTP, or gone already, or there was no answer in time.
    """
    try:
        told = await ari.within(_RTP_SECONDS).channels.rtp_statistics(channel_id)
    except AriError as error:
        log.debug("rtp_not_known", call=channel_id, code=error.code)
        return None
    # Asterisk (22.10.1) has the names of the two jitters the wrong way round: `txjitter` is that of
    # what it received, `rxjitter` what the telephone reports of what it was sent. Of one that
    # reports nothing, all that it would have reported is 0.
    rtcp = bool(told.rtt or told.maxrtt or told.rxjitter or told.txploss)
    lost_is_known = told.rxploss or told.rxcount > _RTCP_SECONDS * _PACKETS_A_SECOND
    return RtpReport(
        received=told.rxcount,
        sent=told.txcount,
        received_lost=told.rxploss if lost_is_known else None,
        received_jitter_ms=round(told.txjitter * 1000, 2),
        rtcp=rtcp,
        sent_lost=told.txploss if rtcp else None,
        sent_jitter_ms=round(told.rxjitter * 1000, 2) if rtcp else None,
        round_trip_ms=round(told.rtt * 1000, 2) if rtcp else None,
    )
