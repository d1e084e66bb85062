"""Wires the service together: what is made, in which order it starts, and in which it stops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog

from ari_app.agent.elevenlabs.closing import AgentClose
from ari_app.agent.precall import PreCall
from ari_app.audio.sound_file import SoundFile
from ari_app.call.call import CallSession
from ari_app.call.calls import SessionManager
from ari_app.call.hearing import ResponseTime
from ari_app.call.plan import Services
from ari_app.call.states import State
from ari_app.checks.asterisk import unauthorized
from ari_app.checks.here import require_recordings
from ari_app.clients import agent_client, ari_client
from ari_app.control.control import CallControl, Dispatcher
from ari_app.control.http.handlers import build_web_app
from ari_app.control.http.middleware import RequestRates
from ari_app.control.http.models import Readiness
from ari_app.control.http.server import HttpServer
from ari_app.control.planner import FormatMemory, Planner
from ari_app.errors import ConfigError
from ari_app.line.asterisk.ari.errors import AriError, AriUnauthorized
from ari_app.line.asterisk.ari.socket import EventSocket
from ari_app.line.asterisk.ari.version import Assessment, assess
from ari_app.line.asterisk.cleanup import Mender
from ari_app.process.limits import settle_memory
from ari_app.records.events import SessionObserver, TranscriptLine
from ari_app.records.journal import SessionFeed
from ari_app.records.metrics import Metrics
from ari_app.records.recording import Recordings
from ari_app.settings import Settings, split_host_port
from ari_app.tools.http_config import process_environment
from ari_app.tools.http_tools import HttpTools
from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock
from linekit.listener import Networks

log = structlog.get_logger(__name__)


class Observers(SessionObserver):
    """Tells several observers of the same calls; one that raises disturbs neither the call nor the
    others."""

    def __init__(self, observers: Sequence[SessionObserver]) -> None:
        self._observers = tuple(observers)

    def call_changed(self, session: CallSession, state: State) -> None:
        self._tell(lambda observer: observer.call_changed(session, state))

    def call_said(self, session: CallSession, line: TranscriptLine) -> None:
        self._tell(lambda observer: observer.call_said(session, line))

    def call_responded(self, session: CallSession, response: ResponseTime) -> None:
        self._tell(lambda observer: observer.call_responded(session, response))

    def agent_connected(self, session: CallSession, seconds: float) -> None:
        self._tell(lambda observer: observer.agent_connected(session, seconds))

    def agent_not_reached(self, session: CallSession, code: str) -> None:
        self._tell(lambda observer: observer.agent_not_reached(session, code))

    def agent_lost(self, session: CallSession) -> None:
        self._tell(lambda observer: observer.agent_lost(session))

    def agent_resumed(self, session: CallSession, seconds: float) -> None:
        self._tell(lambda observer: observer.agent_resumed(session, seconds))

    def agent_closed(self, session: CallSession, close: AgentClose) -> None:
        self._tell(lambda observer: observer.agent_closed(session, close))

    def _tell(self, tell: Callable[[SessionObserver], None]) -> None:
        for observer in self._observers:
            try:
                tell(observer)
            except Exception:
                log.exception("observer_failed", observer=type(observer).__name__)


class VoiceBridge:
    """The service: AudioSocket server, ARI application, agent client and HTTP interface.

    ``async with VoiceBridge(settings) as bridge: await bridge.run()`` serves until :meth:`stop` is
    called.

    Args:
        settings: What it is told from outside.
        observers: Who wants to know how calls go, beside the metrics.
        on_replaced: Called when another process has taken the application.
    """

    def __init__(
        self,
        settings: Settings,
        observers: Sequence[SessionObserver] = (),
        *,
        on_replaced: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.asterisk: Assessment | None = None
        self.audiosocket_address = ("", 0)
        self.api_address = ("", 0)
        self._agent_formats = FormatMemory()
        self.feed = SessionFeed()
        self._observers = Observers([self.metrics, self._agent_formats, self.feed, *observers])
        self._exit = contextlib.AsyncExitStack()
        self._stopping = asyncio.Event()
        self._ending = False
        self._running = False
        self._on_replaced = on_replaced
        self._ari_state = "not connected yet"
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life

    async def __aenter__(self) -> VoiceBridge:
        """Bind both ports, and make sure that Asterisk can be used.

        Raises:
            ConfigError: A port is taken, a folder cannot be written, or Asterisk refuses us or
                lacks
                what we need.
        """
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def _start(self) -> None:
        settings = self.settings
        settings.require_serving()
        if settings.recordings_dir is not None:
            require_recordings(settings.recordings_dir)

        clock = FrameClock(on_tick=self.metrics.clock_ticked)
        clock.start()
        self._exit.callback(clock.stop)

        self.lines = AudioSocketServer(
            clock,
            allow=Networks(settings.audiosocket_allow),
            limits=settings.audiosocket_limits(),
            on_refused=self.metrics.connection_refused,
        )
        self.metrics.lines.set_function(lambda: self.lines.lines + self.lines.expected)
        self.audiosocket_address = await _listen(
            self.lines.start, settings.audiosocket_bind, "AUDIOSOCKET_BIND"
        )
        self._exit.push_async_callback(self.lines.close)

        self.ari = await self._exit.enter_async_context(ari_client(settings))
        self.agents = await self._exit.enter_async_context(agent_client(settings))
        http_tools = await self._exit.enter_async_context(
            HttpTools.load(settings.tools_file, process_environment(settings.env_file))
        )
        self._planner = Planner(
            settings,
            self.ari,
            lambda: self.asterisk,
            self._agent_formats,
            await self._open_precall(),
            lambda: self.manager.get_active_sessions_count(),
        )
        self.recordings = Recordings()
        self._exit.push_async_callback(self.recordings.close)
        self.metrics.watch_recordings(self.recordings.stats)
        services = Services(
            ari=self.ari,
            lines=self.lines,
            agents=self.agents,
            app=settings.ari_app,
            audiosocket_target=self._target(),
            observer=self._observers,
            policy=settings.call_policy(),
            http_tools=http_tools,
            loss_sound=_load_sound(settings.agent_loss_sound),
            recordings=self.recordings,
        )
        self.manager = SessionManager(
            services,
            self._planner,
            max_concurrent_calls=settings.max_concurrent_calls,
            calls_per_second=settings.outbound_calls_per_second,
            queue_size=settings.outbound_queue_size,
        )
        self.control: CallControl = Dispatcher(
            self.manager, services, self._planner, lambda: self._ari_state == "connected"
        )
        self._exit.push_async_callback(self.manager.close)
        await self._start_http()

    async def run(self) -> None:
        """Take calls until :meth:`stop`; then refuse new ones and let the running ones finish.

        Raises:
            ConfigError: Asterisk refuses our name or password.
        """
        socket = EventSocket(self.ari, self.manager.handle, self._ari_changed)
        events = asyncio.create_task(socket.run(), name="ari-events")
        sweep = asyncio.create_task(self.manager.sweep_forever(), name="sweep")
        stop = asyncio.create_task(self._stopping.wait(), name="stop")
        key = asyncio.create_task(self.agents.watch_key(), name="agent-key")
        settle_memory()
        self._running = True
        try:
            await asyncio.wait([events, stop], return_when=asyncio.FIRST_COMPLETED)
            if events.done() and (error := events.exception()) is not None:
                await self.manager.drain(0)
                if isinstance(error, AriUnauthorized):
                    raise ConfigError(unauthorized(self.settings)) from None
                raise error
            await self.manager.drain(0 if self._ending else self.settings.drain_timeout_seconds)
        finally:
            background = (stop, sweep, key, events, *self._tasks)
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)

    def stop(self) -> None:
        """Begin to stop: see :meth:`run`. Said again, it ends the calls that still run."""
        if self._stopping.is_set():
            self.end_calls()
        self.drain()

    def drain(self) -> None:
        """Begin to stop: see :meth:`run`. Said again, it changes nothing."""
        self._stopping.set()

    def end_calls(self) -> None:
        """Stop at once: the callers go on in the dialplan as ``FAILED``."""
        self._ending = True
        self._stopping.set()
        if self._running:
            self.manager.end_all("shutting_down")

    def leave_ports(self) -> None:
        """Stop listening, so that another process can; the lines that are up stay."""
        if self._running:
            self.lines.stop_listening()
            self._http.stop_listening()

    async def mend(self, *, expected: bool) -> None:
        """Give back what a process that is no more has left in Asterisk; to be done before
        :meth:`run`.

        Args:
            expected: There was one.
        """
        await Mender(self.ari, self.settings.ari_app, self.settings.amd_context).mend(
            expected=expected
        )

    async def __aexit__(self, *exc_info: object) -> None:
        await self._exit.aclose()

    async def _open_precall(self) -> PreCall | None:
        settings = self.settings
        if settings.precall_url is None:
            return None
        return await self._exit.enter_async_context(
            PreCall(
                settings.precall_url,
                secret=settings.precall_secret,
                header=settings.precall_header,
                timeout_seconds=settings.precall_timeout_seconds,
                on_failure=settings.precall_on_failure,
            )
        )

    async def _start_http(self) -> None:
        key = self.settings.api_key
        rates = RequestRates(self.settings.api_requests_per_second)
        app = build_web_app(
            self,
            api_key=None if key is None else key.get_secret_value(),
            public_url=self.settings.api_public_url,
            number_pattern=self.settings.number_pattern,
            rates=rates,
        )
        loop = asyncio.get_running_loop()
        server = self._http = HttpServer(
            app,
            limits=self.settings.api_limits(),
            take=lambda address: rates.take(address, loop.time(), changes=False),
            on_refused=self.metrics.http_was_refused,
        )
        self._exit.push_async_callback(server.close)
        self.api_address = await _listen(server.start, self.settings.api_bind, "API_BIND")
        # Streams of events end before the server waits for its requests to end.
        self._exit.callback(self.feed.close)
        if key is None:
            log.info(
                "api_without_key", note="only this machine can reach it", at=self.settings.api_bind
            )

    # --- Asterisk

    def _ari_changed(self, state: str) -> None:
        self._ari_state = state
        self.metrics.ari_connected.set(state == "connected")
        if state == "replaced":
            self.manager.replaced = True
            self._on_replaced()
        if state == "connected":
            self._spawn(self._reconnected())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reconnected(self) -> None:
        try:
            info = await self.ari.asterisk.get_info()
        except AriError as error:
            log.warning("asterisk_version_unknown", code=error.code, error=str(error))
            self.asterisk = self.asterisk or assess("")
        else:
            self.asterisk = assess(info.version)
            log.info("asterisk_connected", version=info.version, app=self.settings.ari_app)
        await self.manager.catch_up()

    def _target(self) -> str:
        if self.settings.audiosocket_advertise is not None:
            return self.settings.audiosocket_advertise
        host, port = self.audiosocket_address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    # --- ServiceView

    def readiness(self) -> Readiness:
        """Whether new calls are taken."""
        problems = []
        if self._ari_state != "connected":
            problems.append(f"Asterisk's event socket is {self._ari_state}")
        elif self.asterisk is None:
            problems.append("Asterisk has not said its version yet")
        if not self.lines.listening:
            problems.append("the AudioSocket server does not listen")
        if self.agents.key.problem:
            problems.append(self.agents.key.problem)
        if self.manager.draining:
            problems.append("draining: new calls are refused")
        return Readiness(
            status="not_ready" if problems else "ready",
            problems=problems,
            active_sessions=self.manager.get_active_sessions_count(),
            asterisk_version=self._asterisk_version(),
        )

    def _asterisk_version(self) -> str | None:
        version = self.asterisk.version if self.asterisk else None
        return version.text if version else None


def _load_sound(path: Path | None) -> SoundFile | None:
    if path is None:
        return None
    try:
        return SoundFile.load(path)
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except ValueError as error:
        problem = str(error)
    raise ConfigError(
        f"AGENT_LOSS_SOUND {path} cannot be used: {problem}. Give a WAV file of 16-bit PCM, or "
        "empty the setting."
    )


async def _listen(
    start: Callable[[str, int], Awaitable[tuple[str, int]]], address: str, setting: str
) -> tuple[str, int]:
    host, port = split_host_port(address)
    try:
        return await start(host, port)
    except OSError as error:
        hint = (
            "another program has this port; stop it, or choose another port"
            if error.errno == errno.EADDRINUSE
            else "choose an address of this machine"
        )
        raise ConfigError(f"{setting} {address} cannot be used: {hint}.") from None
