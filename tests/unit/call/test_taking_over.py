"""A supervisor takes a call over and gives it back: what the machine decides, state by state."""

from __future__ import annotations

import pytest

from ari_app.call.course import CALL_ENDED
from ari_app.call.signals import (
    AgentClosed,
    AgentEnding,
    AgentFailed,
    AgentLost,
    AgentReady,
    AgentResumed,
    BringIn,
    CallTarget,
    CancelTimer,
    ConnectCaller,
    ConsultRequested,
    DropTarget,
    EndRequested,
    Event,
    GiveBack,
    GiveBackRequested,
    HandOver,
    HoldRequested,
    PlayMusic,
    PlayOut,
    Release,
    ReplaceAgent,
    SetTimer,
    TakeOver,
    TakeOverEnded,
    TakeOverRequested,
    Timer,
    TimerFired,
)
from ari_app.call.states import State
from ari_app.call.taking_over import GIVEN_UP, REFUSALS, RINGS_ALREADY, refusal
from ari_app.line.interface import (
    Ended,
    LineFailed,
    Outcome,
    PhoneHeld,
    SoundLost,
    Status,
    TargetConnected,
    TargetLost,
)
from tests.unit.call.test_machine import DONE, LOST, TO_TALKING, WAYS_TO, released, run, state_of

RINGING = (*TO_TALKING, TakeOverRequested("2001"))
TAKEN = WAYS_TO[State.TAKEN_OVER]
OPEN = (State.TALKING, State.RECOVERING)


def given_up(why: str) -> list[object]:
    return [CancelTimer(Timer.BRING_IN), DropTarget(), TakeOverEnded(why)]


# --- the phone rings


def test_the_phone_rings_while_the_agent_goes_on() -> None:
    machine, effects = run(*RINGING)
    assert effects == [SetTimer(Timer.BRING_IN), BringIn("2001")]
    assert state_of(machine) is State.TALKING
    assert machine.calls_in
    assert machine.handle(TakeOverRequested("2002")) == [], "one at a time"


def test_every_state_grants_it_or_says_why_not() -> None:
    assert set(REFUSALS) | set(OPEN) == set(State)
    for state in State:
        why = refusal(state, rings=False)
        assert (why is None) is (state in OPEN)
        assert refusal(state, rings=True) == RINGS_ALREADY
    for code, sentence in REFUSALS.values():
        assert code in ("not_talking", "busy", "already_transferring")
        assert sentence.endswith(".")


@pytest.mark.parametrize("state", [state for state in WAYS_TO if state not in OPEN])
def test_where_it_is_refused_nothing_happens(state: State) -> None:
    machine, effects = run(*WAYS_TO[state], TakeOverRequested("2001"))
    assert effects == []
    assert state_of(machine) is state
    assert not machine.calls_in


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (TargetLost("busy"), "busy"),
        (TargetLost("rejected"), "rejected"),
        (TimerFired(Timer.BRING_IN), "no_answer"),
        (GiveBackRequested(), GIVEN_UP),
    ],
    ids=repr,
)
def test_one_who_does_not_come_changes_nothing_for_the_agent(event: Event, why: str) -> None:
    machine, effects = run(*RINGING, event)
    assert effects == given_up(why)
    assert state_of(machine) is State.TALKING
    assert not machine.calls_in
    for late in (event, TargetConnected(), TargetLost("late")):
        assert machine.handle(late) == []
    assert machine.handle(TakeOverRequested("2002"))[-1] == BringIn("2002"), "another may be called"


@pytest.mark.parametrize(
    ("event", "state", "then"),
    [
        (AgentEnding(DONE), State.CLOSING, SetTimer(Timer.CLOSE)),
        (AgentClosed(DONE), State.DRAINING, PlayOut()),
        (Ended("caller_hung_up"), State.RELEASING, None),
        (EndRequested(DONE), State.RELEASING, None),
    ],
    ids=repr,
)
def test_a_call_that_ends_meanwhile_lets_the_phone_ring_no_more(
    event: Event, state: State, then: object
) -> None:
    machine, effects = run(*RINGING, event)
    assert effects[:3] == given_up(CALL_ENDED)
    assert then is None or effects[-1] == then
    assert state_of(machine) is state
    assert machine.handle(TargetConnected()) == []


def test_no_transfer_begins_while_it_rings() -> None:
    machine, effects = run(*RINGING, ConsultRequested("2002"))
    assert effects == []
    assert state_of(machine) is State.TALKING


# --- it is answered


def test_the_agent_falls_silent_when_it_is_answered() -> None:
    machine, effects = run(*RINGING, TargetConnected())
    assert state_of(machine) is State.TAKEN_OVER
    timers = [effect.timer for effect in effects if isinstance(effect, CancelTimer)]
    assert set(timers) >= {Timer.BRING_IN, Timer.CALL, Timer.SPEECH, Timer.HOLD}
    assert effects[-1] == TakeOver()
    assert machine.handle(TargetConnected()) == []


