"""What the machine makes of a call whose process was lost, state by state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.agent.interface import Briefing
from ari_app.call.checkpoint import VERSION, Checkpoint, PartsState, facts_of
from ari_app.call.machine import CallMachine
from ari_app.call.plan import CallPlan
from ari_app.call.signals import (
    AgentFailed,
    AgentLost,
    AgentReady,
    AgentResumed,
    CallAdopted,
    ConnectAgent,
    ConnectCaller,
    Effect,
    EndRequested,
    Event,
    GiveBack,
    GiveBackRequested,
    HandOver,
    HoldRequested,
    OpenLine,
    PlayMusic,
    PromptAgent,
    Release,
    ReplaceAgent,
    ResumeAudio,
    RingCaller,
    SetTimer,
    TakeOver,
    TakeOverRequested,
    Timer,
    TimerFired,
)
from ari_app.call.states import OVER, State
from ari_app.line.interface import LineFormat, Outcome, Status, TargetConnected, TargetLost
from ari_app.records.checkpoints import Unreadable
from ari_app.records.record import CallRecord, Leg
from tests.unit.call.test_machine import (
    BEGINNINGS,
    DONE,
    EVENTS,
    TO_TALKING,
    WAYS_TO,
    released,
    run,
    state_of,
)

LOST = Outcome(Status.FAILED, "worker_lost")
ADOPTED = CallAdopted(LOST, answered=True)
AGAIN = [OpenLine(), ResumeAudio(), SetTimer(Timer.RECONNECT)]


def kept(machine: CallMachine, **changes: Any) -> Checkpoint:
    record = CallRecord("s", "sip-1", 12.5, legs=[Leg("caller", "1")], metadata={"a": [1, "b"]})
    plan = CallPlan(
        Briefing("agent", {"x": 1, "y": True, "z": "1"}, {"o": {"k": [1]}}),
        LineFormat("slin", 8000),
        600,
        8,
        40,
    )
    return replace(
        Checkpoint(VERSION, facts_of(record), machine.course, plan, {"id": "sip-1"}), **changes
    )


def in_another_process(machine: CallMachine) -> CallMachine:
    """The machine of the next process: it has what stood in the file."""
    return CallMachine(Checkpoint.from_json(orjson.loads(kept(machine).to_json())).course)


def adopted(*events: Event, adopted: CallAdopted = ADOPTED) -> tuple[CallMachine, list[Effect]]:
    machine = in_another_process(run(*events)[0])
    return machine, machine.handle(adopted)


def test_who_talked_hears_something_and_then_another_agent() -> None:
    machine, effects = adopted(*TO_TALKING)
    assert state_of(machine) is State.RECOVERING
    assert effects == [*AGAIN, SetTimer(Timer.COVER), ReplaceAgent(heard=True)]
    machine.handle(AgentReady())
    assert machine.handle(TimerFired(Timer.COVER)) == [PlayMusic()]
    assert machine.handle(AgentResumed())[-1] == ConnectCaller()
    assert state_of(machine) is State.TALKING


def test_the_agent_that_comes_then_may_be_lost_too_and_is_replaced() -> None:
    machine, _ = adopted(*TO_TALKING)
    machine.handle(AgentReady())
    machine.handle(AgentResumed())
    assert ReplaceAgent(heard=True) in machine.handle(AgentLost(DONE))


def test_a_call_that_had_lost_its_agent_gets_one_again() -> None:
    machine, effects = adopted(*TO_TALKING, AgentLost(DONE), TimerFired(Timer.COVER))
    assert effects == [PlayMusic(), *AGAIN, ReplaceAgent(heard=True)]
    assert machine.handle(AgentFailed("away"))[-1] == Release(LOST)


def test_held_by_somebody_else_it_stays_held_and_then_the_agent_is_asked_to_go_on() -> None:
    machine, effects = adopted(*WAYS_TO[State.HOLDING])
    assert effects == [PlayMusic(), OpenLine(), ResumeAudio(), ReplaceAgent(heard=True)]
    assert machine.handle(AgentReady()) == []
    assert state_of(machine) is State.HOLDING
    assert machine.handle(HoldRequested(on=False)) == [ConnectCaller(), PromptAgent()]
    machine.handle(HoldRequested(on=True))
    assert machine.handle(HoldRequested(on=False)) == [ConnectCaller()]


def test_held_by_its_agent_it_hears_the_next_one_speak() -> None:
    machine, effects = adopted(*WAYS_TO[State.HOLDING], adopted=replace(ADOPTED, agent_holds=True))
    assert effects == [PlayMusic(), *AGAIN, ReplaceAgent(heard=True)]
    assert state_of(machine) is State.RECOVERING


def test_a_target_that_rings_rings_on() -> None:
    machine, effects = adopted(*WAYS_TO[State.CONSULTING])
    assert effects == [PlayMusic(), OpenLine(), ResumeAudio(), ReplaceAgent(heard=True)]
    machine.handle(AgentReady())
    lost = in_another_process(machine)
    lost.handle(ADOPTED)
    lost.handle(AgentReady())
    assert ConnectCaller() in lost.handle(TargetLost("busy"))
    assert state_of(lost) is State.TALKING
    machine.handle(TargetConnected())
    assert state_of(machine) is State.BRIEFING


@pytest.mark.parametrize(
    ("state", "back"),
    [
        (State.HOLDING, HoldRequested(on=False)),
        (State.CONSULTING, TargetLost("busy")),
        (State.CONSULTING, TimerFired(Timer.CONSULT)),
    ],
)
def test_who_is_taken_back_before_the_agent_is_there_hears_music_until_it_speaks(
    state: State, back: Event
) -> None:
    machine, _ = adopted(*WAYS_TO[state])
    effects = machine.handle(back)
    assert state_of(machine) is State.RECOVERING
    assert effects[-1] == SetTimer(Timer.RECONNECT)
    assert ConnectCaller() not in effects
    failed = in_another_process(machine)
    assert failed.handle(AgentFailed("away"))[-1] == Release(LOST)
    machine.handle(AgentReady())
    assert machine.handle(AgentResumed())[-1] == ConnectCaller()
    machine.handle(HoldRequested(on=True))
    assert PromptAgent() not in machine.handle(HoldRequested(on=False)), "it has been asked"


def test_a_target_that_answers_before_the_agent_is_there_is_connected_at_once() -> None:
    machine, _ = adopted(*WAYS_TO[State.CONSULTING])
    assert machine.handle(TargetConnected())[-1] == HandOver()
    assert state_of(machine) is State.HANDED_OVER


def test_who_is_given_back_before_the_agent_is_there_waits_for_it() -> None:
    machine, _ = adopted(*TO_TALKING, TakeOverRequested("2001"), HoldRequested(on=True))
    machine.handle(TargetConnected())
    assert GiveBack(there=False, lost=False) in machine.handle(GiveBackRequested())
    assert state_of(machine) is State.RECOVERING


def test_an_agent_is_asked_once_to_go_on() -> None:
    held = (*TO_TALKING, TakeOverRequested("2001"), HoldRequested(on=True))
    for change in ((TargetConnected(), GiveBackRequested()), (AgentLost(DONE), AgentReady())):
        machine, _ = adopted(*held)
        for event in (AgentReady(), *change, AgentResumed(), HoldRequested(on=True)):
            machine.handle(event)
        assert state_of(machine) is State.HOLDING
        assert machine.handle(HoldRequested(on=False)) == [ConnectCaller()]


def test_a_supervisor_who_speaks_with_the_caller_does_and_then_another_agent_comes() -> None:
    machine, effects = adopted(*WAYS_TO[State.TAKEN_OVER])
    assert effects == [OpenLine(), ResumeAudio()]
    assert state_of(machine) is State.TAKEN_OVER
    effects = machine.handle(GiveBackRequested())
    assert GiveBack(there=False, lost=True) in effects
    assert effects[-1] == ReplaceAgent(heard=True)
    assert state_of(machine) is State.RECOVERING


def test_a_supervisors_phone_rings_on() -> None:
    machine, _ = adopted(*TO_TALKING, TakeOverRequested("2001"))
    assert TakeOver() in machine.handle(TargetConnected())
    assert state_of(machine) is State.TAKEN_OVER
    machine.handle(AgentReady())
    assert GiveBack(there=True, lost=False) in machine.handle(GiveBackRequested())


@pytest.mark.parametrize("state", [State.BRIEFING, State.HANDED_OVER])
def test_caller_and_target_are_together(state: State) -> None:
    machine, effects = adopted(*WAYS_TO[state])
    assert effects[-1] == HandOver()
    assert state_of(machine) is State.HANDED_OVER


@pytest.mark.parametrize(
    "way",
    [WAYS_TO[State.CLOSING], WAYS_TO[State.DRAINING], (*TO_TALKING, EndRequested(DONE))],
    ids=["closing", "draining", "releasing"],
)
def test_what_had_been_decided_is_carried_out(way: tuple[Event, ...]) -> None:
    machine, effects = adopted(*way)
    assert effects[-1] == Release(machine.outcome or LOST)
    assert machine.outcome == run(*way)[0].outcome
    assert state_of(machine) is State.RELEASING


@pytest.mark.parametrize("state", [State.CONNECTING, State.JOINING, State.GREETING])
@pytest.mark.parametrize("answered", [True, False])
def test_who_had_heard_nothing_yet_comes_anew(state: State, answered: bool) -> None:
    machine, effects = adopted(*WAYS_TO[state], adopted=replace(ADOPTED, answered=answered))
    assert state_of(machine) is State.CONNECTING
    assert (RingCaller() in effects) is not answered
    assert effects[-2:] == [ConnectAgent(), OpenLine()]


@pytest.mark.parametrize(
    ("state", "effects"),
    [
        (State.DIALLING, []),
        (State.RINGING, [ConnectAgent(), OpenLine()]),
        (State.SCREENING, []),
    ],
)
def test_whom_we_call_rings_on(state: State, effects: list[Effect]) -> None:
    machine, found = adopted(*WAYS_TO[state])
    assert (state_of(machine), found) == (state, effects)


@given(BEGINNINGS, st.lists(EVENTS, max_size=20), st.lists(EVENTS, max_size=20), st.booleans())
def test_lost_at_any_moment_a_call_ends_once_and_gives_everything_back(
    beginning: Event, before: list[Event], after: list[Event], agent_holds: bool
) -> None:
    machine = CallMachine()
    for event in [beginning, *before]:
        machine.handle(event)
    lost_in = machine.state
    machine = in_another_process(machine)
    effects = machine.handle(replace(ADOPTED, agent_holds=agent_holds))
    assert (lost_in in OVER) <= (machine.state in OVER)
    for event in [*after, TimerFired(Timer.CALL)]:
        effects += machine.handle(event)
    assert state_of(machine) is State.RELEASING
    assert len(released(effects)) == 1
    assert effects[-1] == released(effects)[0]
    for single in (ConnectAgent(), OpenLine(), ResumeAudio()):
        assert effects.count(single) <= 1


def test_what_is_kept_is_read_as_it_was() -> None:
    machine, _ = run(*WAYS_TO[State.CONSULTING])
    parts = PartsState(on_hold=True, keys="12", secrets=("4711",))
    before = kept(machine, timers={"call": 7.5}, parts=parts)
    assert Checkpoint.from_json(orjson.loads(before.to_json())) == before


def test_what_json_has_no_word_for_is_kept_as_what_comes_nearest() -> None:
    before = kept(CallMachine(), line={"id": "half a character: \ud800"})
    assert Checkpoint.from_json(orjson.loads(before.to_json())).line["id"].startswith("half a")


@pytest.mark.parametrize(
    "changes", [{"version": 0}, {"course": {"state": "new_one"}}, {"facts": {}}, {"plan": None}]
)
def test_what_another_version_has_written_is_refused(changes: dict[str, object]) -> None:
    value = {**orjson.loads(kept(CallMachine()).to_json()), **changes}
    with pytest.raises(Unreadable):
        Checkpoint.from_json(value)
    with pytest.raises(Unreadable):
        Checkpoint.from_json([])
