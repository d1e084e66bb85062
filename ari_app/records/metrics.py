"""The metrics for Prometheus. Labels hold slugs and codes, never a number or a name of a person."""

from __future__ import annotations

import asyncio
import platform
import re
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator
from functools import cache, partial
from itertools import accumulate
from typing import Protocol
from weakref import WeakSet

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from ari_app import __version__
from ari_app.process import logs
from ari_app.process.beat import seconds_to_beat
from ari_app.records.audit import AuditFile
from ari_app.records.events import (
    Adopted,
    AgentClosed,
    AgentConnected,
    AgentLost,
    AgentNotReached,
    AgentResumed,
    CallEnded,
    CallerInterrupted,
    CallEvent,
    Responded,
    StateChanged,
    StepTook,
    TakenOver,
    TakeOverFailed,
)
from ari_app.records.record import CallRecord, Listener, TakeOver
from ari_app.records.recording.archive import RecordingArchive
from ari_app.records.spend.guard import SpendGuard
from ari_app.records.store.spool import Counts
from ari_app.records.tracing import SpanStats
from ari_app.records.webhooks.outbox import Outbox
from linekit.clock import LATE_BOUNDS_SECONDS, TickStats

_LAG_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_CONNECT_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
_BARGE_IN_SECONDS = (0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
_ARI_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_RESPONSE_SECONDS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)
# Each reason is a time series of its own, for ever.
_MAX_REASONS = 50
_MAX_AGENTS = 100
_AGENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOGETHER = ("talking", "greeting")
_SLUG = re.compile(r"[a-z]+(_[a-z]+)*")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _KeptElsewhere(Collector):
    """A number that others keep, also in threads of theirs."""

    def __init__(
        self,
        family: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        documentation: str,
        read: Callable[[], float | None],
    ) -> None:
        self._family = family
        self._name = name
        self._documentation = documentation
        self._read = read

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        value = self._read()
        if value is None:
            # Nobody knows it; a series without a value would spoil every sum.
            yield self._family(self._name, self._documentation)
        else:
            yield self._family(self._name, self._documentation, value)


class _Lateness(Collector):
    """How late a clock is; it counts that itself, for it ticks hundreds of times a second."""

    def __init__(self, ticks: TickStats) -> None:
        self._ticks = ticks

    def collect(self) -> Iterator[HistogramMetricFamily]:
        bounds = [*map(str, LATE_BOUNDS_SECONDS), "+Inf"]
        yield HistogramMetricFamily(
            "ari_app_frame_lateness_seconds",
            "How late the clock wrote the frames of all calls.",
            buckets=list(zip(bounds, accumulate(self._ticks.late), strict=True)),
            sum_value=self._ticks.late_seconds,
        )