@pytest.mark.parametrize(
    "event",
    [
        AgentEnding(DONE),
        AgentResumed(),
        HoldRequested(on=True),
        HoldRequested(on=False),
        ConsultRequested("2002"),
        PhoneHeld(on=True),
        PhoneHeld(on=False),
        AgentReady(),
        AgentClosed(DONE),
        AgentLost(LOST),
        AgentFailed("agent_unavailable"),
        *(TimerFired(timer) for timer in (Timer.SPEECH, Timer.COVER, Timer.RESUME)),
        *(TimerFired(timer) for timer in (Timer.RECONNECT, Timer.BRING_IN, Timer.CONSULT)),
    ],
    ids=repr,
)
def test_the_two_are_left_alone(event: Event) -> None:
    machine, effects = run(*TAKEN, event)
    assert effects == []
    assert state_of(machine) is State.TAKEN_OVER


def test_a_hold_that_began_meanwhile_ends() -> None:
    machine, effects = run(*RINGING, HoldRequested(on=True))
    assert effects == [PlayMusic()]
    assert machine.handle(TargetConnected())[-2:] == [TakeOver(), ConnectCaller()]


def test_a_lost_agents_gap_ends_with_the_supervisor() -> None:
    gap = (*WAYS_TO[State.RECOVERING], TimerFired(Timer.COVER), TakeOverRequested("2001"))
    machine, effects = run(*gap, TargetConnected())
    timers = {effect.timer for effect in effects if isinstance(effect, CancelTimer)}
    assert timers >= {Timer.RECONNECT, Timer.COVER, Timer.RESUME}
    assert effects[-2:] == [TakeOver(), ConnectCaller()]
    assert state_of(machine) is State.TAKEN_OVER


def test_when_the_sound_is_lost_the_two_go_on_without_us() -> None:
    machine, effects = run(*TAKEN, SoundLost("line_lost"))
    assert effects[-1] == HandOver()
    assert state_of(machine) is State.HANDED_OVER
    _, effects = run(*TAKEN, LineFailed("line_lost"))
    assert released(effects) == [Release(Outcome(Status.FAILED, "line_lost"))]


# --- it is given back


@pytest.mark.parametrize("event", [GiveBackRequested(), TargetLost("hung_up")], ids=repr)
def test_the_agent_goes_on(event: Event) -> None:
    machine, effects = run(*TAKEN, event)
    assert effects == [
        DropTarget(),
        SetTimer(Timer.CALL),
        SetTimer(Timer.SPEECH),
        GiveBack(there=True),
    ]
    assert state_of(machine) is State.TALKING
    assert machine.handle(event) == []


def test_a_caller_whose_phone_holds_us_still_does() -> None:
    machine, _ = run(*TAKEN, PhoneHeld(on=True))
    assert SetTimer(Timer.HOLD) in machine.handle(GiveBackRequested())
    machine, _ = run(*TAKEN, PhoneHeld(on=True), PhoneHeld(on=False))
    assert SetTimer(Timer.HOLD) not in machine.handle(GiveBackRequested())


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (AgentLost(LOST), LOST),
        (AgentClosed(LOST), LOST),
        (AgentClosed(DONE), Outcome(Status.FAILED, "agent_lost")),
    ],
    ids=repr,
)
def test_an_agent_that_has_gone_is_replaced(event: Event, outcome: Outcome) -> None:
    machine, effects = run(*TAKEN, event, GiveBackRequested())
    assert effects[-4:] == [
        GiveBack(there=False, lost=True),
        SetTimer(Timer.RECONNECT),
        SetTimer(Timer.COVER),
        ReplaceAgent(heard=True),
    ]
    assert state_of(machine) is State.RECOVERING
    machine.handle(AgentReady())
    machine.handle(AgentResumed())
    assert state_of(machine) is State.TALKING
    _, effects = run(*TAKEN, event, GiveBackRequested(), AgentFailed("agent_unavailable"))
    assert effects[-1] == Release(outcome), "and the call has failed where none can be had"


def test_one_that_was_on_its_way_already_is_waited_for() -> None:
    way = (*WAYS_TO[State.RECOVERING], TakeOverRequested("2001"), TargetConnected())
    machine, effects = run(*way, GiveBackRequested())
    assert GiveBack(there=False) in effects
    assert ReplaceAgent(heard=True) not in effects
    assert state_of(machine) is State.RECOVERING
    machine, effects = run(*way, AgentReady(), GiveBackRequested())
    assert effects[-1] == GiveBack(there=True)
    machine, effects = run(*way, AgentFailed("agent_unavailable"), GiveBackRequested())
    assert effects[-1] == ReplaceAgent(heard=True)


def test_it_may_be_taken_over_again() -> None:
    machine, _ = run(*TAKEN, GiveBackRequested())
    assert machine.handle(TakeOverRequested("2001"))[-1] == BringIn("2001")
    assert machine.handle(TargetConnected())[-1] == TakeOver()
    assert machine.handle(GiveBackRequested())[-1] == GiveBack(there=True)
    assert machine.handle(ConsultRequested("2002"))[-1] == CallTarget("2002")
