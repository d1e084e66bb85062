"""The media channel of a line in Asterisk: it is made, put into the line's bridge, and replaced by
another one where its connection breaks. What goes through it is a matter of its `Media`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriError
from ari_app.line.asterisk.ari.rest import Errand
from ari_app.line.asterisk.channels import quietly
from ari_app.line.asterisk.media import Media

log = structlog.get_logger(__name__)

_CAUSE_BROKEN: Final = 38
"""Network out of order (ITU-T Q.850): the end of a channel whose connection broke."""
_CAUSE_SECONDS: Final = 0.3
_RENEW_SECONDS: Final = 1.0
_RENEWED_SECONDS: Final = 1.0
"""A media channel that breaks so soon after the last one is not replaced again."""


@dataclass(frozen=True, slots=True)
class MediaOwner:
    """What a media channel knows of its line.

    Attributes:
        call_id: Returns the id of the caller's channel just now, for the log.
        spawn: Begins a task, which ends with the line.
        set_up: Begins a request of the line's set-up, with whose failure the line fails.
        named: Told of the id before, and of the one that the channel is known by from now on.
        opened: Told when sound can flow, once.
        lost: Told why there is no sound any more.
    """

    call_id: Callable[[], str]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    set_up: Callable[[Coroutine[Any, Any, object]], asyncio.Task[None]]
    named: Callable[[str, str], None]
    opened: Callable[[], None]
    lost: Callable[[str], None]


class MediaChannel:
    """The media channel of one line. It has a name before it is made, and may have others later.

    Asterisk reports in any order: the channel joins the bridge when it has entered the application
    and the bridge is there.

    Args:
        ari: Asterisk's client.
        set_up: The errand of the line's set-up.
        owner: The line.

    Attributes:
        id: Of the channel, whether or not it exists.
        opened: It has been in the bridge.
        leaving: The line does without it from here on, so that it goes is no loss.
        making: The requests for it that are under way: it cannot be removed before.
    """

    def __init__(self, ari: Client, set_up: Errand, owner: MediaOwner) -> None:
        self.id = self._first_id = self._bridge_id = ""
        self.opened = self.leaving = False
        self.making: set[asyncio.Task[None]] = set()
        self._ari = ari
        self._set_up = set_up
        self._owner: MediaOwner | None = owner
        self._transport: Media | None = None
        self._entered = self._bridge_made = False
        self._renewing: asyncio.Task[None] | None = None
        self._renewals = 0
        self._renewed_at = float("-inf")
        self._flows: asyncio.Future[bool] | None = None

    # --- what the line asks for

    def name(self, channel_id: str, bridge_id: str) -> None:
        """Choose the ids of the channel, and of the bridge that it joins."""
        self.id = self._first_id = channel_id
        self._bridge_id = bridge_id

    def open(self, transport: Media) -> None:
        """Have Asterisk make the channel.

        Args:
            transport: What carries its sound; it calls `lost`.
        """
        # The name is known to us before Asterisk hears of it: the connection and StasisStart may
        # come before the answer to the request.
        self._line.named("", self.id)
        self._transport = transport
        self._makes(self._line.set_up(self._make(self._ari.persistent(self._set_up), transport)))

    def bridge_is_made(self) -> None:
        """Join the bridge, which is there now."""
        self._bridge_made = True
        self._join()

    @property
    def expected(self) -> bool:
        """Whether it carries sound; if it does not exist, it was lost."""
        return self.opened and not self.leaving and self._renewing is None

    @property
    def was_wanted(self) -> bool:
        """Whether it was ever asked for."""
        return self._transport is not None

    @property
    def frames_not_read(self) -> int:
        """How many frames were left out because Asterisk did not take them."""
        return 0 if self._transport is None else self._transport.frames_not_read

    def take_back(self) -> float:
        """Throw away what was taken ahead of time and is not yet heard; return how much, in ms."""
        return 0.0 if self._transport is None else self._transport.take_back()

    def keep_company(self, on: bool) -> None:
        """Play a soft tone now and then while there is nothing else to be heard, or no longer."""
        if self._transport is not None:
            self._transport.keeps_company = on

    async def heard_out(self) -> None:
        """Wait, for a moment at most, until the caller has heard what was said last."""
        if self._transport is not None and self.opened:
            await self._transport.heard_out()

    def hang_up(self) -> None:
        """End the sound now. May be called twice."""
        if self._transport is not None:
            self._transport.hang_up()

    async def remove(self) -> None:
        """Have Asterisk hang the channel up."""
        await self._remove(self.id)

    def forget(self) -> None:
        """Forget the line, which is closed: it is freed with the last who shows it."""
        self._owner = None

    # --- what Asterisk reports

    def entered(self) -> None:
        """Handle its entering the application, for the first time or again."""
        if not self._entered:
            self._entered = True
            self._join()

    def in_bridge(self) -> None:
        """Handle its being in the bridge."""
        if self._transport is not None:
            self._transport.flow()
        self._sound_flows(True)
        if not self.opened:
            self.opened = True
            self._line.opened()

    def left(self) -> None:
        """Handle its leaving the application."""
        if self._transport is not None and self._transport.renewable:
            # The cause of its end follows, and says whether that was meant.
            self._line.spawn(self._has_left(self.id))
        else:
            self.lost("media_channel_gone", False)

    def destroyed(self, cause: int | None) -> None:
        """Handle its being no more."""
        self.lost("media_channel_gone", cause == _CAUSE_BROKEN)

    def gone(self) -> None:
        """Handle its being found to be no more."""
        self.lost("media_channel_gone", False)

    def lost(self, reason: str, broken: bool) -> None:
        """Handle the end of its sound: replace it where it broke, or tell the line.

        Args:
            reason: A stable slug.
            broken: Asterisk has not ended it on purpose.
        """
        transport = self._transport
        if self.leaving or transport is None:
            return
        if self._renewing is not None:
            self._sound_flows(False)
            return
        since = asyncio.get_running_loop().time() - self._renewed_at
        if broken and transport.renewable and self.opened and since > _RENEWED_SECONDS:
            self._renewing = self._line.spawn(self._renew(transport, reason))
        else:
            self._line.lost(reason)

    # --- inside

    @property
    def _line(self) -> MediaOwner:
        assert self._owner is not None, "nothing is told of a line that is closed"
        return self._owner

    def _makes(self, task: asyncio.Task[None]) -> None:
        self.making.add(task)
        task.add_done_callback(self.making.discard)

    async def _make(self, ari: Client, transport: Media) -> None:
        """Have Asterisk make the channel; with chan_websocket, also connect to it."""
        asked = transport.request()
        channel = await ari.channels.external_media(self.id, **asked)
        if not await transport.made(channel):
            # The answer that named its connection was lost: make another one.
            self._line.spawn(self._remove(self.id))
            self._rename()
            channel = await ari.channels.external_media(self.id, **asked)
            await transport.made(channel)

    def _rename(self) -> None:
        """Choose a new id for the next channel."""
        self._renewals += 1
        before, self.id = self.id, f"{self._first_id}.{self._renewals}"
        self._line.named(before, self.id)
        self._entered = False

    def _join(self) -> None:
        if self._renewing is not None:
            self._line.spawn(self._join_again())
        elif self._bridge_made and self._entered:
            ari = self._ari.persistent(self._set_up)
            self._line.set_up(ari.bridges.add_channel(self._bridge_id, self.id))

    async def _has_left(self, channel_id: str) -> None:
        await asyncio.sleep(_CAUSE_SECONDS)
        if channel_id == self.id:
            self.lost("media_channel_gone", False)

    async def _renew(self, transport: Media, reason: str) -> None:
        """Replace a channel that has broken by a new one in the same bridge."""
        loop = asyncio.get_running_loop()
        began, lost = loop.time(), self.id
        transport.renew()
        self._rename()
        self._flows = loop.create_future()
        self._makes(self._line.spawn(self._make_again(transport)))
        await asyncio.wait([self._flows], timeout=_RENEW_SECONDS)
        self._renewing, self._renewed_at = None, loop.time()
        if self._flows.done() and self._flows.result():
            took_ms = round(1000 * (self._renewed_at - began))
            log.warning("media_renewed", call=self._line.call_id(), reason=reason, ms=took_ms)
        else:
            log.error("media_not_renewed", call=self._line.call_id(), reason=reason)
            self._line.lost(reason)
        await self._remove(lost)

    async def _make_again(self, transport: Media) -> None:
        # Not persistent: a caller does not wait in silence for Asterisk's return.
        try:
            await self._make(self._ari, transport)
        except AriError as error:
            log.warning(
                "media_not_made", call=self._line.call_id(), code=error.code, error=str(error)
            )
            self._sound_flows(False)

    async def _join_again(self) -> None:
        try:
            await self._ari.bridges.add_channel(self._bridge_id, self.id)
        except AriError as error:
            log.warning(
                "media_not_joined", call=self._line.call_id(), code=error.code, error=str(error)
            )
            self._sound_flows(False)

    def _sound_flows(self, flows: bool) -> None:
        if self._flows is not None and not self._flows.done():
            self._flows.set_result(flows)

    async def _remove(self, channel_id: str) -> None:
        ari = self._ari.persistent()
        await quietly(lambda: ari.channels.hangup(channel_id), attempts=2)
