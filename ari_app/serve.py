"""The command `ari-app serve`: a parent that supervises, and workers that serve."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog
import uvloop

from ari_app.bridge import SOUND, VoiceBridge, WorkerPlace
from ari_app.checks.agent import check_agent_key
from ari_app.checks.asterisk import check_asterisk
from ari_app.checks.call_log import check_open_log
from ari_app.checks.finding import Finding, Verdict
from ari_app.checks.host import cannot_listen, check_descriptors, check_settings
from ari_app.clients import ari_client
from ari_app.control.workers.folder import Folder
from ari_app.errors import ConfigError
from ari_app.line.asterisk.cleanup import GIVE_BACK_SECONDS, Mender
from ari_app.line.asterisk.names import worker_app
from ari_app.process.addresses import page_url, split_host_port
from ari_app.process.compiled import in_use
from ari_app.process.limits import raise_limit
from ari_app.process.logs import set_up_logging
from ari_app.process.runtime import runtime_folder
from ari_app.process.supervisor import (
    FRONT,
    SPARE,
    Duty,
    Limits,
    Mode,
    Order,
    Parent,
    ParentLink,
    Standing,
    awaited,
)
from ari_app.process.supervisor.parent import unblock_signals
from ari_app.records.checkpoints import are_lost, forget_left, has_calls
from ari_app.records.store.address import read_address
from ari_app.records.store.sqlite_probe import is_current
from ari_app.settings import MOST_WORKERS, Settings
from linekit.listener import listening

log = structlog.get_logger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_DUTY: Final = "ARI_APP_DUTY"
"""What a program is started for that loads its code anew; nobody else sets it."""
_TABLES_SECONDS = 20


def supervise(settings: Settings, *, wait: bool = False) -> int:
    """Serve under a parent until told to stop; returns in the parent and in each worker.

    Args:
        settings: What it is told from outside.
        wait: An Asterisk that does not answer yet is waited for.

    Returns:
        The exit code of this process.

    Raises:
        ConfigError: In the first worker: something that no call could be served without is missing.
    """
    if settings.database_url:
        _make_tables(settings.database_url)

    _load(settings)
    log_as = (settings.log_level, settings.log_format, settings.log_numbers)
    set_up_logging(*log_as, in_thread=False)
    if (loaded := Company.loaded()) is not None:
        company, duty = loaded
        settings = settings.model_copy(update={"workers": company.workers})
    else:
        company = Company.make(settings)
        outcome = Parent(Limits(stall=settings.worker_stall_seconds), settings.workers).run()
        if isinstance(outcome, int):
            company.end()
            return outcome
        duty = outcome
        if duty.afresh:
            company.load_again(duty)
    set_up_logging(*log_as)
    return _run(_work(settings, duty, company, wait=wait), duty.mode)


def _load(settings: Settings) -> None:
    """Read what the processes will use beside what stands above: forked, they have it at once."""
    for name in _wanted(settings):
        importlib.import_module(name)


def _wanted(settings: Settings) -> Iterator[str]:
    if "local" in settings.ways_in:
        yield from ("ari_app.checks.microphone", "ari_app.line.microphone")
    if "custom" in settings.ways_in:
        yield from ("ari_app.checks.dialer", "ari_app.line.dialer.gateway")
    if "twilio" in settings.ways_in:
        yield from ("ari_app.checks.twilio", "ari_app.line.twilio.gateway")
        yield "ari_app.line.twilio.signature"
    if settings.database_url and (
        # Several share it; otherwise it waits for the first call where nobody asks at once.
        settings.workers > 1
        or settings.spend_limits()
        or read_address(settings.database_url).kind != "sqlite"
    ):
        yield from ("ari_app.process.plain_sqlalchemy", "ari_app.records.store.keeper")
    if settings.api_keys_file is not None or settings.tools_file is not None:
        yield "yaml"
    if settings.tools_file is not None:
        yield "ari_app.tools.validator"
    if settings.workers > 1:
        yield "ari_app.front.service"
        # Each would load it for itself: 14 MB, and its first call had to wait.
        yield from SOUND
    if settings.cluster_url is not None:
        yield "ari_app.front.machines"


def _work(
    settings: Settings, duty: Duty, company: Company, *, wait: bool
) -> Coroutine[Any, Any, None]:
    """Return what a worker is to do."""
    if duty.number == FRONT:
        _call_ourselves("ari-app-front")
        assert company.folder is not None
        return serve_front(settings, duty, company.folder, company.sockets)
    _call_ourselves("ari-app-worker")
    place, app = company.place(duty.number), settings.ari_app
    if place is not None:
        settings = settings.of_worker(duty.number)
    running = _running_folder(settings)
    lost_apps: list[str] = []
    if running is not None and duty.mode is Mode.FIRST and duty.number == 1:
        lost_apps = lost_applications(running.parent, app, company.workers)
    if duty.mode is Mode.MEND:
        return mend(settings, duty, running)
    return serve(settings, duty, wait=wait, running=running, place=place, lost_apps=lost_apps)


@dataclass(frozen=True, slots=True)
class Company:
    """What the processes of one service share.

    Attributes:
        workers: How many carry calls.
        folder: Where they find each other; None: there is one alone.
        sockets: Where HTTP comes in for all of them: they listen from before the first to after the
            last, so that no connection is refused while a front is replaced.
    """

    workers: int
    folder: Folder | None = None
    sockets: list[socket.socket] = field(default_factory=list)

    @staticmethod
    def make(settings: Settings) -> Company:
        """Make what there is to share.

        Raises:
            ConfigError: The port of HTTP, or the folder, cannot be had.
        """
        if settings.workers == 1:
            return Company(1)
        try:
            sockets = listening(*split_host_port(settings.api_bind))
        except OSError as error:
            raise cannot_listen("API_BIND", settings.api_bind, error) from None
        return Company(settings.workers, Folder.make(), sockets)

    def place(self, number: int) -> WorkerPlace | None:
        """Return the place of a worker, which does not listen itself; None: it is alone."""
        if self.folder is None:
            return None
        for sock in self.sockets:
            sock.close()
        return WorkerPlace(number, self.folder)

    def end(self) -> None:
        """Remove folder and sockets, once the last of the processes has ended."""
        for sock in self.sockets:
            sock.close()
        if self.folder is not None:
            self.folder.remove()

    def load_again(self, duty: Duty) -> NoReturn:
        """Replace this process by one with the code and the settings that are on the disk now."""
        kept = [duty.channel, *self.sockets]
        for sock in kept:
            sock.set_inheritable(True)
        told = {
            "number": duty.number,
            "mode": duty.mode,
            "restarts": duty.restarts,
            "channel": duty.channel.fileno(),
            "workers": self.workers,
            "folder": str(self.folder.path) if self.folder is not None else None,
            "sockets": [sock.fileno() for sock in self.sockets],
        }
        environment = {**os.environ, _DUTY: json.dumps(told)}
        python = interpreter(sys.orig_argv[1])
        os.execve(python, [python, *sys.orig_argv[1:]], environment)

    @staticmethod
    def loaded() -> tuple[Company, Duty] | None:
        """Return what `load_again` was given, in the program that it has started."""
        if (text := os.environ.pop(_DUTY, None)) is None:
            return None
        told = json.loads(text)
        sockets = [socket.socket(fileno=each) for each in (told["channel"], *told["sockets"])]
        for sock in sockets:
            sock.set_inheritable(False)
            sock.setblocking(False)
        channel, *listeners = sockets
        company = Company(told["workers"], Folder(Path(told["folder"])), listeners)
        duty = Duty(Mode(told["mode"]), told["restarts"], channel, told["number"])
        if duty.number == SPARE:
            _call_ourselves("ari-app-spare")
            duty = awaited(duty)
        return company, duty


def interpreter(script: str) -> str:
    """Return the Python of the installation that a command is found in by now: its path may go over
    a link, which leads to another release than the one that runs.

    Not over the link: what a process loads later is to be of its own release, also when the link
    leads to the next one by then.

    Args:
        script: The command's path, or an option of Python's.
    """
    folder = Path(script).parent
    # The last part is a link, too, and what it leads to knows no installation.
    beside = folder.resolve() / Path(sys.executable).name
    there = folder.is_absolute() and os.access(beside, os.X_OK)
    return str(beside) if there else sys.executable


def _running_folder(settings: Settings) -> Path | None:
    """Return where workers keep what the next one needs of their calls; None: nowhere."""
    if not settings.has_asterisk:
        return None
    keeps = settings.worker_loss != "dialplan"
    try:
        # Another Asterisk's calls are another service's.
        asterisk = hashlib.sha256(settings.ari_url.encode()).hexdigest()[:16]
        folder = runtime_folder() / asterisk / settings.ari_app
    except OSError as error:
        if keeps:
            log.error("calls_not_kept", error=str(error))
        return None
    if keeps:
        return folder
    # It holds what was said, of calls that were lost while the setting was another.
    forget_left(folder)
    return None


def lost_applications(folder: Path, app: str, workers: int) -> list[str]:
    """Return the applications that this service had in Asterisk while it had other workers, where
    a lost process has left something and none lives.

    Args:
        folder: Where each application has a folder.
        app: The one that the dialplan names.
        workers: How many there are now.
    """
    had = [app, *(worker_app(app, number) for number in range(1, MOST_WORKERS + 1))]
    has = had[:1] if workers == 1 else had[1 : workers + 1]
    return [each for each in had if each not in has and are_lost(folder / each)]


def _make_tables(database_url: str) -> None:
    """Make SQLite's tables, or bring them up to date, in a process of its own.

    It takes alembic, 16 MB that the service never needs again. Whatever goes wrong here, the worker
    finds again, and says.
    """
    address = read_address(database_url)
    if address.kind != "sqlite" or is_current(address.path):
        return
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        # Another program may hold it locked.
        signal.alarm(_TABLES_SECONDS)
        from ari_app.records.store.upgrade import upgrade

        asyncio.run(upgrade(address))
    finally:
        os._exit(0)


def _run(work: Coroutine[Any, Any, None], mode: Mode) -> int:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except ConfigError as error:
        if mode is Mode.FIRST:
            raise
        log.error("worker_cannot_serve", error=str(error))
        return 2
    return 0


async def serve_front(
    settings: Settings, duty: Duty, folder: Folder, sockets: list[socket.socket]
) -> None:
    """Stand before the workers until told to end.

    Raises:
        ConfigError: A setting cannot be used, or Asterisk refuses us.
    """
    raise_limit()
    with contextlib.ExitStack() as stack:
        link: ParentLink | None = None

        def replaced() -> None:
            if link is not None:
                link.stand(Standing.REPLACED)

        from ari_app.front.service import Front

        again = duty.mode is not Mode.FIRST
        front = Front(settings, folder, sockets, on_replaced=replaced, again=again)
        stack.enter_context(_signals(front.drain, has_parent=True))

        def ordered(order: Order) -> None:
            match order:
                case Order.DRAIN:
                    front.drain()
                case Order.END:
                    front.stop()

        def orphaned() -> None:
            log.error("parent_lost")
            front.orphaned()

        link = stack.enter_context(ParentLink(duty.channel, ordered, orphaned))
        async with front:
            running = asyncio.create_task(front.run(), name="front")
            if link.standing is Standing.STARTING:
                link.stand(Standing.SERVING)
            try:
                api = await front.answer()
                page = settings.api_public_url or page_url(*api)
                log.info("front_serving", app=settings.ari_app, api="{}:{}".format(*api), page=page)
                await running
            finally:
                await _cancel(running)
    log.info("stopped")


async def serve(
    settings: Settings,
    duty: Duty | None = None,
    *,
    wait: bool = False,
    running: Path | None = None,
    place: WorkerPlace | None = None,
    lost_apps: Sequence[str] = (),
) -> None:
    """Take calls until SIGTERM or SIGINT.

    Alone, the first signal lets running calls finish and the second ends them. Under a parent every
    signal lets them finish, for whoever stops a service may tell each of its processes; what ends
    them is an order of the parent's.

    Args:
        settings: What it is told from outside.
        duty: What the parent wants; None: there is none.
        wait: An Asterisk that does not answer yet is waited for.
        running: Where what another worker would need of each call is kept; None: nowhere.
        place: Its place among several workers; None: it is alone.
        lost_apps: Applications in Asterisk of lost processes, in whose place nobody comes.

    Raises:
        ConfigError: Something that no call could be served without is missing.
    """
    raise_limit()
    first = duty is None or duty.mode is Mode.FIRST
    # What concerns all of them is looked at by one.
    looks = place is None or place.number == 1
    with contextlib.ExitStack() as stack:
        link: ParentLink | None = None

        def replaced() -> None:
            if link is not None:
                link.stand(Standing.REPLACED)

        bridge = VoiceBridge(
            settings,
            on_replaced=replaced,
            checkpoints=running,
            place=place,
            lost_apps=lost_apps,
            again=not first,
        )
        alone = duty is None
        stop = bridge.stop if alone else bridge.drain
        stack.enter_context(_signals(stop, has_parent=not alone))
        if duty is not None:
            bridge.metrics.restarts.inc(duty.restarts)
            link = stack.enter_context(_linked(duty, bridge))
        async with bridge, contextlib.AsyncExitStack() as beside:
            if wait and first and not await bridge.asterisk_answers():
                return
            if first and looks:
                await _check_line(bridge, fatal=True)
            await bridge.mend(expected=not first)
            if first and looks:
                await _check_agent(bridge, fatal=True)
            elif looks:
                # What is wrong ends nothing now, and callers do not wait until it is known.
                beside.push_async_callback(_cancel, asyncio.create_task(_check_again(bridge)))
            else:
                # Each says at /health/ready whether the agent's service is there, and the first one
                # tells what to do.
                asking = asyncio.create_task(check_agent_key(bridge.agents, settings))
                beside.push_async_callback(_cancel, asking)
            log.info("serving", **_way_in(bridge), **_http(bridge, place), compiled=in_use())
            if link is not None:
                link.stand(Standing.SERVING)
            await bridge.run()
        log.info("stopped")


async def mend(settings: Settings, duty: Duty, running: Path | None = None) -> None:
    """Give back what a worker has left that was lost while it was to end.

    Nobody comes after it, so it takes as long as that worker might have taken; the stop signals
    stay blocked meanwhile.
    """
    if not settings.has_asterisk:
        return  # nothing else outlives its process
    with ParentLink(duty.channel, lambda order: None, lambda: None):
        async with ari_client(settings) as ari:
            await Mender(ari, settings.ari_app, settings.amd_context).mend(
                expected=True, patience=GIVE_BACK_SECONDS
            )
        if running is not None and has_calls(running):
            await _tell_of_lost(settings, running)


async def _tell_of_lost(settings: Settings, running: Path) -> None:
    """Have the calls kept and told of that nobody goes on with; what was kept of them goes."""
    try:
        async with VoiceBridge(
            settings, http=False, checkpoints=running, goes_on=False, again=True
        ) as bridge:
            await bridge.give_calls_up()
    except (ConfigError, OSError) as error:
        log.error("lost_calls_not_told", error=str(error))
    forget_left(running)


def _http(bridge: VoiceBridge, place: WorkerPlace | None) -> dict[str, Any]:
    if place is not None:
        return {"worker": place.number}
    return {
        "api": "{}:{}".format(*bridge.api_address),
        "page": bridge.settings.api_public_url or page_url(*bridge.api_address),
    }


def _way_in(bridge: VoiceBridge) -> dict[str, str]:
    settings = bridge.settings
    told = {"ways_in": ",".join(settings.ways_in)}
    if "local" in settings.ways_in:
        told["sound"] = settings.local_audio_device or "this machine's"
    if "twilio" in settings.ways_in:
        told["twilio"] = settings.api_public_url or ""
    if settings.has_asterisk:
        told["app"] = settings.ari_app
        told["media_transport"] = settings.media_transport
    if settings.has_audiosocket:
        told["audiosocket"] = "{}:{}".format(*bridge.audiosocket_address)
    return told


async def _check_line(bridge: VoiceBridge, *, fatal: bool) -> None:
    settings = bridge.settings
    found = [*check_settings(settings), check_descriptors(settings)]
    # All that is imported here was so before, by `_load`, where calls may run by now.
    if "local" in settings.ways_in:
        from ari_app.checks.microphone import check_microphone
        from ari_app.line.microphone import MicrophoneGateway

        microphone = bridge.way_in(MicrophoneGateway)
        assert microphone is not None
        found.append(await check_microphone(microphone.card))
    if "custom" in settings.ways_in:
        from ari_app.checks.dialer import check_dialer, check_dialer_service

        found += [check_dialer(settings), *await check_dialer_service(settings)]
    if "twilio" in settings.ways_in:
        from ari_app.checks.twilio import check_twilio_account

        found.append(await check_twilio_account(settings))
    if bridge.call_log is not None:
        found += await check_open_log(bridge.call_log)
    if settings.has_asterisk:
        found += await check_asterisk(bridge.ari, settings)
    _judge(found, fatal=fatal)


async def _check_agent(bridge: VoiceBridge, *, fatal: bool) -> None:
    _judge([await check_agent_key(bridge.agents, bridge.settings)], fatal=fatal)


async def _check_again(bridge: VoiceBridge) -> None:
    await _check_line(bridge, fatal=False)
    await _check_agent(bridge, fatal=False)


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def _linked(duty: Duty, bridge: VoiceBridge) -> Iterator[ParentLink]:
    """Link with the parent. Should it be lost, the running calls are finished, and the ports are
    left to whoever is started next."""

    def ordered(order: Order) -> None:
        match order:
            case Order.DRAIN:
                bridge.drain()
            case Order.END:
                bridge.end_calls()

    def orphaned() -> None:
        log.error("parent_lost")
        bridge.drain()
        bridge.leave_ports()

    with ParentLink(duty.channel, ordered, orphaned) as link:
        yield link


@contextlib.contextmanager
def _signals(stop: Callable[[], None], *, has_parent: bool) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def received(number: signal.Signals, act: Callable[[], None]) -> None:
        log.info("signal_received", signal=number.name)
        act()

    actions = dict.fromkeys(_STOP_SIGNALS, stop)
    if has_parent:
        # Whoever sends it to all of them means the parent: it tells us what becomes of us.
        actions[signal.SIGHUP] = _nothing
    for number, act in actions.items():
        loop.add_signal_handler(number, received, number, act)
    unblock_signals()
    try:
        yield
    finally:
        for number in actions:
            loop.remove_signal_handler(number)


def _nothing() -> None:
    """Go on."""


def _judge(findings: list[Finding], *, fatal: bool) -> None:
    for finding in findings:
        if finding.verdict is Verdict.FAILED and fatal and not finding.may_pass:
            raise ConfigError(finding.detail)
        if finding.verdict in (Verdict.WARNING, Verdict.FAILED):
            log.warning("check", what=finding.what, found=finding.detail)


def _call_ourselves(name: str) -> None:
    """Show another name in `ps` and `top`, where the kernel lets us."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name[:15])
