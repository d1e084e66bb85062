"""Gives each channel that enters the dialplan's application to a worker, by ARI's `move`.

`move` to an application that nobody has answers 204, and the caller is stranded. So a worker is
asked first, and has to say afterwards that the channel has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from ari_app.control.workers.hub import Hub, Promise
from ari_app.control.workers.merged import FrontMetrics
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
from ari_app.line.asterisk.dialplan import moved_arguments, parse_arguments
from ari_app.line.asterisk.names import worker_app
from ari_app.line.interface import Outcome, Status

log = structlog.get_logger(__name__)

_PATIENCE_SECONDS: Final = 2.0
"""A caller in the front hears nothing yet; after that they go on in the dialplan."""
_MOVE_SECONDS: Final = 1.0
_SWEEP_SECONDS: Final = 15.0
_CONFIRM_SECONDS: Final = 1.0
_LINK_SECONDS: Final = 3.0
_NO_WORKER: Final = Outcome(Status.FAILED, "no_worker")
_DRAINING: Final = Outcome(Status.REJECTED, "draining")


class Distributor:
    """The application that the dialplan names.

    Args:
        ari: Asterisk, as that application sees it.
        hub: The workers.
        metrics: Counts what becomes of arrivals.

    Attributes:
        state: Of the event socket.
        draining: No calls are taken in any more.
    """

    def __init__(self, ari: Client, hub: Hub, metrics: FrontMetrics) -> None:
        self.state = SocketState.DISCONNECTED
        self.draining = False
        self._ari = ari
        self._hub = hub
        self._metrics = metrics
        self._here: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Distribute until cancelled, or until another process has the application.

        Raises:
            AriUnauthorized: Asterisk refuses our name or password.
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
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def handle(self, event: AriEvent) -> None:
        """Take one of Asterisk's events."""
        if isinstance(event, StasisStart):
            self._arrived(event.channel, event.args)

    def _arrived(self, channel: Channel, args: tuple[str, ...]) -> None:
        if channel.id not in self._here:
            task = self._here[channel.id] = self._spawn(self._distribute(channel.id, args))
            task.add_done_callback(lambda _: self._here.pop(channel.id, None))

    async def _distribute(self, channel: str, args: tuple[str, ...]) -> None:
        began = asyncio.get_running_loop().time()
        until = began + _PATIENCE_SECONDS
        # Whom a worker has called comes back to it from the dialplan's answering machine detection.
        placed = self._hub.roster.of_channel(channel) is not None
        waits = bool(parse_arguments(args).wait_seconds)
        place = None if placed or waits else await self._hub.place()
        has_room = placed or waits or place is not None
        tried: set[Worker] = set()
        try:
            while True:
                worker = self._choose(channel, tried, placed=placed)
                if worker is None:
                    if not await self._other(until, tried):
                        break
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
                    return
                if given:
                    # It is the worker's to give back now.
                    place = None
                    self._metrics.arrivals.labels("moved").inc()
                    self._metrics.move_seconds.observe(asyncio.get_running_loop().time() - began)
                    return
        finally:
            if place is not None:
                place.give_back()
        log.error("no_worker_for_caller", call=channel, draining=self.draining)
        self._metrics.arrivals.labels("not_taken").inc()
        await give_back_caller(self._ari, channel, _DRAINING if self.draining else _NO_WORKER)

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
        channels = await self._ari.channels.list()
        found = {
            channel.id: channel
            for channel in channels
            if channel.dialplan.app_name == "Stasis"
            and channel.dialplan.app_data.partition(",")[0] == self._ari.app
            and channel.id not in self._here
            and self._hub.roster.of_line(channel.id) is None
        }
        if not found:
            return found
        # A worker that has died has them still; who comes in its place looks after them.
        for number in range(1, self._hub.roster.expected + 1):
            try:
                theirs = await self._ari.applications.get(worker_app(self._ari.app, number))
            except AriNotFound:
                continue
            for channel_id in theirs.channel_ids:
                found.pop(channel_id, None)
        return found

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_told(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _told(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except AriError as error:
        log.warning("distribution_failed", code=error.code, error=str(error))
    except Exception:
        log.exception("distribution_failed")
