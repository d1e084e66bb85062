"""Wires the front together: what is made, in which order it starts, and in which it stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import hdrs

from ari_app.checks.asterisk import unauthorized
from ari_app.clients import ari_client
from ari_app.control.http.agent_webhook import PATH as AGENT_WEBHOOK_PATH
from ari_app.control.http.front import build_front_app
from ari_app.control.http.keys import Keys
from ari_app.control.http.rates import RequestRates
from ari_app.control.http.relay import Workers
from ari_app.control.http.server import HttpServer
from ari_app.control.workers.folder import Folder
from ari_app.control.workers.hub import Hub
from ari_app.control.workers.merged_metrics import FrontMetrics
from ari_app.control.workers.roster import Roster
from ari_app.errors import ConfigError
from ari_app.front.distributor import Distributor
from ari_app.line.asterisk.ari.errors import AriUnauthorized
from ari_app.line.asterisk.ari.socket import SocketState
from ari_app.line.interface import OwnAudio
from ari_app.line.twilio.leg import AFTER_PATH, MEDIA_PATH, STATUS_PATH, VOICE_PATH
from ari_app.process.loop import cancelled
from ari_app.process.opening import Opened
from ari_app.records.audit import AuditFile
from ari_app.settings import Settings

if TYPE_CHECKING:
    from ari_app.front.machines import Fleet

log = structlog.get_logger(__name__)

_LINK_SECONDS: Final = 1.5
"""Workers look for a new front twenty times a second; one that is missing is waited for no
longer."""


class Front(Opened):
    """The front of several workers.

    `async with Front(settings, folder, sockets) as front: await front.run()` serves until `stop`.

    Args:
        settings: What it is told from outside.
        folder: Where its workers find it.
        sockets: Where HTTP comes in; they listen already, and outlive this process.
        on_replaced: Called when another process has taken the application.
        again: As with a worker; see `VoiceBridge`.

    Attributes:
        hub: The workers.
        metrics: What is counted here.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Folder,
        sockets: list[socket.socket],
        *,
        on_replaced: Callable[[], None] = lambda: None,
        again: bool = False,
    ) -> None:
        super().__init__()
        self.settings = settings
        self._again = again
        self.metrics = FrontMetrics()
        self.metrics.calls_limit.set(settings.max_concurrent_calls)
        self.hub = Hub(
            Roster(settings.workers),
            max_calls=settings.max_concurrent_calls,
            per_second=settings.outbound_calls_per_second,
            max_waiting=settings.outbound_queue_size,
        )
        self._folder = folder
        self._sockets = sockets
        self._on_replaced = on_replaced
        self._distributor: Distributor | None = None
        self._fleet: Fleet | None = None
        self._http: HttpServer | None = None
        self._audit: AuditFile | None = None
        self._draining = False
        self._stopping = asyncio.Event()

    async def _start(self) -> None:
        """Make what `run` needs, and find the workers.

        Raises:
            ConfigError: A setting cannot be used.
        """
        settings = self.settings
        relay = Workers(self._folder)
        self._exit.push_async_callback(relay.close)
        self._open_audit()
        if settings.cluster_url is not None:
            # With the client of Valkey, which one machine alone does without.
            from ari_app.front.machines import Fleet

            self._fleet = await self._exit.enter_async_context(
                Fleet(settings, self, self.hub, relay, self._audit)
            )
        secret = settings.api_key
        keys = Keys.of(
            None if secret is None else secret.get_secret_value(), settings.api_keys_file
        )
        rates = RequestRates(settings.api_requests_per_second)
        app = build_front_app(
            self,
            relay,
            keys=keys,
            number_pattern=settings.number_pattern,
            rates=rates,
            routes=_routes(settings),
            features={
                "log": bool(settings.database_url),
                "recordings": settings.recordings_dir is not None,
            },
            sign_in_seconds=settings.page_sign_in_hours * 3600,
            elsewhere=None if self._fleet is None else self._fleet.elsewhere,
            audit_file=self._audit,
            hidden=settings.hidden,
            price=settings.agent_price_per_minute,
        )
        loop = asyncio.get_running_loop()
        self._http = HttpServer(
            app,
            limits=settings.api_limits(),
            take=lambda address: rates.take(address, loop.time(), changes=False),
            on_refused=self.metrics.http_was_refused,
        )
        self._exit.push_async_callback(self._http.close)
        # Before HTTP has ended, which may take seconds: until then the front that comes after this
        # one has no worker, and its callers wait.
        self._exit.push_async_callback(self.hub.close)
        if settings.has_asterisk:
            ari = await self._exit.enter_async_context(ari_client(settings))
            self._distributor = Distributor(ari, self.hub, self.metrics, self._fleet)
            self._exit.push_async_callback(self._distributor.close)
        if not keys:
            log.info("api_without_key", note="only this machine can reach it", at=settings.api_bind)
        # Only now: should this one not start, workers still find the one that serves on.
        await self.hub.start(self._folder.front)

    def _open_audit(self) -> None:
        if self.settings.audit_file is not None:
            self._audit = AuditFile(self.settings.audit_file)
            self._audit.open(again=self._again)
            self._exit.push_async_callback(asyncio.to_thread, self._audit.close)
            self.metrics.watch_audit(self._audit)

    async def answer(self) -> tuple[str, int]:
        """Answer over HTTP, once the workers have been found; the address."""
        # They look for another front when the one before has gone.
        await self.hub.all_there(_LINK_SECONDS)
        assert self._http is not None
        return await self._http.serve(self._sockets)

    async def run(self) -> None:
        """Distribute until `stop`.

        Raises:
            ConfigError: Asterisk refuses our name or password, or lets us only read.
        """
        stop = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            if self._distributor is not None:
                await self._distribute(self._distributor, stop)
            await stop
        finally:
            stop.cancel()

    async def _distribute(self, distributor: Distributor, stop: asyncio.Task[bool]) -> None:
        fleet = self._fleet
        run = distributor.run() if fleet is None else fleet.distribute(distributor)
        running = asyncio.create_task(run, name="distributor")
        try:
            await asyncio.wait([running, stop], return_when=asyncio.FIRST_COMPLETED)
            if fleet is not None and not running.done():
                # Until the next front has the application, its callers have nobody else.
                handed_over = asyncio.create_task(fleet.handed_over())
                await asyncio.wait([running, handed_over], return_when=asyncio.FIRST_COMPLETED)
                handed_over.cancel()
            if not running.done():
                return
            try:
                running.result()
            except AriUnauthorized as error:
                raise ConfigError(unauthorized(self.settings, error)) from None
            if distributor.state is SocketState.REPLACED:
                # What is asked over HTTP is answered until the last call here has ended.
                self.drain()
                self._on_replaced()
        finally:
            await cancelled(running)

    def drain(self) -> None:
        """Take no more calls; go on to show those that run."""
        self._draining = True
        self.hub.roster.ends()
        if self._fleet is not None:
            self._fleet.drain()
        if self._distributor is not None:
            self._distributor.draining = True

    def stop(self) -> None:
        """End."""
        self.drain()
        self._stopping.set()

    def orphaned(self) -> None:
        """Leave the ports to whoever is started next, and end with the last worker."""
        self.drain()
        if self._http is not None:
            self._http.stop_listening()
        self._exit.push_async_callback(cancelled, asyncio.create_task(self._stop_with_workers()))

    async def _stop_with_workers(self) -> None:
        while len(self.hub.roster):
            await self.hub.changed()
        self._stopping.set()

    # --- ari_app.control.http.front.FrontView

    def problems(self) -> list[str]:
        """Say why no call can come in or go out, beside what the workers say."""
        problems = []
        distributor = self._distributor
        if self._fleet is not None:
            problems += self._fleet.problems()
        elif distributor is not None and distributor.state is not SocketState.CONNECTED:
            problems.append(f"Asterisk's event socket is {distributor.state}")
        if self._draining:
            problems.append("draining: new calls are refused")
        return problems

    def warnings(self) -> list[str]:
        """Say what else is wrong here."""
        warnings = [] if self._audit is None else self._audit.warnings()
        return warnings if self._fleet is None else [*warnings, *self._fleet.warnings()]


def _routes(settings: Settings) -> list[tuple[str, str]]:
    """Return method and path of what ways in serve at their workers."""
    routes: list[tuple[str, str]] = []
    if "twilio" in settings.ways_in:
        routes += [(hdrs.METH_POST, path) for path in (VOICE_PATH, AFTER_PATH, STATUS_PATH)]
        routes.append((hdrs.METH_GET, MEDIA_PATH))
    if "custom" in settings.ways_in:
        routes.append((hdrs.METH_GET, OwnAudio.PATH))
    if settings.elevenlabs_webhook_secret is not None and settings.database_url:
        routes.append((hdrs.METH_POST, AGENT_WEBHOOK_PATH))
    return routes
