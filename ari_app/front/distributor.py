"""Gives each channel that enters the dialplan's application to a worker, by ARI's `move`.

`move` to an application that nobody has answers 204, and the caller is stranded. So a worker is
asked first, and has to say afterwards that the channel has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final, Protocol

import structlog

from ari_app.control.workers.hub import Hub, Promise
from ari_app.control.workers.merged_metrics import FrontMetrics
from ari_app.control.workers.roster import Worker
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import (
    AriConflict,
    AriError,
    AriNotFound,
)
from ari_app.line.asterisk.ari.events import AriEvent, StasisStart
from ari_app.line.asterisk.ari.models import Channel
from ari_app.line.asterisk.ari.socket import EventSocket, SocketState
from ari_app.line.asterisk.channels import give_back_caller
from ari_app.line.asterisk.cleanup import INDESCRIBABLE, describe_each
from ari_app.line.asterisk.dialplan import moved_arguments, parse_arguments
from ari_app.line.interface import Outcome, Status
from ari_app.process.loop import cancelled

log = structlog.get_logger(__name__)

_PATIENCE_SECONDS: Final = 2.0
"""A caller in the front hears nothing yet; after that they go on in the dialplan."""
_SHORT_SECONDS: Final = 0.3
"""Of somebody whom another machine would rather take."""
_MOVE_SECONDS: Final = 1.0
_SWEEP_SECONDS: Final = 15.0
_CONFIRM_SECONDS: Final = 1.0
_LINK_SECONDS: Final = 3.0
_NO_WORKER: Final = Outcome(Status.FAILED, "no_worker")
_DRAINING: Final = Outcome(Status.REJECTED, "draining")


class OtherFronts(Protocol):
    """The fronts of other machines: `ari_app.front.machines.Fleet`."""

    async def may_act(self) -> bool:
        """Return whether this is the one that distributes, at this moment."""
        ...

    async def give(self, channel: str, args: Sequence[str]) -> bool | None:
        """Give a channel to another machine, if that has more room or has placed it.

        Returns:
            True when it has taken it; None when the caller has gone; False: it is ours to take.
        """
        ...


class Distributor:
    """The application that the dialplan names.

    Args:
        ari: Asterisk, as that application sees it.
        hub: The workers.
        metrics: Counts what becomes of arrivals.
        others: The fronts of other machines; None: there are none.

    Attributes:
        state: Of the event socket.
        draining: No calls are taken in any more.
    """

    def __init__(
        self, ari: Client, hub: Hub, metrics: FrontMetrics, others: OtherFronts | None = None
    ) -> None:
        self.state = SocketState.DISCONNECTED
        self.draining = False
        self._ari = ari
        self._hub = hub
        self._metrics = metrics
        self._others = others
        self._here: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ari(self) -> Client:
        """Asterisk, as the application sees it."""
        return self._ari

    async def run(self) -> None:
        """Distribute until cancelled, or until another process has the application.

        Raises:
            AriUnauthorized: Asterisk refuses our name or password, or lets us only read.
        """
        sweeping = asyncio.create_task(self._sweep_forever(), name="sweep")
        try:
            await EventSocket(self._ari, self.handle, self._state_changed).run()
        finally:
            sweeping.cancel()

    async def close(self) -> None:
        """Let those go where they are to go who are on their way."""
        if tasks := tuple(self._here.values()):
            await asyncio.wait(tasks, timeout=_PATIENCE_SECONDS + _MOVE_SECONDS)
        await cancelled(*self._tasks)

    def handle(self, event: AriEvent) -> None:
        """Take one of Asterisk's events."""
        if isinstance(event, StasisStart):
            self._arrived(event.channel, event.args)

    def _arrived(self, channel: Channel, args: tuple[str, ...]) -> None:
        if channel.id not in self._here:
            task = self._here[channel.id] = self._spawn(self._distribute(channel.id, args))
            task.add_done_callback(lambda _: self._here.pop(channel.id, None))

    async def _distribute(self, channel: str, args: tuple[str, ...]) -> None:
        if self._others is not None:
            if not await self._others.may_act():
                # Another machine is the front by now, and finds whoever waits in the application.
                return
            given = await self._others.give(channel, args)
            if given is not False:
                self._metrics.arrivals.labels("moved_elsewhere" if given else "gone").inc()
                return
        if await self._take_here(channel, args, _PATIENCE_SECONDS) is False:
            log.error("no_worker_for_caller", call=channel, draining=self.draining)
            self._metrics.arrivals.labels("not_taken").inc()
            await give_back_caller(self._ari, channel, _DRAINING if self.draining else _NO_WORKER)

    async def take_from_elsewhere(self, channel: str, args: tuple[str, ...]) -> bool | None:
        """Take a channel that another machine, which is the front, has given to this one.

        Returns:
            True when a worker has it; None when the caller has gone; False: there is no room.
        """
        if self.draining or channel in self._here:
            return False
        task = asyncio.current_task()
        assert task is not None
        self._here[channel] = task
        try:
            waiting = await self._ari.within(_MOVE_SECONDS).applications.get()
            if channel not in waiting.channel_ids:
                # It has taken too long to come to us, and is somebody else's by now.
                return None
            return await self._take_here(channel, args, _SHORT_SECONDS, only_with_room=True)
        except AriNotFound:
            return None
        finally:
            self._here.pop(channel, None)

    async def _take_here(
        self,
        channel: str,
        args: tuple[str, ...],
        patience: float,
        *,
        only_with_room: bool = False,
    ) -> bool | None:
        began = asyncio.get_running_loop().time()
        until = began + patience
        # Whom a worker has called comes back to it from the dialplan's answering machine detection.
        placed = self._hub.roster.of_channel(channel) is not None
        waits = bool(parse_arguments(args).wait_seconds)
        place = None if placed or waits else await self._hub.place()
        has_room = placed or waits or place is not None
        if only_with_room and not has_room:
            return False
        tried: set[Worker] = set()
        try:
            while True:
                worker = self._choose(channel, tried, placed=placed)
                if worker is None:
                    if not await self._other(until, tried):
                        return False
                    continue
                tried.add(worker)
                with self._hub.promised(worker, channel, place) as promise:
                    if not await self._hub.offer(worker, channel, anyhow=placed or self.draining):
                        continue
                    given = await self._give(promise, channel, args, has_room=has_room)
                    if given and not placed:
                        promise.keep()
                if given is None:
                    self._metrics.arrivals.labels("gone").inc()
                    return None
                if given:
                    # It is the worker's to give back now.
                    place = None
                    self._metrics.arrivals.labels("moved").inc()
                    self._metrics.move_seconds.observe(asyncio.get_running_loop().time() - began)
                    return True
        finally:
            if place is not None:
                place.give_back()

    def _choose(self, channel: str, tried: set[Worker], *, placed: bool) -> Worker | None:
        if placed:
            owner = self._hub.roster.of_channel(channel)
            return None if owner in tried else owner
        return self._hub.roster.roomiest(tried)

    async def _other(self, until: float, tried: set[Worker]) -> bool:
        """Wait for a worker that has not been tried; False: there is no time left."""
        # One that comes, or says that it takes calls again, may be tried again as well.
        if self.draining and not len(self._hub.roster):
            return False
        try:
            async with asyncio.timeout_at(until):
                await self._hub.changed()
        except TimeoutError:
            return False
        tried -= {worker for worker in tried if worker.takes}
        return True

    async def _give(
        self,
        promise: Promise,
        channel: str,
        args: tuple[str, ...],
        *,
        has_room: bool,
    ) -> bool | None:
        """Move a channel to a worker; False when it did not arrive, None when it has gone."""
        try:
            await self._ari.within(_MOVE_SECONDS).channels.move(
                channel, promise.worker.app, moved_arguments(args, has_room=has_room)
            )
        except (AriNotFound, AriConflict):
            # It has hung up, or went on in the dialplan.
            return None
        except AriError as error:
            log.warning("move_failed", call=channel, code=error.code, error=str(error))
        if await promise.is_there():
            return True
        try:
            await self._ari.within(_MOVE_SECONDS).channels.get(channel)
        except AriNotFound:
            return None
        except AriError:
            pass
        log.error("caller_did_not_arrive", call=channel, worker=promise.worker.number)
        self._metrics.arrivals.labels("not_confirmed").inc()
        return False

    # --- what was missed

    def _state_changed(self, state: SocketState) -> None:
        self.state = state
        self._metrics.ari_connected.set(state is SocketState.CONNECTED)
        if state is SocketState.CONNECTED:
            log.info("asterisk_connected", app=self._ari.app)
            self._spawn(self._catch_up())

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            if self.state is SocketState.CONNECTED:
                await self._catch_up()

    async def _catch_up(self) -> None:
        """Distribute those who came while nobody listened, or were moved and arrived nowhere."""
        # Only they know whom they have.
        await self._hub.all_there(_LINK_SECONDS)
        try:
            if not (first := await self._forgotten()):
                return
            # One whom a worker has just let go may be on the way out.
            await asyncio.sleep(_CONFIRM_SECONDS)
            second = await self._forgotten()
        except AriError as error:
            log.warning("catch_up_failed", code=error.code, error=str(error))
            return
        for channel_id in first.keys() & second.keys():
            channel = second[channel_id]
            log.warning("caller_forgotten", call=channel_id)
            args = channel.dialplan.app_data.split(",")[1:]
            self._arrived(channel, tuple(args))

    async def _forgotten(self) -> dict[str, Channel]:
        """Return who is in `Stasis()` by our name, and with nobody."""
        found = {
            channel.id: channel
            for channel in await self._channels()
            if channel.dialplan.app_name == "Stasis"
            and channel.dialplan.app_data.partition(",")[0] == self._ari.app
            and channel.id not in self._here
            and self._hub.roster.of_line(channel.id) is None
        }
        if not found:
            return found
        # A worker that has died has them still; who comes in its place looks after them.
        for theirs in await self._ari.applications.list():
            if theirs.name.startswith(f"{self._ari.app}."):
                for channel_id in theirs.channel_ids:
                    found.pop(channel_id, None)
        return found

    async def _channels(self) -> Sequence[Channel]:
        """Return all channels; where Asterisk gives no list, those that our application names.

        One that it cannot describe, whoever's it is, and there is no list for as long as that
        lives.
        """
        try:
            return await self._ari.channels.list()
        except INDESCRIBABLE as error:
            log.warning("list_of_channels_failed", code=error.code, error=str(error))
        named = (await self._ari.applications.get()).channel_ids
        found, _ = await describe_each(self._ari.channels.get, named)
        return found

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except AriError as error:
        log.warning("distribution_failed", code=error.code, error=str(error))
    except Exception:
        log.exception("distribution_failed")
