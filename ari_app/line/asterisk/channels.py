"""Channels in Asterisk: the caller's and that of a transfer's target, and how each is let go.

A wish that cannot be carried out now is carried out once Asterisk can be reached, unless another
has taken its place.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from types import MappingProxyType, TracebackType
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
# A target who has answered hears silence for so long at most.
_JOIN_SECONDS: Final = 5.0
# No call to a target waits longer to know whether they are free; Asterisk answers in 2 ms.
_STATE_SECONDS: Final = 1.0
_NOT_FREE: Final = MappingProxyType(
    {
        **dict.fromkeys(("INUSE", "BUSY", "RINGING", "RINGINUSE", "ONHOLD"), Result.BUSY),
        "UNAVAILABLE": Result.UNREACHABLE,
    }
)
# No hang-up waits longer for what the channel's RTP has counted; Asterisk answers in 2 ms.
_RTP_SECONDS: Final = 0.2
# Asterisk counts what was lost with each of its own reports to the telephone.
_RTCP_SECONDS: Final = 5.0
_PACKETS_A_SECOND: Final = 50
# Whom a callee forwards to (302) Asterisk calls as an extension of this context, by default the
# endpoint's. There calls come in, and our own agent would answer: this one does not exist.
_FORWARDS_NOWHERE: Final = "no-forwarding"


class _Where(Enum):
    NEITHER = auto()
    JOINING = auto()  # on the way into the bridge
    BRIDGE = auto()
    MUSIC = auto()
    UNKNOWN = auto()  # an answer was lost


class CallerChannel:
    """The channel of the caller, or callee, who speaks with the agent: in the bridge, or on music.

    The last request for one of the two is carried out as soon as Asterisk can be reached. A request
    that another one overtakes before it has begun is dropped.

    Args:
        ari: Asterisk.
        channel_id: The channel.

    Attributes:
        wish: The last request.
        changing: Held while a request is carried out.
    """

    def __init__(self, ari: Client, channel_id: str) -> None:
        self._ari = ari
        self._id = channel_id
        self._where = _Where.NEITHER
        # Music and bridge exclude each other, so each change waits for the one before it.
        self.changing = asyncio.Lock()
        self.wish = Errand()

    def adopted(self) -> None:
        """Note that the channel is from before this process: where it is, is not known."""
        self._where = _Where.UNKNOWN

    def replaced(self, channel_id: str) -> bool:
        """Go on with a channel that has taken this one's place, in the bridge or out of it.

        Returns:
            Whether music has to be started anew: it ended with the channel before.
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
            Whether the channel may have been there before: then no event reports that it is.

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
        """Note that the channel is in the bridge, whether or not the request has been answered."""
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
        """End the music of a channel that leaves us. Logs an `AriError` instead of raising it."""
        async with _Wishing(self):
            if self._where in (_Where.MUSIC, _Where.UNKNOWN):
                await quietly(lambda: ari.channels.stop_moh(self._id))

    async def _leave_bridge(self, ari: Client, bridge_id: str, wish: Errand) -> None:
        try:
            await ari.bridges.remove_channel(bridge_id, self._id)
        except AriConflict:
            if self._where is _Where.BRIDGE and not wish.in_doubt:
                raise
            # It has left the bridge already: only the answer was lost.
        self._where = _Where.NEITHER


class _Wishing:
    """Replaces a channel's last request by a new one, after what is under way of it.

    Not a generator with `contextlib`: that would keep a suppressed error in memory until a garbage
    collection (CPython 3.13.0).
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
        # The failure of a request that has been overtaken matters to nobody.
        return isinstance(error, AriError) and not self._wish.wanted


class TargetChannel:
    """The channel of a transfer's target, or of a supervisor, from the call to the hang-up.

    Args:
        ari: Asterisk.
        channel_id: The id that it will get.
        dialled: The dial string.
        session_id: The call that it belongs to.

    Attributes:
        rang, answered, joined: It rings; it is in our application; it is in the bridge.
        route: The way to it, where that leads through a dialplan.
        calling: The request that makes it, while that is under way.
        adopted: A lost process has called it.
    """

    def __init__(self, ari: Client, channel_id: str, dialled: str, session_id: str) -> None:
        self.id = channel_id
        self.rang = self.answered = self.joined = False
        self.route = Route()
        self.calling: asyncio.Task[None] | None = None
        self.adopted = False
        self._ari = ari
        self._dialled = dialled
        self._session_id = session_id
        self._joining = Errand()

    async def call(
        self, caller: str, ring_seconds: float, endpoint: str, device: str = ""
    ) -> Result | None:
        """Call the target, where its device is free.

        Args:
            caller: The number that it sees.
            ring_seconds: How long it may ring.
            endpoint: The setting that the dial string was made of, for the log.
            device: Whose state says whether the target is free; empty: it is not asked for.

        Returns:
            None, or why it cannot be called.
        """
        if device and (why := await self._why_not_free(device)) is not None:
            return why
        if not self._joining.wanted:
            return None  # it has been given up meanwhile
        try:
            await self._ari.channels.originate(
                self.id,
                self._dialled,
                caller_id=as_caller_id(caller),
                ring_seconds=math.ceil(ring_seconds) + SPARE_RING_SECONDS,
                variables=told_to_callee(self._session_id),
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

    async def _why_not_free(self, device: str) -> Result | None:
        try:
            found = await self._ari.within(_STATE_SECONDS).device_states.get(device)
        except AriError as error:
            log.warning("target_state_unknown", channel=self.id, code=error.code)
            return None
        log.info("target_state", channel=self.id, state=found.state)
        return _NOT_FREE.get(found.state)

    async def join(self, bridge_id: str) -> Result | None:
        """Put the target into a bridge.

        Returns:
            None, or why it cannot be put there.
        """
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
        """Drop the request to put it into a bridge."""
        self._joining.drop()

    async def hang_up(self) -> None:
        """Hang up. Logs an `AriError` instead of raising it."""
        # A channel that is still being made cannot be hung up.
        if self.calling is not None:
            await asyncio.wait([self.calling])
        ari = self._ari.persistent()
        await quietly(lambda: ari.channels.hangup(self.id), attempts=2)

    def why_gone(self, cause: int | None, sip_code: int | None) -> str:
        """Return why the target has gone: `hung_up`, or the `Result` of an unanswered call."""
        if self.answered:
            return "hung_up"
        route = self.route
        cause, sip_code = route.why(cause, sip_code)
        return result_of(cause, sip_code, rang=self.rang, dial_status=route.dial_status).value


def session_variables(session_id: str) -> dict[str, str]:
    """Return the variables that name a call on its channel; whatever a dialplan dials for the
    channel inherits them."""
    return {"__AGENT_SESSION_ID": word(session_id)}


def told_to_callee(session_id: str) -> dict[str, str]:
    """Return the variables of a channel that we call. How that is forwarded is its dialplan's own
    affair."""
    return {**session_variables(session_id), "FORWARD_CONTEXT": _FORWARDS_NOWHERE}


async def quietly(request: Callable[[], Awaitable[object]], *, attempts: int = 1) -> bool:
    """Make a request that removes a channel or bridge; log an `AriError` instead of raising it.

    Returns:
        Whether it is gone, by this request or before. If not, a sweep (`cleanup.Sweeper`) finds it.
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
        **session_variables(session_id),
        # The agent's service has chosen this one.
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
    """Read the counters of a channel's RTP. What Asterisk cannot know is None, and not 0.

    Returns:
        None if the channel has no RTP or is gone, or Asterisk does not answer within 0.2 s.
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
