from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.machine import CallMachine
from ari_app.call.signals import (
    AgentClosed,
    AgentEnding,
    AgentFailed,
    AgentReady,
    AnswerCaller,
    BridgeMade,
    CallerAnswered,
    CallerEntered,
    CallerJoined,
    CallerLeft,
    CancelTimer,
    ConnectAgent,
    ControlFailed,
    Effect,
    EndRequested,
    Event,
    JoinCaller,
    JoinMedia,
    MakeBridge,
    MediaEntered,
    MediaJoined,
    MediaLost,
    OpenMedia,
    Outcome,
    PlayedOut,
    PlayOut,
    Refused,
    Release,
    Released,
    RingCaller,
    SetTimer,
    StartAudio,
    Status,
    Timer,
    TimerFired,
)
from ari_app.call.states import IllegalStep, State

DONE = Outcome(Status.COMPLETED, "agent_ended")
LOST = Outcome(Status.FAILED, "lost")
TRANSFER = Outcome(Status.TRANSFER, "agent_transfer", transfer_to="200")
TO_TALKING: tuple[Event, ...] = (
    CallerEntered(answered=False),
    BridgeMade(),
    MediaEntered(),
    MediaJoined(),
    AgentReady(),
    CallerAnswered(),
    CallerJoined(),
)
WAYS_TO = {
    State.CONNECTING: TO_TALKING[:1],
    State.JOINING: TO_TALKING[:5],
    State.TALKING: TO_TALKING,
    State.CLOSING: (*TO_TALKING, AgentEnding(TRANSFER)),
    State.DRAINING: (*TO_TALKING, AgentClosed(DONE)),
}


def run(*events: Event) -> tuple[CallMachine, list[Effect]]:
    machine = CallMachine()
    effects: list[Effect] = []
    for event in events:
        effects = machine.handle(event)
    return machine, effects


def state_of(machine: CallMachine) -> State:
    """The state now; the type checker would hold on to what it was."""
    return machine.state


def released(effects: list[Effect]) -> list[Release]:
    return [effect for effect in effects if isinstance(effect, Release)]


def test_a_new_call_rings_while_agent_and_media_are_made() -> None:
    machine, effects = run(CallerEntered(answered=False))
    assert state_of(machine) is State.CONNECTING
    assert effects == [
        SetTimer(Timer.CALL),
        SetTimer(Timer.CONNECT),
        RingCaller(),
        ConnectAgent(),
        MakeBridge(),
        OpenMedia(),
    ]


def test_a_call_that_is_up_does_not_ring_and_is_not_answered_again() -> None:
    machine, effects = run(CallerEntered(answered=True))
    assert RingCaller() not in effects
    for event in (BridgeMade(), MediaEntered(), MediaJoined()):
        machine.handle(event)
    assert machine.handle(AgentReady()) == [
        CancelTimer(Timer.CONNECT),
        SetTimer(Timer.JOIN),
        JoinCaller(),
    ]
    assert machine.handle(CallerAnswered()) == []


@pytest.mark.parametrize(
    "order", [(BridgeMade(), MediaEntered()), (MediaEntered(), BridgeMade())], ids=repr
)
def test_the_media_channel_joins_when_both_are_there(order: tuple[Event, Event]) -> None:
    machine, _ = run(CallerEntered(answered=False))
    assert machine.handle(order[0]) == []
    assert machine.handle(order[1]) == [JoinMedia()]


@pytest.mark.parametrize(
    "order", [(MediaJoined(), AgentReady()), (AgentReady(), MediaJoined())], ids=repr
)
def test_the_caller_is_answered_when_agent_and_media_are_ready(order: tuple[Event, Event]) -> None:
    machine, _ = run(*TO_TALKING[:3])
    assert machine.handle(order[0]) == []
    effects = machine.handle(order[1])
    assert effects == [CancelTimer(Timer.CONNECT), SetTimer(Timer.JOIN), AnswerCaller()]
    assert state_of(machine) is State.JOINING
    assert machine.handle(CallerAnswered()) == [JoinCaller()]
    assert machine.handle(CallerAnswered()) == [], "Asterisk says so twice: answer and event"


def test_sound_starts_when_the_caller_is_in_the_bridge() -> None:
    machine, effects = run(*TO_TALKING)
    assert state_of(machine) is State.TALKING
    assert effects == [CancelTimer(Timer.JOIN), StartAudio()]
    assert machine.handle(CallerJoined()) == []


def test_the_agents_end_is_played_out_before_the_caller_goes_on() -> None:
    machine, effects = run(*TO_TALKING, AgentClosed(DONE))
    assert state_of(machine) is State.DRAINING
    assert PlayOut() in effects
    assert not released(effects)
    effects = machine.handle(PlayedOut())
    assert released(effects) == [Release(DONE, caller_present=True)]
    assert machine.handle(Released()) == []
    assert state_of(machine) is State.ENDED
    assert machine.outcome == DONE


def test_an_announced_end_outlives_the_close_that_follows() -> None:
    machine, effects = run(*TO_TALKING, AgentEnding(TRANSFER))
    assert state_of(machine) is State.CLOSING
    assert effects == [SetTimer(Timer.CLOSE)]
    effects = machine.handle(AgentClosed(LOST))
    assert PlayOut() in effects
    assert machine.outcome == TRANSFER


