"""The fake Asterisk with calls that it places, music, and a point before and after all it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from ari_app.line.asterisk.ari.events import parse_event
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.line.asterisk.ari.resources import (
    ORIGINATE_WITH_ID,
    REMOVE_CHANNEL,
    START_MOH,
    STOP_MOH,
    SUBSCRIBE,
)
from lab.load.events import Channel, Json, event
from lab.load.world import Refused
from linekit.clock import FrameClock
from tests.unit.call.fake_ari import (
    APP,
    CONTINUE,
    CREATE_BRIDGE,
    EXTERNAL_MEDIA,
    HANGUP,
    NOW,
    FakeAsterisk,
)

_RING_SECONDS = 0.5
_MAKES = (CREATE_BRIDGE, EXTERNAL_MEDIA, ORIGINATE_WITH_ID)


class FullAsterisk(FakeAsterisk):
    """Whom it calls rings after half a second, and answers after another.

    Args:
        point: Told each moment by name: a request that has come, and that has been done; an event
            that is about to be told, and that has been told.

    Attributes:
        deaf: Nobody listens: events are lost.
        slow: What it is to make is there a while after it was asked for.
    """

    def __init__(self, clock: FrameClock, point: Callable[[str], None]) -> None:
        super().__init__(clock=clock)
        self._point = point
        self._ringing: set[str] = set()
        self.deaf = self.slow = False

    def _tell(self, events: list[Json]) -> None:
        for body in events:
            self._point(f"{body['type']} comes")
            if not self.deaf:
                super()._tell([body])
            self._point(f"{body['type']} has come")

    async def _serve(
        self, operation: Operation[Any], ids: tuple[str, ...], parameters: dict[str, Any]
    ) -> bytes:
        name = f"{operation.method} {operation.path}"
        await asyncio.sleep(0)
        self._point(f"{name} comes")
        if self.slow and operation in _MAKES:
            await asyncio.sleep(_RING_SECONDS / 10)
        answer = await super()._serve(operation, ids, parameters)
        self._point(f"{name} is done")
        return answer

    async def _do(
        self, operation: Operation[Any], ids: tuple[str, ...], parameters: dict[str, Any]
    ) -> object:
        match operation, ids:
            case (op, (channel_id,)) if op is ORIGINATE_WITH_ID:
                # Like a media channel, it is not in the application before it has been answered.
                channel = Channel(
                    channel_id, f"PJSIP/{channel_id}", "Down", NOW, APP, is_media=True
                )
                self.world.channels[channel_id] = channel
                self._begin(self._ring(channel_id))
                return channel.to_json()
            case (op, (channel_id,)) if op in (START_MOH, STOP_MOH):
                self.world.in_stasis(channel_id)
                return None
            case (op, (_bridge,)) if op is REMOVE_CHANNEL:
                self._tell(self.world._leave_bridge(self._there(parameters["channel"]), NOW))
                return None
            case (op, (_app,)) if op is SUBSCRIBE:
                return self.world.application()
            case (op, (channel_id,)) if op is HANGUP and channel_id in self._ringing:
                self.callee_hangs_up(channel_id, cause=16)
                return None
            case (op, (channel_id,)) if op is CONTINUE and "amd" in parameters.get("context", ""):
                channel = self.world.in_stasis(channel_id)
                channel.in_stasis = False
                self._tell([_event("StasisEnd", channel)])
                self._begin(self._listen_for_a_machine(channel))
                return None
            case _:
                return await super()._do(operation, ids, parameters)

    def callee_hangs_up(self, channel_id: str, *, cause: int = 17) -> None:
        """Whom it calls does not take the call, or has hung up."""
        channel = self.world.channels.get(channel_id)
        if channel is None:
            return
        if channel.in_stasis:
            self.hang_up(channel_id)
            return
        self._ringing.discard(channel_id)
        del self.world.channels[channel_id]
        self._tell([_event("ChannelDestroyed", channel, cause=cause, cause_txt="")])

    async def _ring(self, channel_id: str) -> None:
        self._ringing.add(channel_id)
        channel = self.world.channels[channel_id]
        for state in ("Ringing", "Up"):
            await asyncio.sleep(_RING_SECONDS)
            if channel_id not in self.world.channels:
                return
            channel.state = state
            self._tell([_event("ChannelStateChange", channel)])
        # It may have been hung up by whoever was told.
        if channel_id in self.world.channels:
            self._ringing.discard(channel_id)
            channel.in_stasis = True
            self._tell([_event("StasisStart", channel, args=[])])

    async def _listen_for_a_machine(self, channel: Channel) -> None:
        await asyncio.sleep(_RING_SECONDS)
        if channel.id in self.world.channels:
            channel.in_stasis, channel.args = True, ("amd_status=HUMAN",)
            self._tell([_event("StasisStart", channel, args=list(channel.args))])

    def _there(self, channel_id: str) -> Channel:
        channel = self.world.channels.get(channel_id)
        if channel is None:
            raise Refused(400, "Channel not found")
        return channel


def _event(kind: str, channel: Channel, **content: object) -> Json:
    body = event(kind, APP, NOW, channel=channel, **content)
    parse_event(orjson.dumps(body))  # must be what Asterisk could send
    return body
