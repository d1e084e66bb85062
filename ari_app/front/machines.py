"""This machine's front among those of other machines: what takes part in the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from yarl import URL

from ari_app.checks.host import cannot_listen
from ari_app.clients import ari_client
from ari_app.control.cluster.lease import TTL
from ari_app.control.cluster.member import Hooks, Member
from ari_app.control.cluster.store import Deletion, Store
from ari_app.control.cluster.view import Machine
from ari_app.control.http.audit import AuditLog
from ari_app.control.http.front import FrontView, build_machine_app
from ari_app.control.http.machines import HAS_PATH, Elsewhere, Machines, call_keys
from ari_app.control.http.relay import Relay, WorkerAway
from ari_app.control.http.server import HttpServer
from ari_app.control.workers.hub import Hub
from ari_app.control.workers.roster import Worker
from ari_app.errors import ConfigError
from ari_app.front.distributor import Distributor
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriError
from ari_app.line.asterisk.ari.socket import SocketState
from ari_app.line.asterisk.cleanup import GIVE_BACK_SECONDS, Mender
from ari_app.line.asterisk.names import machine_name, media_channel_id, worker_app
from ari_app.process.addresses import split_host_port
from ari_app.process.loop import Soon, cancelled
from ari_app.process.opening import Opened
from ari_app.settings import MOST_WORKERS, Settings

log = structlog.get_logger(__name__)

_ARRIVALS_PATH: Final = "/machine/arrivals"
_LIVE_PATH: Final = "/health/live"
_LOOK_SECONDS: Final = 1.0
_ASK_SECONDS: Final = 0.5
_GIVE_SECONDS: Final = 1.5
"""Longer than a machine takes to find out that none of its workers answers."""
_MISSED_LOOKS: Final = 2
_HANDING_OVER_SECONDS: Final = 3.0
"""More than the next front takes to want the lease (`TTL`), and to connect."""
_SURELY_GONE_SECONDS: Final = 8.0
"""After so long without a word in the store and over HTTP a machine's sound ends, too: one that
has lost its power does not close its connections."""
_FORGET_SECONDS: Final = 120.0
_TAKEN, _GONE, _FULL = 200, 410, 409


@dataclass(slots=True)
class _Gone:
    """A machine that is no longer there.

    Attributes:
        since: When that was found.
        silent_since: When it first did not answer over HTTP either; None: it does.
        missed: How often in a row it did not answer.
        given_back: Its calls were given back, so often since it was silent.
    """

    machine: Machine
    since: float
    silent_since: float | None = None
    missed: int = 0
    given_back: int = 0

    @property
    def is_done(self) -> bool:
        """Whether its calls were given back for good."""
        return self.given_back > 1


class Fleet(Opened):
    """The machines, as this one sees them: `async with Fleet(...) as fleet`.

    Args:
        settings: What it is told from outside.
        front: What other machines are shown.
        hub: Our workers.
        relay: Asks them.
        audit_file: Where changes are written down that reach no worker; None: in the log alone.

    Attributes:
        member: Our part among the others.
        elsewhere: Where requests go that are not for us.
    """

    def __init__(
        self,
        settings: Settings,
        front: FrontView,
        hub: Hub,
        relay: Relay[Worker],
        audit_file: AuditLog | None = None,
    ) -> None:
        super().__init__()
        assert settings.cluster_url is not None and settings.cluster_secret is not None
        self._settings = settings
        self._front = front
        self._hub = hub
        self._relay = relay
        self._audit_file = audit_file
        self._secret = settings.cluster_secret.get_secret_value()
        self._run = uuid.uuid4().hex[:8]
        self._url = ""
        self._asterisk = ""
        self._missed_looks = 0
        self._draining_since: float | None = None
        self._is_front = asyncio.Event()
        self._is_not_front = asyncio.Event()
        self._is_not_front.set()
        self._does_not_distribute = asyncio.Event()
        self._does_not_distribute.set()
        self._distributor: Distributor | None = None
        self._gone: dict[str, _Gone] = {}
        self._calls_told = Soon(self._tell_calls)
        self._store = Store(settings.cluster_url.get_secret_value(), settings.ari_app)
        self._machines = Machines(self._secret)
        hooks = Hooks(self._tell, self._front_changed, self._machine_gone, self._forget)
        self.member = Member(self._store, hooks, run_id=self._run, limit=settings.cluster_max_calls)
        self.elsewhere = Elsewhere(self.member, self._machines)

    async def _start(self) -> None:
        await self._exit.enter_async_context(self._store)
        self._exit.push_async_callback(self._machines.close)
        await self._listen()
        self._hub.common = self.member.take_place
        # There are thousands to go through.
        self._hub.on_calls = self._calls_told.ask
        self._hub.on_deleted = self.member.deleted
        await self._exit.enter_async_context(self.member)

    async def _listen(self) -> None:
        """Let other machines ask, and find out by which address."""
        host, port = split_host_port(self._settings.cluster_bind)
        app = build_machine_app(
            self._front,
            self._relay,
            secret=self._secret,
            number_pattern=self._settings.number_pattern,
            elsewhere=self.elsewhere,
            audit_file=self._audit_file,
            hidden=self._settings.hidden,
            routes=[web.post(_ARRIVALS_PATH, self._arrival), web.get(HAS_PATH, self._has)],
        )
        server = HttpServer(
            app,
            limits=self._settings.cluster_limits(),
            # What machines ask has been let through where a client has asked for it.
            take=lambda address: 0.0,
            on_refused=self._front.metrics.http_was_refused,
        )
        self._exit.push_async_callback(server.close)
        try:
            # A front that takes another's place begins before that one ends.
            _, port = await server.start(host, port, shared=True)
        except OSError as error:
            raise cannot_listen("CLUSTER_BIND", self._settings.cluster_bind, error) from None
        if host in ("0.0.0.0", "::"):
            host = await self._own_address()
        self._url = str(URL.build(scheme="http", host=host, port=port))

    async def _own_address(self) -> str:
        """Return the address from which this machine reaches the store, so others reach it."""
        assert self._settings.cluster_url is not None
        store = URL(self._settings.cluster_url.get_secret_value())
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(store.host, store.port or 6379, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
        except OSError as error:
            raise ConfigError(
                f"CLUSTER_URL names {store.host}, which cannot be reached: {error.strerror}. "
                "CLUSTER_BIND may name this machine's address instead of all of them."
            ) from None

    # --- what is told of this machine

    def _tell(self) -> Machine:
        taken = self._hub.admission.taken
        draining = self._draining_since is not None
        return Machine(
            machine_name(),
            self._run,
            self._url,
            self._asterisk,
            room=max(0, self._hub.max_calls - taken),
            calls=taken,
            ready=self._hub.roster.takes and not draining,
        )

    def drain(self) -> None:
        """Be the front no more, and take no calls from others."""
        if self._draining_since is None:
            self._draining_since = asyncio.get_running_loop().time()
            self.member.draining = True

    def problems(self) -> list[str]:
        """Say why no call can come in here."""
        if self._settings.has_asterisk and not self._asterisk:
            return ["Asterisk does not answer"]
        return []

    def warnings(self) -> list[str]:
        """Say what else is wrong here."""
        other = self.member.namesake
        if not other:
            return []
        return [
            f"{other} has this machine's name, {self.member.name}: requests about calls do not find"
            " them. Give each machine a host name of its own"
        ]

    def _tell_calls(self) -> None:
        self.member.has(call_keys(self._hub.roster.sessions()))

    # --- the front of our Asterisk

    async def distribute(self, distributor: Distributor) -> None:
        """Distribute while this machine is the front, until cancelled.

        Raises:
            AriUnauthorized: Asterisk refuses our name or password, or lets us only read.
        """
        self._distributor = distributor
        ari = distributor.ari
        beside = [
            asyncio.create_task(self._watch_asterisk(ari), name="asterisk"),
            asyncio.create_task(self._look_after_gone(ari), name="machines that are gone"),
        ]
        try:
            while True:
                await self._is_front.wait()
                await self._while_front(distributor)
        finally:
            await cancelled(*beside)

    async def handed_over(self) -> None:
        """Wait, once drained, until another has the application; not for long: perhaps nobody
        takes it, or the store is away."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HANDING_OVER_SECONDS + TTL):
                await self._does_not_distribute.wait()

    async def _while_front(self, distributor: Distributor) -> None:
        self._does_not_distribute.clear()
        running = asyncio.create_task(distributor.run(), name="distributor")
        lost = asyncio.create_task(self._is_not_front.wait())
        try:
            await asyncio.wait([running, lost], return_when=asyncio.FIRST_COMPLETED)
            if not running.done() and self._draining_since is not None:
                # The next one takes the application over; until then it is answered here.
                await asyncio.wait([running], timeout=_HANDING_OVER_SECONDS)
            if running.done():
                running.result()
                if distributor.state is SocketState.REPLACED:
                    self.member.replaced()
        finally:
            await cancelled(running, lost)
            self._does_not_distribute.set()

    async def may_act(self) -> bool:
        """Return whether this machine is the one that distributes, at this moment."""
        since = self._draining_since
        now = asyncio.get_running_loop().time()
        if since is not None and now - since < _HANDING_OVER_SECONDS:
            return True
        return await self.member.may_act()

    async def give(self, channel: str, args: Sequence[str]) -> bool | None:
        """Give a channel to another machine; see `ari_app.front.distributor.OtherFronts`."""
        targets = self.member.targets()
        app = self._settings.ari_app
        placed_by = []
        if channel.startswith(f"{app}."):
            placed_by = [each for each in targets if channel.startswith(self._placed_by(each))]
        for machine in placed_by or targets:
            self.member.gave(machine)
            if machine.name == self.member.name:
                return False
            body = {"channel": channel, "args": list(args)}
            try:
                status = await self._machines.post(machine, _ARRIVALS_PATH, body, _GIVE_SECONDS)
            except WorkerAway:
                log.warning("machine_does_not_answer", machine=machine.name, call=channel)
                continue
            if status == _TAKEN:
                return True
            if status == _GONE:
                return None
        return False

    def _apps_of(self, machine: Machine) -> list[str]:
        """Return the names that the applications of a machine's workers may have."""
        numbers = range(1, MOST_WORKERS + 1)
        return [worker_app(self._settings.ari_app, each, machine.name) for each in numbers]

    def _placed_by(self, machine: Machine) -> tuple[str, ...]:
        """Return what the ids of the channels begin with that a machine has placed."""
        return tuple(f"{each}-" for each in self._apps_of(machine))

    async def _arrival(self, request: web.Request) -> web.Response:
        """Take a channel in that the front has given to this machine."""
        body = await request.json()
        match body:
            case {"channel": str(channel), "args": list(args)} if self._distributor is not None:
                pass
            case _:
                return web.Response(status=_FULL)
        if not self.member.is_awake():
            # What was asked while we were frozen is answered elsewhere by now.
            return web.Response(status=_FULL)
        taken = await self._distributor.take_from_elsewhere(channel, tuple(map(str, args)))
        return web.Response(status={True: _TAKEN, None: _GONE, False: _FULL}[taken])

    async def _has(self, request: web.Request) -> web.Response:
        """Say whether a call is here."""
        is_here = request.match_info["session_id"] in self.member.calls
        return web.Response(status=200 if is_here else 404)

    def _front_changed(self, front: bool) -> None:
        for event, state in ((self._is_front, front), (self._is_not_front, not front)):
            if state:
                event.set()
            else:
                event.clear()

    async def _watch_asterisk(self, ari: Client) -> None:
        """Know which Asterisk it is, for as long as it answers."""
        while True:
            try:
                info = await ari.within(_LOOK_SECONDS).asterisk.get_info()
            except AriError:
                self._missed_looks += 1
                if self._missed_looks >= _MISSED_LOOKS:
                    self._asterisk = ""
            else:
                self._missed_looks = 0
                entity = "" if info.system is None else info.system.entity_id
                self._asterisk = entity or self._settings.ari_url
            await asyncio.sleep(_LOOK_SECONDS)

    # --- machines that are gone

    def _machine_gone(self, machine: Machine) -> None:
        self._gone[machine.name] = _Gone(machine, asyncio.get_running_loop().time())

    async def _look_after_gone(self, ari: Client) -> None:
        while True:
            await asyncio.sleep(_ASK_SECONDS)
            now = asyncio.get_running_loop().time()
            for name, gone in tuple(self._gone.items()):
                ours = self.member.lease.is_ours and gone.machine.asterisk == self._asterisk
                # One that is only cut off from the store has calls for as long as it answers.
                old = now - gone.since > _FORGET_SECONDS and not (ours and not gone.is_done)
                if old or name in self.member.view.machines:
                    del self._gone[name]
                elif ours:
                    with contextlib.suppress(AriError):
                        await self._look_after(ari, gone, now)

    async def _look_after(self, ari: Client, gone: _Gone, now: float) -> None:
        """Give the calls of a machine back that is neither in the store nor answers over HTTP."""
        try:
            await self._machines.get(gone.machine, _LIVE_PATH, _ASK_SECONDS)
        except WorkerAway:
            gone.missed += 1
            if gone.silent_since is None:
                gone.silent_since = now
        else:
            # Cut off from the store alone: its calls talk on.
            gone.silent_since, gone.missed, gone.given_back = None, 0, 0
        if gone.silent_since is None or gone.missed < _MISSED_LOOKS:
            return
        surely = now - gone.silent_since > _SURELY_GONE_SECONDS
        if gone.given_back > surely:
            return
        known = self._apps_of(gone.machine)
        apps = [each.name for each in await ari.applications.list() if each.name in known]
        log.warning("calls_of_machine_given_back", machine=gone.machine.name, applications=apps)
        for app in apps:
            async with ari_client(self._settings, app) as theirs:
                mender = Mender(theirs, app, self._settings.amd_context)
                if surely:
                    await self._end_sound(mender, app)
                await mender.mend(expected=True, patience=GIVE_BACK_SECONDS)
        # Only now: where Asterisk could not be asked, it is asked again.
        gone.given_back += 1

    async def _end_sound(self, mender: Mender, app: str) -> None:
        stock = await mender.take_stock(())
        for name in stock.obscure.union(channel.id for channel in stock.channels):
            if name.startswith(media_channel_id(app, "")):
                await mender.remove_channel(name)

    # --- what was deleted

    async def _forget(self, deletion: Deletion) -> None:
        # When a machine starts, what it has missed is there before its workers are.
        while not self._hub.forget(deletion.session_id, list(deletion.recordings)):
            await self._hub.changed()
