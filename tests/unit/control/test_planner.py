"""What is decided about a call before it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from ari_app.agent.interface import Agents, Variable
from ari_app.agent.precall import PreCall
from ari_app.audio.formats import DEFAULT_AGENT_FORMATS, AgentFormats
from ari_app.call.amd import OnMachine
from ari_app.call.plan import CallPlan
from ari_app.control.planner import Planner, PlannerOptions, Wish
from ari_app.line.interface import Arrival, CallLimits, Line, LineFormat
from ari_app.records.events import CallEvent, StepTook
from ari_app.records.record import CallRecord
from ari_app.records.trace import TraceContext
from tests.unit.tools.conftest import FakeService, service

__all__ = ["service"]

WEBHOOK = "conversation_initiation_client_data"
OWN = {"caller_id": "12025550123", "called_number": "100", "call_sid": "sip-1"}


class FakeLine:
    """A line that can ring and decide on its sound."""

    answered = False

    def __init__(self) -> None:
        self.rings = 0
        self.agent: AgentFormats | None = None

    def ring(self) -> None:
        self.rings += 1

    async def prepare(self, agent: AgentFormats) -> LineFormat:
        self.agent = agent
        return LineFormat("slin16", 16000)


LINE = cast(Line, FakeLine())


def planner(
    agent_id: str | None = "agent_default",
    precall: PreCall | None = None,
    *,
    recorded: bool = False,
    note: Callable[[CallRecord, CallEvent], None] = lambda record, event: None,
) -> Planner:
    options = PlannerOptions(
        agent_id=agent_id,
        call_timeout_seconds=600,
        connect_timeout_seconds=8,
        chunk_ms=lambda calls: 40 if calls < 10 else 100,
        recorded=recorded,
    )
    agents = cast(Agents, SimpleNamespace(formats_of=lambda agent_id: DEFAULT_AGENT_FORMATS))
    return Planner(options, agents, precall, lambda: 9, note)


def record() -> CallRecord:
    return CallRecord("s1", "sip-1", 0.0, caller_number="12025550123", called_number="100")


async def arrived(plans: Planner, line: Line = LINE, **details: Any) -> CallPlan:
    return await plans.for_arrival(record(), Arrival(line, **details))


async def wished(plans: Planner, arrival: Arrival | None = None, **wish: Any) -> CallPlan:
    return await plans.for_wish(record(), LINE, Wish(**wish), arrival)


async def test_what_the_agent_is_told_of_a_caller() -> None:
    plan = await arrived(planner(), variables={"customer_name": "Jane"})
    assert plan.briefing.agent_id == "agent_default"
    assert plan.briefing.variables == {**OWN, "customer_name": "Jane"}
    assert plan.briefing.options == {}
    assert (plan.recorded, plan.uplink_chunk_ms) == (False, 40)
    assert (plan.call_timeout_seconds, plan.connect_timeout_seconds) == (600, 8)
    assert plan.line_format == LineFormat("slin16", 16000)


async def test_which_agent_it_is() -> None:
    assert (await arrived(planner(), agent_id="agent_7")).briefing.agent_id == "agent_7"
    assert (await arrived(planner(None))).briefing.agent_id == ""
    waits = Arrival(LINE, agent_id="agent_7", variables={"a": "1", "b": "2"})
    plan = await wished(planner(), waits, variables={"b": 3})
    assert (plan.briefing.agent_id, plan.briefing.variables) == (
        "agent_7",
        {**OWN, "a": "1", "b": 3},
    )
    assert (await wished(planner(), waits, agent_id="agent_8")).briefing.agent_id == "agent_8"


async def test_what_is_otherwise_for_one_call() -> None:
    german = {"agent": {"language": "de", "first_message": "Hallo"}}
    waits = Arrival(LINE, overrides=german, limits=CallLimits(90, 5))
    plan = await arrived(planner(), overrides=german, limits=CallLimits(90, 5))
    assert plan.briefing.options == {"conversation_config_override": german}
    assert (plan.call_timeout_seconds, plan.no_speech_timeout_seconds) == (90, 5)
    plan = await wished(
        planner(),
        waits,
        overrides={"agent": {"language": "en"}, "tts": {"voice_id": "v1"}},
        limits=CallLimits(no_speech_timeout_seconds=0),
    )
    assert plan.briefing.options == {
        "conversation_config_override": {
            "agent": {"language": "en", "first_message": "Hallo"},
            "tts": {"voice_id": "v1"},
        }
    }
    assert (plan.call_timeout_seconds, plan.no_speech_timeout_seconds) == (90, 0)
    plan = await wished(planner(), limits=CallLimits(7200))
    assert plan.call_timeout_seconds == 600, "nobody may talk for longer than the settings say"
    assert plan.no_speech_timeout_seconds is None


@pytest.mark.parametrize("usual", [True, False])
async def test_whether_it_is_recorded(usual: bool) -> None:
    plans = planner(recorded=usual)
    assert (await arrived(plans)).recorded is usual
    assert (await wished(plans)).recorded is usual
    for said in (True, False):
        assert (await arrived(plans, recorded=said)).recorded is said
        assert (await wished(plans, recorded=said)).recorded is said
        waits = Arrival(LINE, recorded=said)
        assert (await wished(plans, waits)).recorded is said
        assert (await wished(plans, waits, recorded=not said)).recorded is not said


async def test_the_line_knows_the_agents_formats() -> None:
    line = FakeLine()
    await arrived(planner(), cast(Line, line))
    assert line.agent is DEFAULT_AGENT_FORMATS
    assert line.rings == 0, "nobody is asked first: the call itself lets it ring"


async def test_a_wish_says_how_long_it_rings_and_what_is_overridden() -> None:
    overrides = {"agent": {"language": "de"}}
    plan = await wished(
        planner(),
        overrides=overrides,
        ring_timeout_seconds=12,
        on_machine=OnMachine.HANG_UP,
        user_id="crm-7",
    )
    assert (plan.ring_seconds, plan.on_machine) == (12, OnMachine.HANG_UP)
    assert plan.briefing.options == {
        "conversation_config_override": overrides,
        "user_id": "crm-7",
    }


@pytest.mark.parametrize(
    ("said", "overridden"),
    [
        ({"agent": {"language": "en"}}, {"agent": {"language": "en", "first_message": "Hallo"}}),
        (None, {"agent": {"language": "de", "first_message": "Hallo"}}),
    ],
)
async def test_the_service_that_is_asked_first_wins(
    service: FakeService, said: Mapping[str, Any] | None, overridden: Mapping[str, Any]
) -> None:
    variables: dict[str, Variable] = {"customer_name": "Jane", "tier": 2, "vip": True}
    answer: dict[str, Any] = {
        "type": WEBHOOK,
        "agent_id": "agent_9",
        "dynamic_variables": variables,
        "user_id": "crm-42",
    }
    if said is not None:
        answer["conversation_config_override"] = said
    service.answers(orjson.dumps(answer).decode())
    async with PreCall(f"{service.url}/hook") as precall:
        plan = await wished(
            planner(precall=precall),
            variables={"customer_name": "?", "batch": 7},
            overrides={"agent": {"language": "de", "first_message": "Hallo"}},
            user_id="crm-7",
        )
    assert plan.briefing.agent_id == "agent_9"
    assert plan.briefing.variables == {**OWN, **variables, "batch": 7}
    assert plan.briefing.options == {
        "user_id": "crm-42",
        "conversation_config_override": overridden,
    }


async def test_a_caller_hears_ringing_while_the_service_is_asked(service: FakeService) -> None:
    service.answers(orjson.dumps({"type": WEBHOOK}).decode())
    line, answered = FakeLine(), FakeLine()
    answered.answered = True
    async with PreCall(f"{service.url}/hook") as precall:
        for each in (line, answered):
            await arrived(planner(precall=precall), cast(Line, each))
    assert (line.rings, answered.rings) == (1, 0)


async def test_a_service_that_fails_changes_nothing_where_calls_go_on(
    service: FakeService,
) -> None:
    service.answers("no JSON")
    async with PreCall(f"{service.url}/hook", on_failure="go_on") as precall:
        plan = await arrived(planner(precall=precall))
    assert (plan.briefing.agent_id, plan.briefing.variables) == ("agent_default", OWN)


@pytest.mark.parametrize("status", [200, 500])
async def test_the_service_is_told_of_the_trace_and_the_step_of_what_came_of_it(
    service: FakeService, status: int
) -> None:
    service.answers(orjson.dumps({"type": WEBHOOK}).decode(), status)
    call, told = record(), list[StepTook]()
    call.trace = TraceContext("1" * 32, "2" * 16, state="a=1")
    async with PreCall(f"{service.url}/hook", on_failure="go_on") as precall:
        plans = planner(precall=precall, note=lambda record, event: told.append(_step(event)))
        await plans.for_arrival(call, Arrival(cast(Line, FakeLine())))
    (step,) = told
    assert step.failure == (None if status == 200 else "precall_status")
    (seen,) = service.seen
    assert seen.headers["traceparent"] == f"00-{'1' * 32}-{step.span_id}-01"
    assert seen.headers["tracestate"] == "a=1"


def _step(event: CallEvent) -> StepTook:
    assert isinstance(event, StepTook)
    return event
