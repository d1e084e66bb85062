"""The spans as they leave: through OpenTelemetry's SDK, and over OTLP/HTTP."""

from __future__ import annotations

import asyncio
import functools
import gzip
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from ari_app.errors import ConfigError
from ari_app.records.otel import OtelSpans
from ari_app.records.trace import TraceContext
from ari_app.records.tracing import Mark, Span
from lab.web import serving
from tests.waiting import until

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALL = TraceContext(TRACE, "1" * 16, parent_id=CALLER)
AT = 1_700_000_000.25


def spans_of_a_call() -> tuple[Span, Span]:
    step = Span(CALL.child(), "answer", AT, AT + 0.5, error="line_lost")
    call = Span(
        CALL,
        "call",
        AT,
        AT + 2,
        {"call.way": "asterisk"},
        marks=(Mark("interruption", AT + 1),),
        of_call=True,
    )
    return step, call


async def test_ids_times_and_attributes_are_those_of_the_call() -> None:
    memory = InMemorySpanExporter()
    async with OtelSpans({}, memory) as spans:
        for span in spans_of_a_call():
            spans.take(span)
    step, call = memory.get_finished_spans()
    assert call.context is not None
    assert call.parent is not None
    assert (f"{call.context.trace_id:032x}", f"{call.context.span_id:016x}") == (TRACE, "1" * 16)
    assert f"{call.parent.span_id:016x}" == CALLER
    assert call.kind is SpanKind.SERVER
    assert (call.start_time, call.end_time) == (int(AT * 1e9), int((AT + 2) * 1e9))
    assert dict(call.attributes or {}) == {"call.way": "asterisk"}
    assert [(event.name, event.timestamp) for event in call.events] == [
        ("interruption", int((AT + 1) * 1e9))
    ]
    assert call.resource.attributes["service.name"] == "ari-app"
    assert step.parent is not None
    assert step.parent.span_id == call.context.span_id
    assert (step.status.status_code, step.status.description) == (StatusCode.ERROR, "line_lost")
    assert (spans.stats.made, spans.stats.exported, spans.stats.lost) == (2, 2, 0)


@pytest.mark.parametrize(
    ("environment", "traceparent", "sampled"),
    [
        ({}, "", True),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "", False),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, f"00-{TRACE}-{CALLER}-01", True),
        ({}, f"00-{TRACE}-{CALLER}-00", False),
    ],
)
async def test_the_sampler_and_the_caller_decide(
    environment: Mapping[str, str], traceparent: str, sampled: bool
) -> None:
    memory = InMemorySpanExporter()
    async with OtelSpans(environment, memory) as spans:
        trace = spans.begin(traceparent, "")
        assert trace is not None
        spans.take(Span(trace, "call", AT, AT + 1, of_call=True))
    assert trace.sampled is sampled
    assert len(memory.get_finished_spans()) == int(sampled)
    assert (trace.trace_id, trace.parent_id) == (TRACE, CALLER) or not traceparent


@dataclass
class Collector:
    """An OTLP/HTTP receiver."""

    url: str = ""
    status: int = 200
    asked: int = 0
    names: list[str] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)

    async def take(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.keys.add(request.headers.get("x-key", ""))
        if self.status != 200:
            return web.Response(status=self.status)
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {each.key: each.value.string_value for each in group.resource.attributes}
            self.services.add(told["service.name"])
            self.names += [span.name for scope in group.scope_spans for span in scope.spans]
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    async with serving(app) as made.url:
        yield made


def to(url: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_SERVICE_NAME": "calls",
    }


async def test_spans_reach_a_collector_over_http(collector: Collector) -> None:
    async with OtelSpans(to(collector.url)) as spans:
        for span in spans_of_a_call():
            spans.take(span)
    assert sorted(collector.names) == ["answer", "call"]
    assert (collector.services, collector.keys) == ({"calls"}, {"secret"})


def _lost(spans: OtelSpans, expected: int) -> bool:
    return spans.stats.lost == expected


async def test_a_collector_that_refuses_is_told_of_once(collector: Collector) -> None:
    collector.status = 400
    with capture_logs() as logs:
        async with OtelSpans(to(collector.url)) as spans:
            for expected in (1, 2):
                spans.take(spans_of_a_call()[0])
                await until(functools.partial(_lost, spans, expected))
            collector.status = 200
            spans.take(spans_of_a_call()[0])
            await until(lambda: spans.stats.exported == 1)
    assert [line["event"] for line in logs] == ["traces_not_sent", "traces_sent_again"]


async def test_nobody_waits_for_a_dead_collector() -> None:
    """Neither who puts spans into the queue, nor the end of the service."""
    async with serving(web.Application()) as url:
        pass
    environment = {
        **to(url),
        "OTEL_BSP_MAX_QUEUE_SIZE": "64",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32",
    }
    loop = asyncio.get_running_loop()
    async with OtelSpans(environment) as spans:
        for _ in range(1000):
            spans.take(spans_of_a_call()[0])
        began = loop.time()
    assert spans.stats.made == 1000
    assert spans.stats.exported == 0
    assert loop.time() - began < 30


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_BSP_MAX_QUEUE_SIZE", "-1")],
)
def test_what_cannot_be_used_is_said(name: str, value: str) -> None:
    with pytest.raises(ConfigError):
        OtelSpans({name: value})
