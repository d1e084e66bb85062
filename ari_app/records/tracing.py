"""Makes the spans of a call from what is told of it: one trace a call, a span for each step.

`Tracing.heard` is a listener of the journal. No words and no numbers are in a span. Pure but for
the clock that it is given; who sends the spans is in `ari_app.records.otel`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from ari_app.records.chronicle import Turn
from ari_app.records.events import (
    AgentLost,
    AgentResumed,
    CallEnded,
    CallerInterrupted,
    CallEvent,
    Responded,
    Said,
    StateChanged,
    StepTook,
    ToolRan,
)
from ari_app.records.record import CallRecord
from ari_app.records.trace import TraceContext

Attributes = Mapping[str, str | int | float | bool]

_MAX_MARKS: Final = 100
_PHASES: Final = MappingProxyType(
    {
        "waiting": "wait",
        "dialling": "ring",
        "ringing": "ring",
        "screening": "screen",
        "greeting": "greeting",
        "holding": "hold",
        "consulting": "transfer",
        "briefing": "transfer",
        "handed_over": "handed over",
        "recovering": "agent lost",
        "closing": "closing",
        "draining": "closing",
        "releasing": "closing",
    }
)
"""What a state, or two that follow each other, is called as a span; the others are none."""
_STEPS: Final = MappingProxyType(
    {
        "precall": "pre-call",
        "agent": "agent connect",
        "media": "media open",
        "answer": "answer",
    }
)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened in a span, at a Unix time."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Span:
    """One span, which is over.

    Attributes:
        context: Its trace, its id and its parent's.
        began, until: Unix times.
        error: Why what it stands for came to nothing; None: it did not.
        of_call: It is the call's own, in which the others are.
    """

    context: TraceContext
    name: str
    began: float
    until: float
    attributes: Attributes = field(default_factory=dict)
    error: str | None = None
    marks: tuple[Mark, ...] = ()
    of_call: bool = False
    placed: bool = False


@dataclass(slots=True)
class SpanStats:
    """Counters of a process.

    Attributes:
        made: Spans of calls.
        exported: Those that the collector has taken.
        lost: Those that it was offered and has not.
    """

    made: int = 0
    exported: int = 0
    lost: int = 0


class Spans(Protocol):
    """Takes spans, and says of which traces."""

    def begin(self, traceparent: str, tracestate: str) -> TraceContext | None:
        """Give a call its place in the trace that it came with, or in one of its own."""
        ...

    def take(self, span: Span) -> None:
        """Take a span; never waits."""
        ...


@dataclass(slots=True)
class _Course:
    """What is not over yet in a call; times are seconds since it began."""

    phase: str | None = None
    phase_began: float = 0.0
    turn: Turn | None = None
    marks: list[tuple[str, float]] = field(default_factory=list)


class Tracing:
    """Follows all calls.

    Args:
        spans: Where their spans go.
        now: The event loop's clock.
    """

    def __init__(self, spans: Spans, now: Callable[[], float]) -> None:
        self._spans = spans
        self._now = now
        self._courses: WeakKeyDictionary[CallRecord, _Course] = WeakKeyDictionary()

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        """Take what has happened in a call."""
        trace = record.trace
        if trace is None or not trace.sampled:
            return
        at = record.duration(self._now())
        course = self._courses.get(record)
        if course is None:
            course = self._courses[record] = _Course()
        match event:
            case StateChanged(state):
                self._moved(record, course, _PHASES.get(state), at)
            case StepTook(step, seconds, failure):
                context = _named(trace, event.span_id)
                self._span(
                    record, _STEPS.get(step, step), at - seconds, at, error=failure, context=context
                )
            case Said("caller"):
                began = at if event.began is None else event.began
                self._span(record, "caller turn", began, at if event.until is None else event.until)
            case Said("agent"):
                self._agent_turn_over(record, course)
                course.turn = record.chronicle.last_said
            case Responded(seconds):
                self._span(record, "response", at - seconds, at)
            case ToolRan():
                self._span(
                    record,
                    f"tool {event.name}",
                    at - event.seconds,
                    at,
                    {"gen_ai.tool.name": event.name},
                    error="the tool has failed" if event.is_error else None,
                    context=_named(trace, event.span_id),
                )
            case CallerInterrupted():
                _mark(course, "interruption", at)
            case AgentLost():
                _mark(course, "agent lost", at)
            case AgentResumed():
                _mark(course, "agent resumed", at)
            case CallEnded():
                self._ended(record, course, trace, at)
            case _:
                pass

    def _moved(self, record: CallRecord, course: _Course, phase: str | None, at: float) -> None:
        if phase == course.phase:
            return
        if course.phase is not None:
            self._span(record, course.phase, course.phase_began, at)
        course.phase, course.phase_began = phase, at

    def _agent_turn_over(self, record: CallRecord, course: _Course) -> None:
        """Tell of the agent's last turn, now that nothing changes in it any more."""
        turn, course.turn = course.turn, None
        if turn is None:
            return
        told = {"interrupted": turn.interrupted, "heard": turn.until is not None}
        self._span(
            record, "agent turn", turn.at, turn.at if turn.until is None else turn.until, told
        )

    def _ended(self, record: CallRecord, course: _Course, trace: TraceContext, at: float) -> None:
        del self._courses[record]
        self._moved(record, course, None, at)
        self._agent_turn_over(record, course)
        start = record.started_at.timestamp()
        failed = record.agent_status in ("FAILED", "REJECTED")
        self._spans.take(
            Span(
                trace,
                "call",
                start,
                start + at,
                _facts(record),
                record.end_reason if failed else None,
                tuple(Mark(name, start + when) for name, when in course.marks),
                of_call=True,
                placed=record.placed,
            )
        )

    def _span(
        self,
        record: CallRecord,
        name: str,
        began: float,
        until: float,
        attributes: Attributes = MappingProxyType({}),
        *,
        error: str | None = None,
        context: TraceContext | None = None,
    ) -> None:
        assert record.trace is not None, "`heard` has looked"
        start, began = record.started_at.timestamp(), max(began, 0.0)
        self._spans.take(
            Span(
                context or record.trace.child(),
                name,
                start + began,
                start + max(until, began),
                attributes,
                error,
            )
        )


def _named(trace: TraceContext, span_id: str) -> TraceContext | None:
    """Return the span that others know by this id already."""
    if not span_id:
        return None
    return TraceContext(trace.trace_id, span_id, trace.sampled, trace.state, trace.span_id)


def _mark(course: _Course, name: str, at: float) -> None:
    if len(course.marks) < _MAX_MARKS:
        course.marks.append((name, at))


def _facts(record: CallRecord) -> Attributes:
    told = {
        "call.session_id": record.session_id,
        "call.way": record.way,
        "call.direction": "out" if record.placed else "in",
        "call.line_id": record.line_id,
        "call.status": record.agent_status,
        "call.reason": record.end_reason,
        "call.result": record.result,
        "call.hangup_cause": record.hangup_cause,
        "call.sip_code": record.sip_code,
        "call.seconds": None if record.seconds is None else round(record.seconds, 3),
        "call.interruptions": record.sound.interruptions,
        "call.underruns": record.sound.underruns,
        "gen_ai.agent.id": record.agent_id,
        "gen_ai.conversation.id": record.conversation_id,
    }
    return {name: value for name, value in told.items() if value not in (None, "")}