def test_an_agent_that_never_closes_is_taken_at_its_word() -> None:
    machine, effects = run(*TO_TALKING, AgentEnding(TRANSFER), TimerFired(Timer.CLOSE))
    assert state_of(machine) is State.DRAINING
    assert PlayOut() in effects
    assert machine.outcome == TRANSFER


def test_a_greeting_is_heard_though_the_agent_closed_meanwhile() -> None:
    machine, effects = run(*WAYS_TO[State.JOINING], AgentClosed(DONE))
    assert state_of(machine) is State.JOINING
    assert effects == []
    machine.handle(CallerAnswered())
    effects = machine.handle(CallerJoined())
    assert state_of(machine) is State.DRAINING
    assert effects.index(StartAudio()) < effects.index(PlayOut())


def test_an_agent_that_closes_before_it_was_heard_has_failed() -> None:
    _, effects = run(*WAYS_TO[State.CONNECTING], AgentClosed(DONE))
    assert released(effects) == [Release(Outcome(Status.FAILED, "agent_ended"), True)]


@pytest.mark.parametrize("state", WAYS_TO)
def test_the_caller_hangs_up(state: State) -> None:
    machine, effects = run(*WAYS_TO[state], CallerLeft("caller_hung_up"))
    assert state_of(machine) is State.RELEASING
    expected = Release(Outcome(Status.COMPLETED, "caller_hung_up"), caller_present=False)
    assert effects == [*(CancelTimer(timer) for timer in Timer), expected]


@pytest.mark.parametrize("state", WAYS_TO)
@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (MediaLost("line_lost"), Outcome(Status.FAILED, "line_lost")),
        (ControlFailed("ari_timeout"), Outcome(Status.FAILED, "ari_timeout")),
        (AgentFailed("agent_unavailable"), Outcome(Status.FAILED, "agent_unavailable")),
        (TimerFired(Timer.CALL), Outcome(Status.TIMEOUT, "call_timeout")),
        (EndRequested(DONE), DONE),
    ],
    ids=repr,
)
def test_whatever_stops_a_call_the_caller_goes_on(
    state: State, event: Event, outcome: Outcome
) -> None:
    machine, effects = run(*WAYS_TO[state], event)
    assert released(effects) == [Release(outcome, caller_present=True)]
    assert machine.outcome == outcome


@pytest.mark.parametrize(
    ("timer", "state", "reason"),
    [
        (Timer.CONNECT, State.CONNECTING, "connect_timeout"),
        (Timer.JOIN, State.JOINING, "join_timeout"),
    ],
)
def test_what_takes_too_long_fails(timer: Timer, state: State, reason: str) -> None:
    _, effects = run(*WAYS_TO[state], TimerFired(timer))
    assert released(effects) == [Release(Outcome(Status.FAILED, reason), caller_present=True)]


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.TALKING, TimerFired(Timer.CONNECT)),
        (State.TALKING, TimerFired(Timer.JOIN)),
        (State.TALKING, TimerFired(Timer.CLOSE)),
        (State.TALKING, PlayedOut()),
        (State.DRAINING, AgentClosed(LOST)),
        (State.CONNECTING, AgentEnding(DONE)),
        (State.CONNECTING, CallerJoined()),
        (State.DRAINING, MediaJoined()),
        (State.JOINING, BridgeMade()),
        (State.JOINING, MediaEntered()),
    ],
    ids=repr,
)
def test_what_comes_too_late_changes_nothing(state: State, event: Event) -> None:
    machine, effects = run(*WAYS_TO[state], event)
    assert state_of(machine) is state
    assert effects == []


def test_a_refused_call_goes_on_at_once() -> None:
    refusal = Outcome(Status.REJECTED, "at_capacity")
    machine, effects = run(Refused(refusal))
    assert released(effects) == [Release(refusal, caller_present=True)]
    assert state_of(machine) is State.RELEASING


def test_an_illegal_step_changes_nothing() -> None:
    machine, _ = run(*TO_TALKING, AgentEnding(TRANSFER))
    for event in (CallerEntered(answered=True), Released()):
        with pytest.raises(IllegalStep):
            machine.handle(event)
        assert state_of(machine) is State.CLOSING
        assert machine.outcome == TRANSFER


EVENTS: st.SearchStrategy[Event] = st.sampled_from(
    [
        *TO_TALKING[1:],
        CallerLeft("gone"),
        MediaLost("lost"),
        ControlFailed("failed"),
        AgentFailed("failed"),
        AgentEnding(DONE),
        AgentEnding(TRANSFER),
        AgentClosed(DONE),
        AgentClosed(LOST),
        PlayedOut(),
        EndRequested(DONE),
        *(TimerFired(timer) for timer in Timer),
    ]
)


@given(st.booleans(), st.lists(EVENTS, max_size=30))
def test_no_order_of_events_leaves_the_table(answered: bool, events: list[Event]) -> None:
    machine = CallMachine()
    effects = machine.handle(CallerEntered(answered))
    for event in [*events, TimerFired(Timer.CALL)]:
        effects += machine.handle(event)
    assert state_of(machine) is State.RELEASING
    assert len(released(effects)) == 1
    assert effects[-1] == released(effects)[0], "nothing is asked for once everything is given back"
    assert released(effects)[0].outcome == machine.outcome
    for single in (JoinMedia(), JoinCaller(), AnswerCaller(), StartAudio(), PlayOut()):
        assert effects.count(single) <= 1
    machine.handle(Released())
    assert machine.handle(CallerLeft("late")) == []
    assert state_of(machine) is State.ENDED
