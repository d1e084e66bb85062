"""The trace of a call, from its beginning to its end, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.records.trace import TraceContext, read_traceparent
from ari_app.records.tracing import Span, Tracing
from tests.unit.call.stage import Stage, now
from tests.waiting import until

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Kept:
    """Keeps spans."""

    spans: list[Span] = field(default_factory=list)
    sampled: bool = True

    def begin(self, traceparent: str, tracestate: str) -> TraceContext | None:
        caller = read_traceparent(traceparent, tracestate)
        if caller is not None:
            return caller.child()
        return TraceContext("1" * 32, "2" * 16, self.sampled)

    def take(self, span: Span) -> None:
        self.spans.append(span)

    def named(self, name: str) -> Span:
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def seconds(self, name: str) -> float:
        span = self.named(name)
        return span.until - span.began


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
async def traced(kept: Kept) -> AsyncIterator[Stage]:
    async with Stage() as stage:
        stage.journal.listen(Tracing(kept, now).heard)
        stage.services = replace(stage.services, begin_trace=kept.begin)
        stage.calls = stage.another()
        yield stage


async def test_a_call_is_one_trace_with_a_span_for_each_step(traced: Stage, kept: Kept) -> None:
    session = await traced.talk("agent_id=a", f"traceparent={CALLER}")
    agent = traced.agent()
    agent.handler.agent_response("Good morning.", 1)
    agent.says(1000, final=True)
    await asyncio.sleep(2)
    agent.handler.agent_response("Are you there?", 2)
    agent.says(500, event_id=2, final=True)
    await asyncio.sleep(1)
    agent.handler.tool_call("no_such_tool", "1", {}, True)
    await asyncio.sleep(0.1)
    traced.calls.end_all("over")
    await session.ended.wait()

    call = kept.named("call")
    assert call.of_call
    assert call.context.trace_id == CALLER[3:35]
    assert call.context.parent_id == CALLER[36:52]
    others = [span for span in kept.spans if span is not call]
    assert {span.context.parent_id for span in others} == {call.context.span_id}
    assert {span.context.trace_id for span in others} == {call.context.trace_id}
    assert sorted(span.name for span in others) == [
        *("agent connect", "agent turn", "agent turn"),
        *("answer", "closing", "media open", "tool no_such_tool"),
    ]
    assert all(call.began <= each.began <= each.until <= call.until for each in others)
    assert call.until - call.began == pytest.approx(session.record.seconds)
    assert call.error == "over"
    assert call.attributes["call.session_id"] == session.record.session_id
    assert call.attributes["gen_ai.agent.id"] == "a"
    first, second = (span for span in others if span.name == "agent turn")
    assert first.until - first.began == pytest.approx(1, abs=0.03)
    assert second.until - second.began == pytest.approx(0.5, abs=0.03)
    assert kept.named("tool no_such_tool").error is not None


async def test_no_words_and_no_numbers_are_in_it(traced: Stage, kept: Kept) -> None:
    session = await traced.talk("customer_name=Jane")
    session.record.caller_number = "+493023125001"
    traced.agent().handler.agent_response("Good morning, Jane.", 1)
    traced.calls.end_all("over")
    await session.ended.wait()
    told = repr(kept.spans)
    assert "agent turn" in told
    assert "Jane" not in told
    assert "23125001" not in told


async def test_a_lost_agent_and_an_interruption_stand_in_the_call(
    traced: Stage, kept: Kept
) -> None:
    session = await traced.talk()
    traced.agent().handler.interruption(1)
    traced.agent().closes(CloseKind.LOST, 1006)
    await until(lambda: "agent lost" in [span.name for span in kept.spans])
    traced.calls.end_all("over")
    await session.ended.wait()
    marks = [mark.name for mark in kept.named("call").marks]
    assert marks == ["interruption", "agent lost", "agent resumed"]
    assert len([span for span in kept.spans if span.name == "agent connect"]) == 2


async def test_a_placed_call_shows_its_ringing(traced: Stage, kept: Kept) -> None:
    session = traced.place()
    await asyncio.sleep(3)
    traced.calls.end_all("over")
    await session.ended.wait()
    assert kept.seconds("ring") >= 3
    assert kept.named("call").placed


async def test_what_is_not_sampled_makes_no_spans(traced: Stage, kept: Kept) -> None:
    kept.sampled = False
    session = await traced.talk()
    traced.calls.end_all("over")
    await session.ended.wait()
    assert kept.spans == []
    assert session.record.trace is not None
    assert session.record.trace.traceparent.endswith("-00")


async def test_without_spans_the_trace_goes_on_as_it_came(stage: Stage) -> None:
    session = await stage.enter(f"traceparent={CALLER}")
    assert session.record.trace is not None
    assert session.record.trace.traceparent == CALLER
    other = await stage.enter("traceparent=")
    assert other.record.trace is None
