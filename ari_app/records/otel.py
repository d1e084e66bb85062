"""Sends spans by OpenTelemetry's SDK. Imported only where OTEL_TRACES_EXPORTER asks for it.

The SDK reads its own standard variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT`. It has a bounded
queue and a thread that sends: a call only puts a span into the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import structlog

from ari_app import __version__
from ari_app.errors import ConfigError
from ari_app.records.trace import TraceContext, read_traceparent
from ari_app.records.tracing import Span, SpanStats

try:
    from opentelemetry import trace as api
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import Decision
except ImportError as error:
    raise ConfigError(
        "OTEL_TRACES_EXPORTER=otlp needs OpenTelemetry's packages, and "
        f"{error.name} is not installed. Install ari-app[otel]."
    ) from None

log = structlog.get_logger(__name__)

_CLOSE_SECONDS: Final = 3.0
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class OtelSpans:
    """Takes the spans of calls and sends them. Open it with `async with`.

    Args:
        environment: What `.env` and the environment say; names that begin with `OTEL_` are the
            SDK's.
        exporter: Sends; None: over OTLP/HTTP, to where the environment says.

    Raises:
        ConfigError: A variable of the SDK's cannot be used.
    """

    def __init__(
        self, environment: Mapping[str, str], exporter: SpanExporter | None = None
    ) -> None:
        # What they have to say of each attempt that fails is said here, once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self._ids = _Given()
        self.stats = SpanStats()
        try:
            with _reads(environment):
                self._exporter = _Telling(exporter or _otlp(), self.stats)
                self._provider = TracerProvider(id_generator=self._ids, shutdown_on_exit=False)
                self._processor = BatchSpanProcessor(self._exporter)
        except ValueError as error:
            raise ConfigError(f"OpenTelemetry's settings cannot be used: {error}.") from None
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("ari_app", __version__)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send what waits, for three seconds at most."""
        done = asyncio.get_running_loop().create_future()
        closing = threading.Thread(
            target=_close, args=(self._provider.shutdown, done), name="otel close", daemon=True
        )
        closing.start()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await done
        except TimeoutError:
            log.warning("traces_not_sent", note="the collector takes too long")

    def begin(self, traceparent: str, tracestate: str) -> TraceContext | None:
        """Give a call its place in the trace that it came with, or in one of its own."""
        caller = read_traceparent(traceparent, tracestate)
        trace_id = secrets.token_hex(16) if caller is None else caller.trace_id
        decided = self._provider.sampler.should_sample(
            None if caller is None else _parent(caller.trace_id, caller.span_id, caller),
            int(trace_id, 16),
            "call",
        )
        return TraceContext(
            trace_id,
            secrets.token_hex(8),
            decided.decision is Decision.RECORD_AND_SAMPLE,
            "" if caller is None else caller.state,
            "" if caller is None else caller.span_id,
        )

    def take(self, span: Span) -> None:
        """Put a span into the queue; never waits. Where that is full the oldest is lost."""
        context = span.context
        self._ids.trace_id, self._ids.span_id = int(context.trace_id, 16), int(context.span_id, 16)
        kind = api.SpanKind.CLIENT if span.placed else api.SpanKind.SERVER
        made = self._tracer.start_span(
            span.name,
            _parent(context.trace_id, context.parent_id, context, is_remote=span.of_call)
            if context.parent_id
            else api.set_span_in_context(api.INVALID_SPAN),
            kind if span.of_call else api.SpanKind.INTERNAL,
            dict(span.attributes),
            start_time=_nanoseconds(span.began),
        )
        for mark in span.marks:
            made.add_event(mark.name, timestamp=_nanoseconds(mark.at))
        if span.error is not None:
            made.set_status(api.StatusCode.ERROR, span.error)
        made.end(_nanoseconds(span.until))
        self.stats.made += 1


class _Given(IdGenerator):
    """Gives a span the ids that it has already: others were told them before it was over."""

    trace_id = span_id = 1

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Telling(SpanExporter):
    """Says once that the collector does not take spans, and once that it does again."""

    def __init__(self, exporter: SpanExporter, stats: SpanStats) -> None:
        self._exporter = exporter
        self._stats = stats
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            self._failed(len(spans), type(error).__name__)
            return SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._stats.exported += len(spans)
            if self._fails:
                log.info("traces_sent_again")
            self._fails = False
        else:
            self._failed(len(spans), "it does not answer, or refuses them")
        return result

    def _failed(self, spans: int, why: str) -> None:
        self._stats.lost += spans
        if not self._fails:
            log.warning("traces_not_sent", note=f"the collector: {why}", lost=spans)
        self._fails = True

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


@contextlib.contextmanager
def _reads(environment: Mapping[str, str]) -> Iterator[None]:
    """Let the SDK find its variables, which it looks for in the process's environment alone."""
    before = dict(os.environ)
    os.environ.update({name: env for name, env in environment.items() if name.startswith("OTEL_")})
    if "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        os.environ.setdefault("OTEL_SERVICE_NAME", "ari-app")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _otlp() -> SpanExporter:
    for name in _PROTOCOLS:
        if (protocol := os.environ.get(name, "http/protobuf")) != "http/protobuf":
            raise ConfigError(f"{name} {protocol} cannot be used here: only http/protobuf can.")
    return OTLPSpanExporter()


def _parent(trace_id: str, span_id: str, context: TraceContext, *, is_remote: bool = True) -> Any:
    flags = api.TraceFlags(api.TraceFlags.SAMPLED if context.sampled else api.TraceFlags.DEFAULT)
    state = api.TraceState.from_header([context.state]) if context.state else None
    named = api.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, flags, state)
    return api.set_span_in_context(api.NonRecordingSpan(named))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _close(shut_down: Callable[[], None], done: asyncio.Future[None]) -> None:
    shut_down()

    def settle() -> None:
        if not done.done():
            done.set_result(None)

    # The loop may have ended, and nobody waits.
    with contextlib.suppress(RuntimeError):
        done.get_loop().call_soon_threadsafe(settle)
