"""The legs of a call in Asterisk: the caller's (or callee's), and that of a transfer's target.

Each method makes requests in the order in which they must take effect, and raises what the ARI
client raises.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from ari_app.ari import Client
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


class CallerLeg:
    """The channel of whoever speaks with the agent.

    Attributes:
        bridge_id: The call's bridge.
        hears_music: Music is playing to it.
        in_bridge: It has been put into the bridge.
        placed: Asterisk has been told to call; the channel exists, or has existed.
    """

    def __init__(self, ari: Client, party: Party, bridge_id: str, policy: CallPolicy) -> None:
        self._ari = ari
        self._party = party
        self._id = party.channel_id
        self.bridge_id = bridge_id
        self._policy = policy
        self.hears_music = False
        self.in_bridge = False
        self.placed = party.placement is None
        # Music and bridge exclude each other, so each change waits for the one before it.
        self._changing = asyncio.Lock()

    async def place(self) -> None:
        """Call the callee; the channel enters the application when it is answered."""
        placement = self._party.placement
        assert placement is not None, "only a call of ours is placed"
        await self._ari.channels.originate(
            self._id,
            placement.endpoint,
            caller_id=as_caller_id(placement.caller_id),
            ring_seconds=math.ceil(placement.ring_seconds) + _SPARE_RING_SECONDS,
        )
        self.placed = True

    async def screen(self) -> None:
        """Send the channel through the dialplan's AMD context, and go on hearing of it."""
        await self._ari.applications.subscribe(f"channel:{self._id}")
        await self._ari.channels.continue_in_dialplan(
            self._id, context=self._policy.amd_context, extension="s", priority=1
        )

    async def join(self, *, after_music: bool) -> None:
        """Put the channel into the bridge."""
        async with self._changing:
            if after_music:
                await self._stop_music()
            await self._ari.bridges.add_channel(self.bridge_id, self._id)
            self.in_bridge = True

    async def music(self) -> None:
        """Play music; a channel in the bridge leaves it first."""
        async with self._changing:
            if self.in_bridge:
                await self._ari.bridges.remove_channel(self.bridge_id, self._id)
                self.in_bridge = False
            await self._ari.channels.start_moh(self._id)
            self.hears_music = True

    async def _stop_music(self) -> None:
        if self.hears_music:
            self.hears_music = False
            await self._ari.channels.stop_moh(self._id)

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
        async with self._changing:
            if self.hears_music:
                await quietly(self._stop_music)
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

    async def call(self, endpoint: str, *, caller_id: str, ring_seconds: float) -> None:
        """Call the target; its channel enters the application when it is answered."""
        self._count += 1
        self.channel_id = f"{self._prefix}.{self._count}"
        self.rang = self.answered = False
        await self._ari.channels.originate(
            self.channel_id,
            endpoint,
            caller_id=as_caller_id(caller_id),
            ring_seconds=math.ceil(ring_seconds) + _SPARE_RING_SECONDS,
        )

    async def join(self) -> None:
        """Put the target into the bridge."""
        await self._ari.bridges.add_channel(self._bridge_id, self.channel_id)

    async def drop(self) -> None:
        """Hang the target up, if there is one."""
        channel_id, self.channel_id = self.channel_id, ""
        if channel_id:
            ari = self._ari.persistent()
            await quietly(lambda: ari.channels.hangup(channel_id), attempts=2)
