"""What the machine makes of a lost agent, state by state."""

from __future__ import annotations

import pytest

from ari_app.call.signals import (
    AgentClosed,
    AgentEnding,
    AgentFailed,
    AgentLost,
    AgentReady,
    AgentResumed,
    CancelTimer,
    ConnectCaller,
    DropTarget,
    EndRequested,
    Event,
    HandOver,
    PlayedOut,
    PlayKept,
    PlayMusic,
    PlayOut,
    PlayPhrase,
    PromptAgent,
    Release,
    ReplaceAgent,
    SetTimer,
    SilenceHeard,
    StartAudio,
    TellTarget,
    Timer,
    TimerFired,
)
from ari_app.call.states import State
from ari_app.line.interface import Answered, Connected, Opened, Outcome, Status
from tests.unit.call.test_machine import DONE, LOST, TO_TALKING, WAYS_TO, run, state_of

LOSS = AgentLost(LOST)
CRASHED = Outcome(Status.FAILED, "crashed")
FAILED = Release(LOST)


def test_what_is_queued_is_heard_then_music_then_the_new_agent() -> None:
    machine, effects = run(*TO_TALKING, LOSS)
    assert state_of(machine) is State.RECOVERING
    assert effects == [
        SetTimer(Timer.RECONNECT),
        SetTimer(Timer.COVER),
        ReplaceAgent(heard=True),
    ]
    assert machine.handle(TimerFired(Timer.COVER)) == [PlayMusic()]
    assert machine.handle(AgentReady()) == [CancelTimer(Timer.RECONNECT), SetTimer(Timer.RESUME)]
    assert machine.handle(AgentResumed())[-1] == ConnectCaller()
    assert state_of(machine) is State.TALKING
    assert machine.handle(Connected()) == [PlayKept()]


def test_a_phrase_goes_before_the_music() -> None:
    machine, _ = run(*TO_TALKING, AgentLost(LOST, phrase=True))
    assert machine.handle(TimerFired(Timer.COVER)) == [PlayPhrase(), SetTimer(Timer.COVER)]
    assert machine.handle(TimerFired(Timer.COVER)) == [PlayMusic()]


def test_an_agent_that_returns_at_once_needs_no_cover() -> None:
    machine, _ = run(*TO_TALKING, LOSS, AgentReady())
    assert machine.handle(AgentResumed()) == [
        CancelTimer(Timer.RECONNECT),
        CancelTimer(Timer.COVER),
        CancelTimer(Timer.RESUME),
        PlayKept(),
    ]
    assert machine.handle(AgentResumed()) == []


def test_a_new_agent_that_says_nothing_is_asked_to_and_the_caller_may_speak() -> None:
    machine, _ = run(*TO_TALKING, LOSS, AgentReady())
    effects = machine.handle(TimerFired(Timer.RESUME))
    assert effects[0] == PromptAgent()
    assert state_of(machine) is State.TALKING


@pytest.mark.parametrize(
    "event",
    [
        AgentFailed("agent_unavailable"),
        AgentLost(CRASHED),
        AgentClosed(DONE),
        TimerFired(Timer.RECONNECT),
    ],
    ids=repr,
)
def test_a_call_whose_agent_does_not_return_has_failed_with_the_first_reason(event: Event) -> None:
    _, effects = run(*TO_TALKING, LOSS, event)
    assert effects[-1] == FAILED


def test_a_second_loss_ends_the_call_after_what_is_queued() -> None:
    machine, effects = run(*TO_TALKING, LOSS, AgentReady(), AgentResumed(), AgentLost(CRASHED))
    assert effects == [CancelTimer(Timer.CLOSE), PlayOut()]
    assert machine.handle(PlayedOut())[-1] == Release(CRASHED)


def test_a_caller_on_hold_hears_music_until_the_new_agent_speaks() -> None:
    machine, effects = run(*WAYS_TO[State.HOLDING], LOSS)
    assert effects == [SetTimer(Timer.RECONNECT), ReplaceAgent(heard=True)]
    machine.handle(AgentReady())
    assert machine.handle(AgentResumed())[-1] == ConnectCaller()


def test_a_consultation_is_given_up() -> None:
    machine, effects = run(*WAYS_TO[State.CONSULTING], LOSS)
    assert effects == [
        CancelTimer(Timer.CONSULT),
        DropTarget(),
        TellTarget("agent_lost"),
        SetTimer(Timer.RECONNECT),
        ReplaceAgent(heard=True),
    ]
    assert state_of(machine) is State.RECOVERING


def test_caller_and_target_are_connected_when_the_agent_is_lost_between_them() -> None:
    machine, effects = run(*WAYS_TO[State.BRIEFING], LOSS)
    assert state_of(machine) is State.HANDED_OVER
    assert effects[-1] == HandOver()


def test_an_agent_that_has_said_good_bye_is_not_lost() -> None:
    machine, effects = run(*WAYS_TO[State.CLOSING], LOSS)
    assert state_of(machine) is State.DRAINING
    assert effects == [CancelTimer(Timer.CLOSE), PlayOut()]
    assert machine.outcome is not None
    assert machine.outcome.status is Status.TRANSFER


def test_before_the_caller_is_there_another_one_is_dialled_and_may_greet() -> None:
    machine, effects = run(*WAYS_TO[State.CONNECTING], AgentReady(), LOSS)
    assert effects == [ReplaceAgent(heard=False)]
    assert machine.handle(Opened()) == [], "nobody is there to talk with"
    machine.handle(AgentReady())
    assert state_of(machine) is State.JOINING
    _, effects = run(*WAYS_TO[State.CONNECTING], AgentReady(), LOSS, AgentReady(), LOSS)
    assert effects[-1] == FAILED


def test_while_it_rings_too() -> None:
    machine, effects = run(*WAYS_TO[State.RINGING], AgentReady(), LOSS)
    assert effects == [ReplaceAgent(heard=False)]
    machine.handle(Answered())
    assert state_of(machine) is State.CONNECTING


@pytest.mark.parametrize(
    ("state", "joined"),
    [
        (State.JOINING, (Connected(),)),
        (State.GREETING, (SilenceHeard(),)),
    ],
)
def test_one_lost_just_before_is_replaced_once_the_caller_is_there(
    state: State, joined: tuple[Event, ...]
) -> None:
    machine, effects = run(*WAYS_TO[state], LOSS)
    assert effects == []
    for event in joined:
        effects = machine.handle(event)
    assert state_of(machine) is State.RECOVERING
    assert StartAudio() in effects
    assert effects[-1] == ReplaceAgent(heard=True)


def test_a_tool_that_ends_the_call_still_does() -> None:
    machine, effects = run(*TO_TALKING, LOSS, AgentEnding(DONE))
    assert state_of(machine) is State.CLOSING
    assert effects[-1] == SetTimer(Timer.CLOSE)
    assert machine.handle(AgentReady()) == []


def test_whoever_ends_the_call_meanwhile_ends_it() -> None:
    _, effects = run(*TO_TALKING, LOSS, EndRequested(DONE))
    assert effects[-1] == Release(DONE)


@pytest.mark.parametrize("timer", [Timer.COVER, Timer.RECONNECT, Timer.RESUME])
def test_a_timer_that_is_late_changes_nothing(timer: Timer) -> None:
    _, effects = run(*TO_TALKING, LOSS, AgentReady(), AgentResumed(), TimerFired(timer))
    assert effects == []
