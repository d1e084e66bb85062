"""Wires the service together: what is made, in which order it starts, and in which it stops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from aiohttp import web

from ari_app.agent.elevenlabs.closing import KNOWN_CODES
from ari_app.agent.precall import PreCall
from ari_app.call.adoption import Adoption
from ari_app.call.calls import Calls
from ari_app.call.plan import Services
from ari_app.call.states import State
from ari_app.checks.asterisk import unauthorized
from ari_app.checks.host import (
    cannot_listen,
    require_announcements,
    require_encoder,
    require_recordings,
    require_sound,
    room_of_an_hour,
)
from ari_app.clients import agent_client, ari_client, dialer_api, twilio_client
from ari_app.control.control import CallControl
from ari_app.control.http.agent_webhook import AgentWebhook
from ari_app.control.http.handlers import build_web_app
from ari_app.control.http.keys import Keys
from ari_app.control.http.models import Readiness
from ari_app.control.http.rates import RequestRates
from ari_app.control.http.server import HttpServer
from ari_app.control.http.worker import WorkerServer, build_worker_app
from ari_app.control.planner import Planner, PlannerOptions
from ari_app.control.recording_publisher import RecordingPublisher, tell_if_missing
from ari_app.control.reports import ReportFetcher
from ari_app.control.workers.folder import Folder
from ari_app.control.workers.membership import Membership
from ari_app.errors import ConfigError
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriError, AriUnauthorized
from ari_app.line.asterisk.cleanup import Mender
from ari_app.line.asterisk.gateway import AsteriskGateway
from ari_app.line.interface import Arrival, Gateway
from ari_app.process.addresses import join_host, split_host_port
from ari_app.process.limits import share_interpreter
from ari_app.process.loop import cancelled
from ari_app.process.memory import (
    collect_leftovers,
    load_for_good,
    settle_memory,
)
from ari_app.process.opening import Opened
from ari_app.records.agent_report import PART, Report
from ari_app.records.audit import AuditFile
from ari_app.records.checkpoints import Checkpoints
from ari_app.records.document import call_document
from ari_app.records.forgetting import Forgetting
from ari_app.records.hiding import hide_in_part
from ari_app.records.journal import Journal, Listener
from ari_app.records.metrics import Metrics
from ari_app.records.publisher import CallPublisher
from ari_app.records.record import CallRecord
from ari_app.records.recording.archive import RecordingArchive, keep_recorded
from ari_app.records.spend.guard import SpendGuard
from ari_app.records.spend.limits import SpendAlert
from ari_app.records.store.log import CallLog, OnDelete
from ari_app.records.store.spool import Share
from ari_app.records.trace import read_traceparent
from ari_app.records.tracing import Tracing
from ari_app.records.webhooks.outbox import Outbox
from ari_app.records.webhooks.signing import secrets_of
from ari_app.settings import Settings
from ari_app.tools.http_config import process_environment
from ari_app.tools.http_tools import HttpTools
from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock
from linekit.listener import Networks

if TYPE_CHECKING:
    from ari_app.line.microphone import SoundCard
    from ari_app.records.otel import OtelSpans

log = structlog.get_logger(__name__)

_ASK_AGAIN_SECONDS = 1.0
# A database that is away does not keep a start waiting for longer.
_COUNT_SECONDS = 1.0
SOUND: Final = ("ari_app.audio.g711", "ari_app.audio.resample", "ari_app.audio.sound_file")
"""What works on samples."""

Way = TypeVar("Way", bound=Gateway)


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """The place of one worker among several.

    Attributes:
        number: Which one; from 1.
        folder: Where it meets its front.
    """

    number: int
    folder: Folder


def _load_sound() -> None:
    try:
        load_for_good(SOUND)
    except Exception:
        # Calls that need it fail; there is no other sign of why all of them do.
        log.exception("sound_not_loaded")


class VoiceBridge(Opened):
    """The service: ways in and out, the agents' client, the calls, the HTTP interface.

    `async with VoiceBridge(settings) as bridge: await bridge.run()` serves until `stop` is called.

    Args:
        settings: What it is told from outside.
        listeners: Who wants to know how calls go, beside the metrics.
        on_replaced: Called when another process has taken the application.
        card: The sound card, where calls are held with this machine's; None: a real one.
        http: Whether there is an HTTP interface.
        place: Its place among several workers; None: it is alone.
        checkpoints: Where what another process would need of each call is kept; None: nowhere.
        lost_apps: Applications in Asterisk of lost processes, in whose place nobody comes.
        goes_on: Calls of lost processes are gone on with; otherwise no more than told of.
        again: Another process has served before. What is only to keep something, a disk, may be
            away by now; nobody is refused for that, as while one serves.

    Attributes:
        gateways: The ways in and out.
        ari: Asterisk; only where it is a way in.
        lines: Where its sound comes in over AudioSocket; only where it may.
        call_log: What is kept of calls; None: nothing is.
        spend: What may be spent in a day; None: anything.
        audit: Where changes are written down; None: in the log alone.
    """

    ari: Client
    lines: AudioSocketServer

    def __init__(
        self,
        settings: Settings,
        listeners: Sequence[Listener] = (),
        *,
        on_replaced: Callable[[], None] = lambda: None,
        card: SoundCard | None = None,
        http: bool = True,
        place: WorkerPlace | None = None,
        checkpoints: Path | None = None,
        lost_apps: Sequence[str] = (),
        goes_on: bool = True,
        again: bool = False,
    ) -> None:
        super().__init__()
        self.settings = settings
        self._again = again
        self._place = place
        self.membership: Membership | None = None
        running = (state.value for state in State if state not in (State.NEW, State.ENDED))
        self.metrics = Metrics(("waiting", *running), KNOWN_CODES)
        self.call_log: CallLog | None = None
        self.spend: SpendGuard | None = None
        self.audit: AuditFile | None = None
        self._card = card
        self._with_http = http
        self.audiosocket_address = ("", 0)
        self.api_address = ("", 0)
        self.journal = Journal()
        # Before the call log, which has more to load, and more time.
        self.journal.listen(self._load_sound)
        for listener in (self.metrics.heard, *listeners):
            self.journal.listen(listener)
        self._ticks: FrameClock | None = None
        self._stopping = asyncio.Event()
        self._sound_loads = False
        self._ending = False
        self._told_not_allowed = False
        self._running = False
        self._http: HttpServer | WorkerServer | None = None
        self._on_replaced = on_replaced
        self._checkpoints_folder = checkpoints
        self._checkpoints: Checkpoints | None = None
        self._lost_apps = lost_apps
        self._goes_on = goes_on
        self._adoption: Adoption | None = None

    # --- life

    async def _start(self) -> None:
        """Bind the ports, and make what `run` needs.

        Raises:
            ConfigError: A port is taken, a folder cannot be written, or a setting cannot be used.
        """
        settings = self.settings
        settings.require_serving()
        await self._find_orphans()
        self.spans = await self._open_traces()
        self.outbox = await self._open_outbox()
        if settings.database_url:
            self.call_log = await self._open_call_log()
        if self.call_log is not None or self.outbox is not None:
            document = functools.partial(call_document, what_to_hide=settings.hidden)
            self.journal.listen(CallPublisher(document, self.call_log, self.outbox).heard)
        self.spend = await self._guard_spend()
        self.recordings = self._open_recordings()
        records = self.recordings is not None and settings.record_calls != "none"

        self.agents = await self._exit.enter_async_context(agent_client(settings))
        account = self.agents.account
        self.metrics.watch_account(lambda: account.account)
        self.gateways: list[Gateway] = []
        for name in settings.ways_in:
            gateway = await self._gateway(name)
            self._exit.push_async_callback(gateway.close)
            self.gateways.append(gateway)
        asterisk = self.way_in(AsteriskGateway)
        http_tools = await self._exit.enter_async_context(
            HttpTools.load(settings.tools_file, settings.env_file)
        )
        planner = Planner(
            PlannerOptions(
                agent_id=settings.elevenlabs_agent_id,
                call_timeout_seconds=settings.call_timeout_seconds,
                connect_timeout_seconds=settings.agent_connect_timeout_seconds,
                chunk_ms=settings.chunk_ms,
                recorded=settings.record_calls == "all",
            ),
            self.agents,
            await self._open_precall(),
            lambda: self.calls.count(),
            self.journal.note,
        )
        services = Services(
            agents=self.agents,
            journal=self.journal,
            policy=settings.call_policy(),
            http_tools=http_tools,
            loss_sound=require_sound(settings.agent_loss_sound),
            recordings=self.recordings if records else None,
            begin_trace=read_traceparent if self.spans is None else self.spans.begin,
            announcements=require_announcements(settings),
            checkpoints=None if self._adoption is None else self._adoption.checkpoints,
        )
        membership = self._join()
        self.calls = Calls(
            services,
            planner,
            max_concurrent_calls=settings.max_concurrent_calls,
            calls_per_second=settings.outbound_calls_per_second,
            queue_size=settings.outbound_queue_size,
            give_up=_nothing if asterisk is None else asterisk.abandon,
            quota=_no_limit if self.spend is None else self.spend.quota,
            admission=None if membership is None else membership.admission,
            on_known=_known_to_nobody if membership is None else membership.known,
        )
        self._exit.push_async_callback(self.calls.close)
        self.metrics.calls_limit.set(settings.max_concurrent_calls)
        self.metrics.calls_queued.set_function(lambda: self.calls.admission.waiting)
        self.metrics.ready.set_function(lambda: not self.readiness().problems)
        self.control = CallControl(
            self.calls,
            self.gateways,
            planner,
            services.policy,
            asyncio.get_running_loop().time,
            dialer_holds=settings.dialer_holds_calls,
            mark=(lambda token: token) if membership is None else membership.mark,
            on_refused=self.metrics.call_refused,
        )
        if membership is not None:
            membership.serve(self.calls)
            if self.spend is not None:
                membership.count(self.spend)
            linking = asyncio.create_task(membership.run(), name="front")
            self._exit.push_async_callback(cancelled, linking)
        if self.recordings is not None:
            watching = asyncio.create_task(self.recordings.run(), name="recordings")
            self._exit.push_async_callback(cancelled, watching)
            # Of several machines others may have them, and of several workers one tells.
            is_one = self._place is None or self._place.number == 1
            if self.call_log is not None and is_one and settings.cluster_url is None:
                missing = tell_if_missing(self.recordings, self.call_log)
                looking = asyncio.create_task(missing, name="missing recordings")
                self._exit.push_async_callback(cancelled, looking)
        if self._with_http:
            await self._start_http()

    async def _open_traces(self) -> OtelSpans | None:
        if self.settings.otel_traces_exporter == "none":
            return None
        # It costs a second and 15 MB, and most do without.
        from ari_app.records.otel import OtelSpans

        spans = OtelSpans(process_environment(self.settings.env_file))
        self.metrics.watch_traces(spans.stats)
        self.journal.listen(Tracing(spans, asyncio.get_running_loop().time).heard)
        return await self._exit.enter_async_context(spans)

    def _load_sound(self, *heard: object) -> None:
        """Load what works on samples, for the first call has come; until it has an agent there is
        time. A service without a call saves 8 MB."""
        if not self._sound_loads:
            self._sound_loads = True
            threading.Thread(target=_load_sound, name="load sound", daemon=True).start()

    def _join(self) -> Membership | None:
        """Take the place among several workers, if there are several."""
        place = self._place
        if place is None:
            return None
        membership = self.membership = Membership(
            place.number, self.settings.ari_app, place.folder.front, self._takes_calls
        )
        self.journal.listen(membership.heard)
        self._exit.callback(membership.close)
        membership.on_forget = self._follow_deletions().put
        if self.call_log is not None:
            self.call_log.on_delete.append(membership.deleted)
        return membership

    def _follow_deletions(self) -> Forgetting:
        """Remove what there is here of calls that others delete."""
        hooks = [] if self.recordings is None else [self.recordings.delete]
        forgetting = Forgetting([*hooks, self._forget_webhooks()])
        task = asyncio.create_task(forgetting.run(), name="deletions elsewhere")
        self._exit.push_async_callback(cancelled, task)
        return forgetting

    def _takes_calls(self) -> bool:
        return self._running and any(gateway.connected for gateway in self.gateways)

    def _take(self, arrival: Arrival) -> None:
        taking, membership = self.calls.take(arrival), self.membership
        if membership is not None:
            line_id = arrival.line.id
            taking.add_done_callback(lambda _: membership.taken_in(line_id))

    def _open_recordings(self) -> RecordingArchive | None:
        settings = self.settings
        if settings.recordings_dir is None:
            # Of several machines another one may have them.
            if self.call_log is not None and settings.cluster_url is None:
                self.call_log.on_delete.insert(0, keep_recorded)
            return None
        if not self._again:
            require_recordings(settings.recordings_dir)
        require_encoder(settings.recordings_format)
        publisher = RecordingPublisher(
            lambda: self.calls,
            functools.partial(call_document, what_to_hide=settings.hidden),
            self.call_log,
            self.outbox,
        )
        recordings = RecordingArchive(
            settings.recordings_dir,
            kind=settings.recordings_format,
            on_change=publisher.changed,
            hides_numbers="numbers" in settings.hidden,
            warn_below_bytes=room_of_an_hour(settings),
        )
        if self.call_log is not None:
            self.call_log.on_delete.append(recordings.delete)
        self._exit.push_async_callback(publisher.all_told)
        self._exit.push_async_callback(recordings.close)
        self.metrics.watch_recordings(recordings)
        return recordings

    async def _open_call_log(self) -> CallLog:
        settings = self.settings
        call_log = CallLog(
            settings.database_url,
            journal=settings.records_journal_dir,
            keep_days=settings.records_keep_days,
            on_delete=[self._forget_webhooks()],
            on_lost=[] if self.outbox is None else [self.outbox.ended],
            share=Share(settings.worker, settings.workers) if settings.worker else None,
            told_of=[] if self._adoption is None else self._adoption.session_ids,
        )
        self.metrics.watch_call_log(call_log.counts)
        return await self._exit.enter_async_context(call_log)

    async def _guard_spend(self) -> SpendGuard | None:
        limits, call_log = self.settings.spend_limits(), self.call_log
        if not limits or call_log is None:
            return None
        guard = SpendGuard(
            limits,
            call_log,
            asyncio.get_running_loop().time,
            # One of several tells: all know the same.
            tell=self._spend if self._place is None or self._place.number == 1 else None,
            on_counted=self._counted,
        )
        # After what keeps calls: it counts a call until the log has it.
        self.journal.listen(guard.heard)
        self._exit.callback(guard.close)
        self.metrics.watch_spend(guard)
        # Callers who are to be gone on with do not wait for it.
        if self._adoption is None or not self._adoption.waiting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_COUNT_SECONDS):
                    await guard.ask()
        counting = asyncio.create_task(guard.run(), name="spend")
        self._exit.push_async_callback(cancelled, counting)
        return guard

    def _counted(self) -> None:
        if self.membership is not None:
            self.membership.spent()

    def _spend(self, alert: SpendAlert) -> None:
        if self.outbox is not None:
            self.outbox.spent(alert)

    async def _gateway(self, name: str) -> Gateway:
        # Each way in is loaded where it is one.
        match name:
            case "local":
                from ari_app.line.microphone import MicrophoneGateway, PortAudio

                card = self._card or PortAudio(self.settings.local_audio_device)
                return MicrophoneGateway(card)
            case "custom":
                from ari_app.line.dialer.gateway import DialerGateway

                api = dialer_api(self.settings, self.metrics.dialer_failed)
                return DialerGateway(
                    self._clock(),
                    await self._exit.enter_async_context(api),
                    self.metrics.dialer_refused,
                )
            case "twilio":
                from ari_app.line.twilio.gateway import TwilioGateway
                from ari_app.line.twilio.signature import Signatures

                options, tokens = self.settings.twilio_options(), self.settings.twilio_tokens
                return TwilioGateway(
                    options,
                    twilio_client(self.settings),
                    Signatures(options.public_url, tokens),
                    self._clock(),
                    self.metrics.twilio_refused,
                )
            case _:
                return await self._asterisk()

    def way_in(self, kind: type[Way]) -> Way | None:
        """Return the way in of this kind; None: there is none."""
        return next((each for each in self.gateways if isinstance(each, kind)), None)

    def _clock(self) -> FrameClock:
        """Return the one clock of all lines."""
        if self._ticks is None:
            self._ticks = FrameClock(stats=self.metrics.ticks)
            self._ticks.start()
            self._exit.callback(self._ticks.stop)
        return self._ticks

    async def _asterisk(self) -> AsteriskGateway:
        settings = self.settings
        if settings.has_audiosocket:
            await self._open_audiosocket()
        self.ari = await self._exit.enter_async_context(ari_client(settings))
        self.ari.rest.on_done = self.metrics.ari_asked
        return AsteriskGateway(
            self.ari,
            self._clock(),
            self.lines if settings.has_audiosocket else None,
            settings.asterisk_options(self._target()),
            on_state=self._ari_changed,
            on_moved=self._was_moved,
        )

    async def _open_audiosocket(self) -> None:
        settings = self.settings
        lines = self.lines = AudioSocketServer(
            self._clock(),
            allow=Networks(settings.audiosocket_allow),
            limits=settings.audiosocket_limits(),
            on_refused=self._connection_refused,
        )
        self.metrics.lines.set_function(lambda: lines.lines + lines.expected)
        self.audiosocket_address = await _listen(
            lines.start, settings.audiosocket_bind, "AUDIOSOCKET_BIND"
        )
        self._exit.push_async_callback(lines.close)

    def _connection_refused(self, reason: str, peer: str) -> None:
        self.metrics.connection_refused(reason)
        if reason == "not_allowed" and not self._told_not_allowed:
            # Once: strangers may come by the thousand, and the metric counts them.
            self._told_not_allowed = True
            log.warning(
                "audiosocket_not_allowed", peer=peer, note="AUDIOSOCKET_ALLOW does not have it"
            )

    async def asterisk_answers(self) -> bool:
        """Wait until Asterisk answers, be it with a refusal; False when `stop` comes first.

        To be done before `run`; without Asterisk there is nothing to wait for.
        """
        if not self.settings.has_asterisk:
            return not self._stopping.is_set()
        said = False
        while not self._stopping.is_set():
            try:
                await self.ari.asterisk.get_info()
            except AriError as error:
                if not error.retryable:
                    return True
                if not said:
                    log.warning("asterisk_awaited", url=self.settings.ari_url, error=str(error))
                    said = True
            else:
                return True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _ASK_AGAIN_SECONDS)
        return False

    async def run(self) -> None:
        """Take calls until `stop`; then refuse new ones and let the running ones finish.

        Raises:
            ConfigError: Asterisk refuses our name or password, or lets us only read.
        """
        ways = [
            asyncio.create_task(gateway.run(self._take), name=f"way in: {gateway.name}")
            for gateway in self.gateways
        ]
        stop = asyncio.create_task(self._stopping.wait(), name="stop")
        agents = asyncio.create_task(self.agents.watch(), name="agents")
        lag = asyncio.create_task(self.metrics.watch_loop(), name="loop lag")
        settle_memory()
        leftovers = asyncio.create_task(
            collect_leftovers(lambda: not self.calls.count()), name="leftovers"
        )
        share_interpreter()
        self._running = True
        if self.membership is not None:
            self.membership.room_changed()
        try:
            await asyncio.wait([*ways, stop], return_when=asyncio.FIRST_COMPLETED)
            for error in [way.exception() for way in ways if way.done()]:
                if error is None:
                    continue
                await self.calls.drain(0)
                if isinstance(error, AriUnauthorized):
                    raise ConfigError(unauthorized(self.settings, error)) from None
                raise error
            if self.membership is not None and not self._ending:
                await self.membership.leave()
            await self.calls.drain(0 if self._ending else self.settings.drain_timeout_seconds)
        finally:
            await cancelled(stop, agents, lag, leftovers, *ways)

    def stop(self) -> None:
        """Begin to stop: see `run`. Said again, it ends the calls that still run."""
        if self._stopping.is_set():
            self.end_calls()
        self.drain()

    def drain(self) -> None:
        """Begin to stop: see `run`. Said again, it changes nothing."""
        self._stopping.set()

    def end_calls(self) -> None:
        """Stop at once: the callers go on in the dialplan as `FAILED`."""
        self._ending = True
        self._stopping.set()
        if self._running:
            self.calls.end_all("shutting_down")

    def leave_ports(self) -> None:
        """Stop listening, so that another process can; the lines that are up stay."""
        if self._running:
            if self.settings.has_audiosocket:
                self.lines.stop_listening()
            if self._with_http and self._http is not None:
                self._http.stop_listening()

    async def mend(self, *, expected: bool) -> None:
        """Go on with the calls of a process that is no more, as far as that is possible, and give
        back what else it has left; to be done before `run`.

        Args:
            expected: There was one.
        """
        adoption = self._adoption
        adopting = adoption is not None and (expected or adoption.waiting)
        if adoption is not None:
            await adoption.adopt(self.calls, self.gateways, self.recordings)
        for gateway in self.gateways:
            await gateway.mend(expected=expected, adopting=adopting)
        for app in self._lost_apps:
            async with ari_client(self.settings, app) as ari:
                # Who is in that of the dialplan is given to a worker by the front.
                front = self.settings.ari_app.startswith(f"{app}.")
                mender = Mender(ari, app, self.settings.amd_context)
                await mender.mend(expected=True, callers=not front)

    async def give_calls_up(self) -> None:
        """End the records of calls that cannot be gone on with, and tell of them."""
        if self._adoption is not None:
            await self._adoption.give_up(self.recordings)

    async def _find_orphans(self) -> None:
        """Read the calls that lost processes have left."""
        if self._checkpoints_folder is None:
            return
        checkpoints = self._checkpoints = Checkpoints(
            self._checkpoints_folder,
            foreign=[self._checkpoints_folder.with_name(app) for app in self._lost_apps],
            stall_seconds=self.settings.worker_stall_seconds,
        )
        adoption = Adoption(
            checkpoints,
            self.journal,
            goes_on=self._goes_on,
            on_refused=lambda reason: self.metrics.calls_not_adopted.labels(reason).inc(),
        )
        try:
            self._adoption = await self._exit.enter_async_context(adoption)
        except OSError as error:
            log.error("calls_not_kept", folder=str(checkpoints.folder), error=error.strerror)

    def _forget_webhooks(self) -> OnDelete:
        """Return what deletes the webhooks of a call, also those of before they were given up."""
        if self.outbox is not None:
            return self.outbox.forget
        from ari_app.records.webhooks.spool import forget_in

        return functools.partial(forget_in, self.settings.webhook_spool)

    async def _open_outbox(self) -> Outbox | None:
        options = self.settings.outbox_options()
        if options is None:
            return None
        outbox = await self._exit.enter_async_context(Outbox(options, again=self._again))
        self.metrics.watch_webhooks(outbox)
        return outbox

    async def deliveries(self, session_id: str) -> list[dict[str, Any]]:
        """Return what others were told of a call, and whether they have it."""
        return [] if self.outbox is None else await self.outbox.of_call(session_id)

    def _keep_report(self, report: Report) -> None:
        if self.call_log is not None:
            value = hide_in_part(PART, report.value, self.settings.hidden)
            self.call_log.amend_conversation(report.conversation_id, PART, value)

    def _take_reports(self) -> Sequence[web.RouteDef]:
        """Take, or ask for, what the agent's service says of conversations that are over."""
        settings, secret = self.settings, self.settings.elevenlabs_webhook_secret
        if self.call_log is None:
            return []
        if settings.elevenlabs_fetch_reports:
            fetcher = ReportFetcher(self.agents.conversation, self._keep_report)
            self._exit.push_async_callback(fetcher.close)
            self.journal.listen(fetcher.heard)
        if secret is None:
            return []
        secrets = secrets_of(secret.get_secret_value())
        return AgentWebhook(secrets, self._keep_report, self.metrics.agent_webhook).routes

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

    def _open_audit(self) -> None:
        if self.settings.audit_file is not None:
            self.audit = AuditFile(self.settings.audit_file)
            self.audit.open(again=self._again)
            self._exit.push_async_callback(asyncio.to_thread, self.audit.close)
            self.metrics.watch_audit(self.audit)

    async def _start_http(self) -> None:
        self._open_audit()
        routes = [
            *(route for gateway in self.gateways for route in gateway.routes),
            *self._take_reports(),
        ]
        if self._place is None:
            await self._start_own_http(routes)
        else:
            await self._start_worker_http(self._place, routes)
        # Streams of events end before the server waits for its requests to end.
        self._exit.callback(self.journal.close)

    async def _start_worker_http(self, place: WorkerPlace, routes: Sequence[web.RouteDef]) -> None:
        """Serve the front, which has checked who asks."""
        app = build_worker_app(
            self,
            public_url=self.settings.api_public_url,
            number_pattern=self.settings.number_pattern,
            routes=routes,
            audit_file=self.audit,
            hidden=self.settings.hidden,
        )
        server = self._http = WorkerServer(app)
        self._exit.push_async_callback(server.close)
        folder, number = place.folder, place.number
        await server.start(folder.http(number), folder.passed(number))

    async def _start_own_http(self, routes: Sequence[web.RouteDef]) -> None:
        secret = self.settings.api_key
        keys = Keys.of(
            None if secret is None else secret.get_secret_value(), self.settings.api_keys_file
        )
        rates = RequestRates(self.settings.api_requests_per_second)
        app = build_web_app(
            self,
            keys=keys,
            sign_in_seconds=self.settings.page_sign_in_hours * 3600,
            public_url=self.settings.api_public_url,
            number_pattern=self.settings.number_pattern,
            rates=rates,
            audit_file=self.audit,
            hidden=self.settings.hidden,
            price=self.settings.agent_price_per_minute,
            routes=routes,
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
        if not keys:
            log.info(
                "api_without_key", note="only this machine can reach it", at=self.settings.api_bind
            )

    # --- Asterisk

    def _was_moved(self, channel: str) -> None:
        if self.membership is not None:
            self.membership.entered(channel)

    def _ari_changed(self, state: str) -> None:
        self.metrics.ari_connected.set(state == "connected")
        if self.membership is not None:
            self.membership.room_changed()
        if state == "replaced":
            self._on_replaced()

    def _target(self) -> str:
        if self.settings.audiosocket_advertise is not None:
            return self.settings.audiosocket_advertise
        return join_host(*self.audiosocket_address)

    # --- ServiceView

    def readiness(self) -> Readiness:
        """Say whether new calls are taken."""
        problems = [text for gateway in self.gateways for text in gateway.problems()]
        problems += self.agents.problems()
        for each in (self.call_log, self.outbox):
            problems += [] if each is None else each.problems()
        if self.calls.draining:
            problems.append("draining: new calls are refused")
        asterisk = self.way_in(AsteriskGateway)
        version = None if asterisk is None else asterisk.asterisk.version
        return Readiness(
            status="not_ready" if problems else "ready",
            problems=problems,
            warnings=[
                text
                for each in (
                    *(self.agents, self.call_log, self.recordings, self.outbox),
                    *(self.spend, self.audit, self._checkpoints),
                )
                if each is not None
                for text in each.warnings()
            ],
            active_sessions=self.calls.count(),
            asterisk_version=version.version.text if version and version.version else None,
            media_transport=None if asterisk is None else asterisk.media_transport,
        )


def _known_to_nobody(session_id: str, record: CallRecord | None) -> None:
    """Do nothing: this process is alone."""


def _nothing() -> None:
    """Do nothing: nothing waits for a far end that is away."""


def _no_limit(agent_id: str) -> None:
    """Let every call begin: there is no limit of a day."""


async def _listen(
    start: Callable[[str, int], Awaitable[tuple[str, int]]], address: str, setting: str
) -> tuple[str, int]:
    try:
        return await start(*split_host_port(address))
    except OSError as error:
        raise cannot_listen(setting, address, error) from None
