"""The legs of a call in Asterisk: the caller's (or callee's), and that of a transfer's target.

Each method makes requests in the order in which they must take effect, and raises what the ARI
client raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum, auto

from ari_app.ari import AriConflict, AriError, AriTimeout, AriUnavailable, Client, Errand
from ari_app.call.dialplan import caller_id as as_caller_id
from ari_app.call.policy import CallPolicy
from ari_app.call.release import give_back_caller, quietly
from ari_app.call.results import Result
from ari_app.call.signals import Outcome, Status

# We watch the ringing ourselves, for Asterisk did not say "no answer" before 20.18 and 22.8; its
# own limit is for the case that we are gone.
_SPARE_RING_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Placement:
    """A call that we place.

    Attributes:
        endpoint: Whom, as Asterisk dials it.
        caller_id: Whom the callee sees; empty leaves it to the endpoint.
        ring_seconds: How long it may ring.
        screened: AMD listens first.
    """

    endpoint: str
    caller_id: str = ""
    ring_seconds: float = 30.0
    screened: bool = False


@dataclass(frozen=True, slots=True)
class Party:
    """Who is on the line.

    Attributes:
        channel_id: The channel in Asterisk.
        placement: How we place the call; None: it came in.
    """

    channel_id: str
    caller_number: str = ""
    called_number: str = ""
    placement: Placement | None = None


class _Where(Enum):
    NEITHER = auto()
    JOINING = auto()  # on the way into the bridge
    BRIDGE = auto()
    MUSIC = auto()
    UNKNOWN = auto()  # an answer was lost


class CallerLeg:
    """The channel of whoever speaks with the agent.

    It hears music or is in the bridge. Whatever is wished last is brought about as soon as Asterisk
    can be reached, and a wish of which nothing has been begun until the next one costs nothing.

    Attributes:
        bridge_id: The call's bridge.
        placed: Asterisk has been told to call; the channel exists, or has existed.
    """

    def __init__(self, ari: Client, party: Party, bridge_id: str, policy: CallPolicy) -> None:
        self._ari = ari
        self._party = party
        self._id = party.channel_id
        self.bridge_id = bridge_id
        self._policy = policy
        self._where = _Where.NEITHER
        self.placed = party.placement is None
        # Music and bridge exclude each other, so each change waits for the one before it.
        self._changing = asyncio.Lock()
        self._wish = Errand()

    async def place(self) -> None:
        """Call the callee; the channel enters the application when it is answered."""
        placement = self._party.placement
        assert placement is not None, "only a call of ours is placed"
        try:
            await self._ari.channels.originate(
                self._id,
                placement.endpoint,
                caller_id=as_caller_id(placement.caller_id),
                ring_seconds=math.ceil(placement.ring_seconds) + _SPARE_RING_SECONDS,
            )
        except AriTimeout:
            self.placed = True  # as far as anybody knows
            raise
        except AriUnavailable as error:
            self.placed = error.may_be_done
            raise
        self.placed = True

    async def screen(self, errand: Errand) -> None:
        """Send the channel through the dialplan's AMD context, and go on hearing of it."""
        ari = self._ari.persistent(errand)
        await ari.applications.subscribe(f"channel:{self._id}")
        try:
            await ari.channels.continue_in_dialplan(
                self._id, context=self._policy.amd_context, extension="s", priority=1
            )
        except AriConflict:
            if not errand.in_doubt:
                raise
            # It is in the dialplan: only the answer was lost.

    async def join(self) -> bool:
        """Put the channel into the bridge; the music, if any, ends.

        Returns:
            Whether Asterisk may have nothing to report of it, for the channel was there before.
        """
        async with self._wishing() as wish:
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
                await ari.bridges.add_channel(self.bridge_id, self._id)
            except AriError:
                if self._where is _Where.JOINING:
                    self._where = _Where.UNKNOWN if wish.in_doubt else _Where.NEITHER
                raise
            self._where = _Where.BRIDGE
            return unsure or wish.in_doubt

    def joined(self) -> None:
        """Take note that the channel is in the bridge, whatever becomes of the answer."""
        if self._where is _Where.JOINING:
            self._where = _Where.BRIDGE
            self._wish.drop()

    async def music(self) -> None:
        """Play music; a channel in the bridge leaves it first."""
        async with self._wishing() as wish:
            if not wish.wanted or self._where is _Where.MUSIC:
                return
            ari = self._ari.persistent(wish)
            try:
                if self._where is not _Where.NEITHER:
                    await self._leave_bridge(ari, wish)
                await ari.channels.start_moh(self._id)
            except AriError:
                if wish.in_doubt:
                    self._where = _Where.UNKNOWN
                raise
            self._where = _Where.MUSIC

    async def _leave_bridge(self, ari: Client, wish: Errand) -> None:
        try:
            await ari.bridges.remove_channel(self.bridge_id, self._id)
        except AriConflict:
            if self._where is _Where.BRIDGE and not wish.in_doubt:
                raise
            # It has left it: only the answer was lost.
        self._where = _Where.NEITHER

    @contextlib.asynccontextmanager
    async def _wishing(self) -> AsyncIterator[Errand]:
        """Take the place of the last wish; what of it is under way is waited for."""
        self._wish.drop()
        wish = self._wish = Errand()
        async with self._changing:
            try:
                yield wish
            except AriError:
                # Of a wish that has been overtaken nobody needs to hear.
                if wish.wanted:
                    raise

    async def give_back(self, outcome: Outcome, *, session_id: str, conversation_id: str) -> None:
        """Let a caller go on in the dialplan; hang up on somebody whom we have called.

        One whom we have called and who is to be transferred goes on in the dialplan too.
        """
        placement, ari = self._party.placement, self._ari.persistent()
        if placement is not None and outcome.status is not Status.TRANSFER:
            if self.placed:
                no_answer = outcome.reason == Result.NO_ANSWER
                reason = "no_answer" if no_answer else "normal"
                await quietly(lambda: ari.channels.hangup(self._id, reason=reason), attempts=2)
            return
        async with self._wishing():
            if self._where in (_Where.MUSIC, _Where.UNKNOWN):
                await quietly(lambda: ari.channels.stop_moh(self._id))
        await give_back_caller(
            ari,
            self._id,
            outcome,
            session_id=session_id,
            conversation_id=conversation_id,
            context=None if placement is None else self._policy.transfer_context,
        )