class _Collected(Collector):
    """One metric, as it has been collected."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


class Allowance(Protocol):
    """What a service still allows; None: it is not told."""

    @property
    def used(self) -> int | None: ...

    @property
    def limit(self) -> int | None: ...

    @property
    def ratio(self) -> float | None: ...

    @property
    def at_once(self) -> int | None: ...


class Metrics:
    """The service's metrics, in a registry of their own; `heard` is a listener of the journal.

    Args:
        states: The states that a call can be in, for gauges that begin at 0.
        close_codes: The close codes of agents that are counted each for itself.
        clock: The one that records of calls go by.
    """

    def __init__(
        self,
        states: Iterable[str] = (),
        close_codes: Container[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._close_codes = close_codes
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        Gauge(
            "ari_app_build_info",
            "1, with the versions of ari-app and Python as labels.",
            ["version", "python"],
            registry=self.registry,
        ).labels(__version__, platform.python_version()).set(1)
        self.ready = Gauge(
            "ari_app_ready",
            "Whether new calls are taken: what /health/ready says.",
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "ari_app_loop_lag_seconds",
            "How late the event loop gave a timer its turn; looked at four times a second.",
            buckets=_LAG_SECONDS,
            registry=self.registry,
        )
        Gauge(
            "ari_app_tasks", "Tasks of the event loop that are not done.", registry=self.registry
        ).set_function(_count_tasks)
        Gauge(
            "ari_app_allocated_blocks",
            "Memory blocks that Python has allocated.",
            registry=self.registry,
        ).set_function(sys.getallocatedblocks)
        self.lines = Gauge(
            "ari_app_audiosocket_lines",
            "AudioSocket connections of calls, and those that are expected.",
            registry=self.registry,
        )
        self.calls = Gauge("ari_app_calls", "Calls by state.", ["state"], registry=self.registry)
        # What each call counts by a few labels again and again.
        self._in_state = cache(self.calls.labels)
        self.calls_limit = Gauge(
            "ari_app_calls_limit",
            "How many calls may run at once: MAX_CONCURRENT_CALLS.",
            registry=self.registry,
        )
        self.calls_queued = Gauge(
            "ari_app_calls_queued",
            "Requests for a call that wait for room: OUTBOUND_QUEUE_SIZE.",
            registry=self.registry,
        )
        self.calls_refused = Counter(
            "ari_app_calls_refused",
            "Requests for a call that were not granted, by reason; callers who came in and were "
            "refused are among the calls that have ended.",
            ["reason"],
            registry=self.registry,
        )
        self.setup = Histogram(
            "ari_app_setup_seconds",
            "From the arrival of a call that came in to caller and agent being together.",
            buckets=_CONNECT_SECONDS,
            registry=self.registry,
        )
        self.calls_total = Counter(
            "ari_app_calls_ended",
            "Calls that have ended, by AGENT_STATUS and reason.",
            ["status", "reason"],
            registry=self.registry,
        )
        # increase() does not see what a series begins with, so that the first one would raise no
        # alert: what deploy/observability asks for by name is there as 0 from the start.
        for reason in ("at_capacity", "quota"):
            self.calls_total.labels("REJECTED", reason)
        self.call_seconds = Counter(
            "ari_app_call_seconds", "Seconds that ended calls have lasted.", registry=self.registry
        )
        self.agent_seconds = Counter(
            "ari_app_agent_seconds",
            "Seconds that agents were in calls, by agent, once they have left; a call may have "
            "had several.",
            ["agent"],
            registry=self.registry,
        )
        self.refused = Counter(
            "ari_app_audiosocket_refused",
            "AudioSocket connections that were refused, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.dialer_refused_total = Counter(
            "ari_app_dialer_refused",
            "WebSockets of dialers that were refused, closed or warned for what they sent, by "
            "reason.",
            ["reason"],
            registry=self.registry,
        )
        self.agent_webhooks_total = Counter(
            "ari_app_agent_webhooks",
            "Webhooks of the agent's service: kept, ignored, or why they were refused.",
            ["result"],
            registry=self.registry,
        )
        self.dialer_failures = Counter(
            "ari_app_dialer_failures",
            "What was asked of a dialer (audio, connect, hangup) and failed, by reason.",
            ["request", "reason"],
            registry=self.registry,
        )
        self.twilio_refused_total = Counter(
            "ari_app_twilio_refused",
            "Requests and streams that were not Twilio's or could not be used, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.http_refused = Counter(
            "ari_app_http_refused",
            "HTTP connections and requests that were refused, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.ticks = TickStats()
        self.registry.register(_Lateness(self.ticks))
        self._watch(
            "ari_app_frame_ticks_skipped",
            "Frame times that a stall of this process has swallowed.",
            lambda: self.ticks.skipped,
        )
        self.underruns = Counter(
            "ari_app_playout_underruns",
            "Times that a response ran dry in its middle.",
            registry=self.registry,
        )
        self.backpressure = Counter(
            "ari_app_frames_not_read",
            "Frames that were left out because Asterisk did not read.",
            registry=self.registry,
        )
        self.filled_seconds = Counter(
            "ari_app_uplink_filled_seconds",
            "Silence given to agents where phones sent nothing.",
            registry=self.registry,
        )
        self.surplus_seconds = Counter(
            "ari_app_uplink_surplus_seconds",
            "Sound that phones sent beyond the time that had passed, which was dropped.",
            registry=self.registry,
        )
        self.interruptions = Counter(
            "ari_app_interruptions",
            "Times that callers interrupted agents.",
            registry=self.registry,
        )
        self.barge_in = Histogram(
            "ari_app_barge_in_seconds",
            "From the agent's word of an interruption to silence on the line; of ended calls.",
            buckets=_BARGE_IN_SECONDS,
            registry=self.registry,
        )
        self.response = Histogram(
            "ari_app_response_seconds",
            "From the end of a caller's speech to the first sound of the answer.",
            buckets=_RESPONSE_SECONDS,
            registry=self.registry,
        )
        self.agent_connect = Histogram(
            "ari_app_agent_connect_seconds",
            "From a call's start to the agent being ready.",
            buckets=_CONNECT_SECONDS,
            registry=self.registry,
        )
        self.step_seconds = Histogram(
            "ari_app_setup_step_seconds",
            "What the steps of a call's beginning take: precall, agent, media, answer.",
            ["step"],
            buckets=_CONNECT_SECONDS,
            registry=self.registry,
        )
        self._of_step = cache(self.step_seconds.labels)
        self.agent_connect_failures = Counter(
            "ari_app_agent_connect_failures",
            "Conversations that did not come about, by reason; second attempts are not counted.",
            ["reason"],
            registry=self.registry,
        )
        for reason in ("agent_limit", "agent_quota"):
            self.agent_connect_failures.labels(reason)
        self.agent_lost_total = Counter(
            "ari_app_agent_losses",
            "Calls whose agent was lost in their middle and for which another was dialled.",
            registry=self.registry,
        )
        self.take_overs = Counter(
            "ari_app_take_overs",
            "Supervisors who were called to take a call over, by what became of it.",
            ["result"],
            registry=self.registry,
        )
        self.taken_over_seconds = Counter(
            "ari_app_taken_over_seconds",
            "How long supervisors spoke with callers, of calls that have ended.",
            registry=self.registry,
        )
        self.listened_seconds = Counter(
            "ari_app_listened_seconds",
            "How long supervisors listened, of calls that have ended.",
            registry=self.registry,
        )
        self.agent_gap = Histogram(
            "ari_app_agent_gap_seconds",
            "From the loss of an agent to the first word of the one in its place.",
            buckets=_CONNECT_SECONDS,
            registry=self.registry,
        )
        self.agent_closed_total = Counter(
            "ari_app_agent_closes",
            "Closed agent sockets by WebSocket close code, if it is known, and what it means.",
            ["code", "kind"],
            registry=self.registry,
        )
        self.ari_connected = Gauge(
            "ari_app_ari_connected",
            "Whether Asterisk's event socket is connected.",
            registry=self.registry,
        )
        self.calls_adopted = Counter(
            "ari_app_calls_adopted",
            "Calls whose worker was lost and that this one went on with.",
            registry=self.registry,
        )
        self.calls_not_adopted = Counter(
            "ari_app_calls_not_adopted",
            "Calls whose worker was lost and that nobody could go on with, by the reason.",
            ["reason"],
            registry=self.registry,
        )
        for reason in ("stale", "poison", "unreadable", "line", "draining"):
            self.calls_not_adopted.labels(reason)
        self.adoption = Histogram(
            "ari_app_adoption_seconds",
            "From the last sign of life of a lost worker to when its call was gone on with.",
            buckets=(0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 15),
            registry=self.registry,
        )
        self.ari_seconds = Histogram(
            "ari_app_ari_request_seconds",
            "How long Asterisk took for requests of ours, by HTTP method; failed ones too.",
            ["method"],
            buckets=_ARI_SECONDS,
            registry=self.registry,
        )
        self._of_method = cache(self.ari_seconds.labels)
        self.ari_failures = Counter(
            "ari_app_ari_request_failures",
            "Requests that Asterisk has refused or not answered, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.restarts = Counter(
            "ari_app_worker_restarts",
            "Times that a worker was started in place of one that was lost.",
            registry=self.registry,
        )
        Gauge(
            "ari_app_start_time_seconds",
            "When this worker started, as Unix time.",
            registry=self.registry,
        ).set_to_current_time()
        self._watch(
            "ari_app_log_lines_dropped", "Lines of the log that nobody took.", logs.lines_dropped
        )
        self._reasons: dict[str, set[str]] = {}
        self._agents: set[str] = set()
        self._states: dict[CallRecord, str] = {}
        self._waited: WeakSet[CallRecord] = WeakSet()
        for state in states:
            self.calls.labels(state).set(0)

    def _watch(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        self.registry.register(_KeptElsewhere(CounterMetricFamily, name, documentation, read))

    def _measure(self, name: str, documentation: str, read: Callable[[], float | None]) -> None:
        self.registry.register(_KeptElsewhere(GaugeMetricFamily, name, documentation, read))

    def watch_recordings(self, recordings: RecordingArchive) -> None:
        """Show what becomes of the recordings, too."""
        stats, encoder = recordings.stats, recordings.encoder
        self._watch("ari_app_recordings_saved", "Complete recordings.", lambda: stats.saved)
        self._watch(
            "ari_app_recordings_incomplete",
            "Recordings that lack something, or all.",
            lambda: stats.incomplete,
        )
        self._watch(
            "ari_app_recording_lost_seconds",
            "Audio of both voices that is in no recording.",
            lambda: stats.lost_seconds,
        )
        self._measure(
            "ari_app_recordings_free_bytes",
            "Room for recordings, as it was last looked at.",
            lambda: stats.free_bytes,
        )
        if encoder is not None:
            self._watch(
                "ari_app_recordings_not_encoded",
                "Recordings that stay WAV files, for they could not be encoded.",
                lambda: encoder.failed,
            )
            self._measure(
                "ari_app_recordings_to_encode",
                "Recordings that wait to be encoded.",
                lambda: encoder.waiting,
            )

    def watch_call_log(self, counts: Counts) -> None:
        """Show what becomes of the records of calls, too."""
        Gauge(
            "ari_app_records_backlog",
            "Records of calls, and what was told of them later, that the database does not have.",
            registry=self.registry,
        ).set_function(lambda: counts.backlog)
        self._watch("ari_app_records_written", "Calls that were kept.", lambda: counts.written)
        self._watch(
            "ari_app_records_lost", "Calls that could be kept nowhere.", lambda: counts.lost
        )

    def watch_account(self, account: Callable[[], Allowance | None]) -> None:
        """Show what the plan of the agent's service still allows, too, as far as it is told."""
        for name, documentation, read in (
            ("credits_used", "Credits that are used in this period.", "used"),
            ("credits_limit", "Credits of this period.", "limit"),
            ("credits_used_ratio", "How much of all that may be used is used, 1 is all.", "ratio"),
            ("conversations_limit", "Conversations that the plan allows at once.", "at_once"),
        ):
            self._measure(
                f"ari_app_agent_{name}",
                f"{documentation} The same for all that use the workspace.",
                lambda read=read: getattr(account(), read, None),  # type: ignore[misc]
            )

    def watch_audit(self, file: AuditFile) -> None:
        """Show what becomes of the audit file, too."""
        show_audit(self.registry, file)

    def watch_spend(self, guard: SpendGuard) -> None:
        """Show how much of the limits of a day is used, too."""
        used = Gauge(
            "ari_app_spend_limit_used_ratio",
            "How much of today's limits is used, 1 is all: of minutes or calls, of all agents "
            "together or of the single agent that is nearest to its limit.",
            ["scope", "of"],
            registry=self.registry,
        )
        for scope in ("together", "agent"):
            for of in ("minutes", "calls"):
                read = partial(guard.ratio, of, together=scope == "together")
                used.labels(scope, of).set_function(read)

    def watch_webhooks(self, outbox: Outbox) -> None:
        """Show what becomes of our webhooks, too."""
        stats = outbox.stats
        for name, documentation, read in (
            ("delivered", "Webhooks that a receiver has taken.", lambda: stats.delivered),
            ("failed", "Attempts to deliver a webhook that failed.", lambda: stats.failed),
            ("given_up", "Webhooks that were given up.", lambda: stats.dead),
            ("lost", "Webhooks that could not be kept, and were never sent.", lambda: outbox.lost),
        ):
            self._watch(f"ari_app_webhooks_{name}", documentation, read)
        for state in ("waiting", "dead"):
            Gauge(
                f"ari_app_webhooks_{state}",
                f"Webhooks in the spool that are {state}.",
                registry=self.registry,
            ).set_function(partial(getattr, outbox.counts, state))

    def watch_traces(self, stats: SpanStats) -> None:
        """Show what becomes of the spans of calls, too."""
        for name, documentation, read in (
            ("made", "Spans of calls.", lambda: stats.made),
            ("exported", "Spans that the collector has taken.", lambda: stats.exported),
            ("lost", "Spans that the collector has not taken.", lambda: stats.lost),
        ):
            self._watch(f"ari_app_spans_{name}", documentation, read)

    async def watch_loop(self, now: Callable[[], float] = time.monotonic) -> None:
        """Measure, until it is cancelled, how late the event loop is.

        Args:
            now: Seconds on a clock that goes on while the loop stands; uvloop's own does not.
        """
        loop = asyncio.get_running_loop()
        while True:
            pause = seconds_to_beat(loop.time())
            due = now() + pause
            await asyncio.sleep(pause)
            self.loop_lag.observe(max(now() - due, 0.0))

    def pieces(self) -> Iterator[bytes]:
        """Yield everything in Prometheus' text format, one metric after the other."""
        for family in self.registry.collect():
            yield generate_latest(_Collected(family))

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return b"".join(self.pieces())

    def connection_refused(self, reason: str) -> None:
        """Count a connection that the AudioSocket server has refused."""
        self.refused.labels(reason).inc()

    def dialer_refused(self, reason: str) -> None:
        """Count a dialer's WebSocket that was refused, closed or warned for what it has sent."""
        self.dialer_refused_total.labels(reason).inc()

    def agent_webhook(self, result: str) -> None:
        """Count a webhook of the agent's service by what became of it."""
        self.agent_webhooks_total.labels(result).inc()

    def dialer_failed(self, request: str, reason: str) -> None:
        """Count what was asked of a dialer and failed."""
        self.dialer_failures.labels(request, reason).inc()

    def twilio_refused(self, reason: str) -> None:
        """Count a request or a stream that is not Twilio's, or cannot be used."""
        self.twilio_refused_total.labels(reason).inc()

    def http_was_refused(self, reason: str) -> None:
        """Count an HTTP connection or request that was refused."""
        self.http_refused.labels(reason).inc()

    def ari_asked(self, method: str, result: str, seconds: float) -> None:
        """Count a request to Asterisk; `result` is `ok`, or why there is none."""
        self._of_method(method).observe(seconds)
        if result != "ok":
            self.ari_failures.labels(result).inc()

    def call_refused(self, reason: str) -> None:
        """Count a request for a call that was not granted."""
        self.calls_refused.labels(self._reason("", reason)).inc()

    # --- a listener of the journal

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        """Count what has happened in a call."""
        match event:
            case StateChanged(state):
                self._state_changed(record, state)
            case CallerInterrupted():
                self.interruptions.inc()
            case Responded(seconds):
                self.response.observe(seconds)
            case AgentConnected(_, seconds):
                self.agent_connect.observe(seconds)
            case StepTook(step, seconds, None):
                self._of_step(step).observe(seconds)
            case AgentNotReached(reason):
                self.agent_connect_failures.labels(reason).inc()
            case AgentLost():
                self.agent_lost_total.inc()
            case Adopted(seconds):
                self.calls_adopted.inc()
                self.adoption.observe(seconds)
            case AgentResumed(_, seconds):
                self.agent_gap.observe(seconds)
            case TakenOver():
                self.take_overs.labels("answered").inc()
            case TakeOverFailed(_, reason):
                self.take_overs.labels(reason).inc()
            case AgentClosed(code, reason):
                # The peer chooses it, and each is a time series of its own, for ever.
                known = str(code) if code in self._close_codes else "other"
                self.agent_closed_total.labels(known, reason).inc()
            case CallEnded():
                self._ended(record)
            case _:
                pass

    def _state_changed(self, record: CallRecord, state: str) -> None:
        before = self._states.pop(record, None)
        if before is not None:
            self._in_state(before).dec()
        if state != "ended":
            self._states[record] = state
            self._in_state(state).inc()
        if state == "waiting":
            # How long it takes until somebody names an agent is no time of ours.
            self._waited.add(record)
        is_ours = not record.placed and record not in self._waited
        if before == "joining" and state in _TOGETHER and is_ours:
            self.setup.observe(max(record.duration(self._clock()), 0.0))

    def _reason(self, status: str, reason: str) -> str:
        """Return the reason as a label. Who ends a call may give any word for it, or a number."""
        known = self._reasons.setdefault(status, set())
        if reason not in known:
            if not _SLUG.fullmatch(reason) or len(known) >= _MAX_REASONS:
                return "other"
            known.add(reason)
        return reason

    def _agent(self, agent_id: str) -> str:
        """Return an agent that there is as a label. Who asks for a call may name any."""
        if agent_id not in self._agents:
            if not _AGENT_ID.fullmatch(agent_id) or len(self._agents) >= _MAX_AGENTS:
                return "other"
            self._agents.add(agent_id)
        return agent_id

    def _ended(self, record: CallRecord) -> None:
        if record.agent_status is not None and record.end_reason is not None:
            reason = self._reason(record.agent_status, record.end_reason)
            self.calls_total.labels(record.agent_status, reason).inc()
        self.call_seconds.inc(record.seconds or 0.0)
        self.taken_over_seconds.inc(_seconds_of(record.take_overs))
        self.listened_seconds.inc(_seconds_of(record.listeners))
        if record.agent_seconds:
            self.agent_seconds.labels(self._agent(record.agent_id)).inc(record.agent_seconds)
        sound = record.sound
        self.underruns.inc(sound.underruns)
        self.filled_seconds.inc(sound.silence_filled_ms / 1000)
        self.surplus_seconds.inc(sound.surplus_ms / 1000)
        self.backpressure.inc(sound.frames_not_read)
        for milliseconds in sound.barge_in_ms:
            self.barge_in.observe(milliseconds / 1000)


def _seconds_of(parts: Iterable[TakeOver] | Iterable[Listener]) -> float:
    return sum((part.until or 0.0) - (part.began or 0.0) for part in parts)


def show_audit(registry: CollectorRegistry, file: AuditFile) -> None:
    """Show what becomes of an audit file."""
    counted, measured = CounterMetricFamily, GaugeMetricFamily
    for family, name, documentation, read in (
        (counted, "written", "Changes in the audit file.", lambda: file.written),
        (counted, "lost", "Changes that are in no audit file.", lambda: file.lost),
        (measured, "waiting", "Changes that wait for the disk.", lambda: file.waiting),
    ):
        registry.register(_KeptElsewhere(family, f"ari_app_audit_{name}", documentation, read))


def _count_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        # No loop runs: the metrics are looked at from outside of it.
        return 0