class TargetLeg:
    """The channel of somebody to whom an attended transfer is to go; one after another.

    Attributes:
        channel_id: The present one; empty when there is none.
        rang: It rings, or has rung.
        answered: It has entered the application.
    """

    def __init__(self, ari: Client, prefix: str, bridge_id: str) -> None:
        self._ari = ari
        self._prefix = prefix
        self._bridge_id = bridge_id
        self._count = 0
        self.channel_id = ""
        self.rang = False
        self.answered = False

    def next(self) -> str:
        """The id of the channel to another target, which is the present one from now on."""
        self._count += 1
        self.channel_id = f"{self._prefix}.{self._count}"
        self.rang = self.answered = False
        return self.channel_id

    def forget(self) -> str:
        """There is no target any more; the id of the last one."""
        last, self.channel_id = self.channel_id, ""
        return last

    async def call(
        self, channel_id: str, endpoint: str, *, caller_id: str, ring_seconds: float
    ) -> None:
        """Call a target; its channel enters the application when it is answered."""
        await self._ari.channels.originate(
            channel_id,
            endpoint,
            caller_id=as_caller_id(caller_id),
            ring_seconds=math.ceil(ring_seconds) + _SPARE_RING_SECONDS,
        )

    async def join(self, errand: Errand) -> None:
        """Put the target into the bridge."""
        ari = self._ari.persistent(errand)
        await ari.bridges.add_channel(self._bridge_id, self.channel_id)

    async def hang_up(self, channel_id: str) -> None:
        """Hang a target up."""
        ari = self._ari.persistent()
        await quietly(lambda: ari.channels.hangup(channel_id), attempts=2)
