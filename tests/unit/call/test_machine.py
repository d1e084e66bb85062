from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.amd import OnMachine
from ari_app.call.machine import CallMachine
from ari_app.call.signals import (
    AgentClosed,
    AgentEnding,
    AgentFailed,
    AgentLost,
    AgentReady,
    AgentResumed,
    BringIn,
    CalleeScreened,
    CallerArrived,
    CallTarget,
    CallWanted,
    CancelTimer,
    ConnectAgent,
    ConnectCaller,
    ConsultRequested,
    DropTarget,
    Effect,
    EndRequested,
    Event,
    GiveBack,
    GiveBackRequested,
    HandOver,
    HoldRequested,
    OpenLine,
    PlaceCall,
    PlayedOut,
    PlayKept,
    PlayMusic,
    PlayOut,
    Refused,
    Release,
    Released,
    ReplaceAgent,
    RingCaller,
    ScreenCall,
    SetTimer,
    SilenceHeard,
    SpeechHeard,
    StartAudio,
    TakeOver,
    TakeOverEnded,
    TakeOverRequested,
    TellTarget,
    Timer,
    TimerFired,
    WatchSpeech,
)
from ari_app.call.states import IllegalStep, State
from ari_app.call.taking_over import GIVEN_UP
from ari_app.line.interface import (
    Answered,
    Connected,
    Ended,
    LineFailed,
    Opened,
    Outcome,
    PhoneHeld,
    Result,
    Rings,
    SoundLost,
    Status,
    TargetConnected,
    TargetLost,
)

DONE = Outcome(Status.COMPLETED, "agent_ended")
LOST = Outcome(Status.FAILED, "lost")
TRANSFER = Outcome(Status.TRANSFER, "agent_transfer", transfer_to="200")
TO_TALKING: tuple[Event, ...] = (
    CallerArrived(answered=False),
    Opened(),
    AgentReady(),
    Connected(),
)
TO_GREETING: tuple[Event, ...] = (
    CallWanted(screened=True),
    Rings(),
    Answered(),
    CalleeScreened(OnMachine.LEAVE_MESSAGE),
    Opened(),
    AgentReady(),
    Connected(),
)
TO_BRIEFING: tuple[Event, ...] = (
    *TO_TALKING,
    ConsultRequested("+493023125001"),
    TargetConnected(),
)
WAYS_TO = {
    State.CONNECTING: TO_TALKING[:1],
    State.JOINING: TO_TALKING[:3],
    State.TALKING: TO_TALKING,
    State.CLOSING: (*TO_TALKING, AgentEnding(TRANSFER)),
    State.DRAINING: (*TO_TALKING, AgentClosed(DONE)),
    State.DIALLING: (CallWanted(screened=False),),
    State.RINGING: (CallWanted(screened=False), Rings()),
    State.SCREENING: (CallWanted(screened=True), Rings(), Answered()),
    State.GREETING: TO_GREETING,
    State.HOLDING: (*TO_TALKING, HoldRequested(on=True)),
    State.CONSULTING: (*TO_TALKING, ConsultRequested("+493023125001")),
    State.BRIEFING: TO_BRIEFING,
    State.HANDED_OVER: (*TO_BRIEFING, TimerFired(Timer.BRIEF)),
    State.RECOVERING: (*TO_TALKING, AgentLost(LOST)),
    State.TAKEN_OVER: (*TO_TALKING, TakeOverRequested("2001"), TargetConnected()),
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
    machine, effects = run(CallerArrived(answered=False))
    assert state_of(machine) is State.CONNECTING
    assert effects == [
        SetTimer(Timer.CALL),
        SetTimer(Timer.CONNECT),
        RingCaller(),
        ConnectAgent(),
        OpenLine(),
    ]


def test_a_call_that_is_up_does_not_ring_and_is_not_answered_again() -> None:
    machine, effects = run(CallerArrived(answered=True))
    assert RingCaller() not in effects
    for event in (Opened(),):
        machine.handle(event)
    assert machine.handle(AgentReady()) == [
        CancelTimer(Timer.CONNECT),
        SetTimer(Timer.JOIN),
        ConnectCaller(),
    ]


@pytest.mark.parametrize("order", [(Opened(), AgentReady()), (AgentReady(), Opened())], ids=repr)
def test_the_caller_is_connected_when_agent_and_line_are_ready(order: tuple[Event, Event]) -> None:
    machine, _ = run(*TO_TALKING[:1])
    assert machine.handle(order[0]) == []
    effects = machine.handle(order[1])
    assert effects == [CancelTimer(Timer.CONNECT), SetTimer(Timer.JOIN), ConnectCaller()]
    assert state_of(machine) is State.JOINING


def test_a_line_that_is_not_ready_in_time_is_told_from_an_agent() -> None:
    _, effects = run(*WAYS_TO[State.CONNECTING], AgentReady(), TimerFired(Timer.CONNECT))
    assert released(effects) == [Release(Outcome(Status.FAILED, "connect_timeout"))]


def test_sound_starts_when_the_caller_is_connected() -> None:
    machine, effects = run(*TO_TALKING)
    assert state_of(machine) is State.TALKING
    assert effects == [CancelTimer(Timer.JOIN), StartAudio(), SetTimer(Timer.SPEECH)]


def test_the_agents_end_is_played_out_before_the_caller_goes_on() -> None:
    machine, effects = run(*TO_TALKING, AgentClosed(DONE))
    assert state_of(machine) is State.DRAINING
    assert PlayOut() in effects
    assert not released(effects)
    effects = machine.handle(PlayedOut())
    assert released(effects) == [Release(DONE)]
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
    effects = machine.handle(Connected())
    assert state_of(machine) is State.DRAINING
    assert effects.index(StartAudio()) < effects.index(PlayOut())


def test_an_agent_that_closes_before_it_was_heard_has_failed() -> None:
    _, effects = run(*WAYS_TO[State.CONNECTING], AgentClosed(DONE))
    assert released(effects) == [Release(Outcome(Status.FAILED, "agent_ended"))]


@pytest.mark.parametrize("state", WAYS_TO)
def test_the_caller_hangs_up(state: State) -> None:
    machine, effects = run(*WAYS_TO[state], Ended("caller_hung_up"))
    assert state_of(machine) is State.RELEASING
    expected = Release(Outcome(Status.COMPLETED, "caller_hung_up"))
    assert effects == [*(CancelTimer(timer) for timer in Timer), expected]


@pytest.mark.parametrize("state", WAYS_TO)
@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (SoundLost("line_lost"), Outcome(Status.FAILED, "line_lost")),
        (LineFailed("ari_timeout"), Outcome(Status.FAILED, "ari_timeout")),
        (TimerFired(Timer.CALL), Outcome(Status.TIMEOUT, "call_timeout")),
        (EndRequested(DONE), DONE),
    ],
    ids=repr,
)
def test_whatever_stops_a_call_the_caller_goes_on(
    state: State, event: Event, outcome: Outcome
) -> None:
    machine, effects = run(*WAYS_TO[state], event)
    if state is State.HANDED_OVER and isinstance(event, SoundLost):
        assert effects == [], "the agent's part has been given back"
        return
    if state in (State.BRIEFING, State.TAKEN_OVER) and isinstance(event, SoundLost):
        assert HandOver() in effects, "the two can speak without the agent"
        return
    assert released(effects) == [Release(outcome)]
    assert machine.outcome == outcome


@pytest.mark.parametrize("state", [State.RINGING, State.CONNECTING, State.TALKING])
def test_an_agent_that_cannot_be_had_ends_the_call(state: State) -> None:
    _, effects = run(*WAYS_TO[state], AgentFailed("agent_unavailable"))
    failed = Outcome(Status.FAILED, "agent_unavailable")
    assert released(effects) == [Release(failed)]


@pytest.mark.parametrize("state", [State.CLOSING, State.DRAINING])
def test_an_agent_that_cannot_be_had_again_takes_nothing_back(state: State) -> None:
    machine, _ = run(*WAYS_TO[state])
    decided = machine.outcome
    machine.handle(AgentFailed("agent_unavailable"))
    assert state_of(machine) is State.DRAINING
    assert machine.outcome == decided


@pytest.mark.parametrize(
    ("timer", "state", "reason"),
    [
        (Timer.CONNECT, State.CONNECTING, "agent_timeout"),
        (Timer.JOIN, State.JOINING, "join_timeout"),
    ],
)
def test_what_takes_too_long_fails(timer: Timer, state: State, reason: str) -> None:
    _, effects = run(*WAYS_TO[state], TimerFired(timer))
    assert released(effects) == [Release(Outcome(Status.FAILED, reason))]


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.TALKING, TimerFired(Timer.CONNECT)),
        (State.TALKING, TimerFired(Timer.JOIN)),
        (State.TALKING, TimerFired(Timer.CLOSE)),
        (State.TALKING, PlayedOut()),
        (State.DRAINING, AgentClosed(LOST)),
        (State.CONSULTING, AgentEnding(DONE)),
        (State.CONNECTING, Connected()),
        (State.DRAINING, Opened()),
        (State.JOINING, Opened()),
    ],
    ids=repr,
)
def test_what_comes_too_late_changes_nothing(state: State, event: Event) -> None:
    machine, effects = run(*WAYS_TO[state], event)
    assert state_of(machine) is state
    assert effects == []


BEFORE_THE_CALLER = (State.RINGING, State.CONNECTING, State.JOINING, State.GREETING)


@pytest.mark.parametrize(
    "close", [None, AgentClosed(LOST), AgentLost(LOST, phrase=False)], ids=repr
)
@pytest.mark.parametrize("state", BEFORE_THE_CALLER)
def test_what_the_agent_ends_before_the_caller_is_there_ends_when_it_was_heard(
    state: State, close: Event | None
) -> None:
    machine, _ = run(*WAYS_TO[state])
    effects = [] if state in (State.JOINING, State.GREETING) else machine.handle(AgentReady())
    effects += machine.handle(AgentEnding(TRANSFER))
    assert machine.ends
    effects += machine.handle(AgentEnding(DONE))
    if close is not None:
        effects += machine.handle(close)
    for event in (Answered(), Opened(), Connected(), SilenceHeard()):
        effects += machine.handle(event)
    assert StartAudio() in effects
    assert not released(effects)
    assert ReplaceAgent(heard=False) not in effects and ReplaceAgent(heard=True) not in effects
    if close is None:
        assert state_of(machine) is State.CLOSING
        effects += machine.handle(TimerFired(Timer.CLOSE))
    assert state_of(machine) is State.DRAINING
    assert PlayOut() in effects
    assert released(machine.handle(PlayedOut())) == [Release(TRANSFER)]


def test_a_refused_call_goes_on_at_once() -> None:
    refusal = Outcome(Status.REJECTED, "at_capacity")
    machine, effects = run(Refused(refusal))
    assert released(effects) == [Release(refusal)]
    assert state_of(machine) is State.RELEASING


def test_an_illegal_step_changes_nothing() -> None:
    machine, _ = run(*TO_TALKING, AgentEnding(TRANSFER))
    begun = (CallerArrived(answered=True), CallWanted(screened=False))
    for event in (*begun, Released()):
        with pytest.raises(IllegalStep):
            machine.handle(event)
        assert state_of(machine) is State.CLOSING
        assert machine.outcome == TRANSFER


# --- calls that we place


def test_the_agent_is_dialled_while_it_rings() -> None:
    machine, effects = run(CallWanted(screened=False))
    assert effects == [SetTimer(Timer.RING), PlaceCall()]
    assert machine.handle(Rings()) == [ConnectAgent(), OpenLine()]
    assert machine.handle(Rings()) == []
    for event in (Opened(), AgentReady()):
        assert ConnectCaller() not in machine.handle(event)
    assert machine.handle(Answered()) == [
        CancelTimer(Timer.RING),
        SetTimer(Timer.CALL),
        SetTimer(Timer.CONNECT),
        CancelTimer(Timer.CONNECT),
        SetTimer(Timer.JOIN),
        ConnectCaller(),
    ]
    assert state_of(machine) is State.JOINING


def test_who_answers_at_once_gets_the_agent_then() -> None:
    machine, effects = run(CallWanted(screened=False), Answered())
    assert effects[-2:] == [ConnectAgent(), OpenLine()]
    assert state_of(machine) is State.CONNECTING


@pytest.mark.parametrize("state", [State.DIALLING, State.RINGING])
def test_a_callee_who_does_not_answer(state: State) -> None:
    _, effects = run(*WAYS_TO[state], Ended("busy", Result.BUSY))
    assert released(effects) == [Release(Outcome(Status.FAILED, "busy"))]


@pytest.mark.parametrize(
    ("state", "result"), [(State.DIALLING, "unreachable"), (State.RINGING, "no_answer")]
)
def test_it_rings_for_so_long_only(state: State, result: str) -> None:
    _, effects = run(*WAYS_TO[state], TimerFired(Timer.RING))
    assert released(effects) == [Release(Outcome(Status.FAILED, result))]


def test_an_agent_that_closes_while_it_rings_has_failed() -> None:
    _, effects = run(*WAYS_TO[State.RINGING], AgentClosed(DONE))
    assert released(effects) == [Release(Outcome(Status.FAILED, "agent_ended"))]


def test_the_agent_is_told_who_answered() -> None:
    machine, effects = run(CallWanted(screened=True), Rings())
    assert effects == [OpenLine()]
    effects = machine.handle(Answered())
    assert effects[-2:] == [SetTimer(Timer.SCREEN), ScreenCall()]
    effects = machine.handle(CalleeScreened(OnMachine.TALK))
    assert effects == [CancelTimer(Timer.SCREEN), SetTimer(Timer.CONNECT), ConnectAgent()]


def test_a_machine_is_hung_up_on() -> None:
    _, effects = run(*WAYS_TO[State.SCREENING], CalleeScreened(OnMachine.HANG_UP))
    assert released(effects) == [Release(Outcome(Status.COMPLETED, "machine_detected"))]
    _, effects = run(CallerArrived(answered=True, on_machine=OnMachine.HANG_UP))
    assert released(effects) == [Release(Outcome(Status.COMPLETED, "machine_detected"))]


def test_screening_takes_so_long_only() -> None:
    _, effects = run(*WAYS_TO[State.SCREENING], TimerFired(Timer.SCREEN))
    assert released(effects) == [Release(Outcome(Status.FAILED, "screening_timeout"))]


def test_a_machines_greeting_is_heard_to_its_end() -> None:
    machine, effects = run(*TO_GREETING)
    assert state_of(machine) is State.GREETING
    assert effects == [
        CancelTimer(Timer.JOIN),
        SetTimer(Timer.QUIET),
        SetTimer(Timer.GREETING),
        WatchSpeech(),
    ]
    assert machine.handle(SpeechHeard()) == [CancelTimer(Timer.QUIET)]
    effects = machine.handle(SilenceHeard())
    assert state_of(machine) is State.TALKING
    assert StartAudio() in effects
    assert machine.handle(SilenceHeard()) == []
    assert machine.handle(SpeechHeard()) == []


@pytest.mark.parametrize("timer", [Timer.QUIET, Timer.GREETING])
def test_a_message_is_left_without_an_end_of_the_greeting(timer: Timer) -> None:
    machine, effects = run(*TO_GREETING, AgentClosed(DONE), TimerFired(timer))
    assert effects.index(StartAudio()) < effects.index(PlayOut())
    assert state_of(machine) is State.DRAINING


# --- hold


def test_a_caller_on_hold_hears_music() -> None:
    machine, effects = run(*TO_TALKING, HoldRequested(on=True))
    assert effects == [PlayMusic()]
    assert machine.handle(HoldRequested(on=True)) == []
    assert machine.handle(HoldRequested(on=False)) == [ConnectCaller()]
    assert state_of(machine) is State.TALKING
    assert machine.handle(Connected()) == [PlayKept()]
    assert machine.handle(HoldRequested(on=False)) == []


@pytest.mark.parametrize(
    "meanwhile",
    [
        (),
        (AgentLost(LOST),),
        (AgentEnding(DONE),),
        (AgentClosed(DONE),),
        (AgentEnding(DONE), AgentClosed(DONE)),
    ],
    ids=repr,
)
def test_whoever_comes_back_from_hold_hears_what_was_said_meanwhile(
    meanwhile: tuple[Event, ...],
) -> None:
    back = HoldRequested(on=False)
    _, effects = run(*WAYS_TO[State.HOLDING], back, *meanwhile, Connected())
    assert effects == [PlayKept()]


def test_in_the_music_of_a_lost_agent_nothing_is_said() -> None:
    _, effects = run(*WAYS_TO[State.RECOVERING], TimerFired(Timer.COVER), Connected())
    assert effects == []


@pytest.mark.parametrize("event", [AgentEnding(TRANSFER), AgentClosed(TRANSFER)], ids=repr)
def test_an_agent_that_ends_while_the_caller_is_on_hold(event: Event) -> None:
    _, effects = run(*WAYS_TO[State.HOLDING], event)
    assert released(effects) == [Release(TRANSFER)]


def test_a_phone_that_holds_us_has_so_long_only() -> None:
    machine, effects = run(*TO_TALKING, PhoneHeld(on=True))
    assert effects == [SetTimer(Timer.HOLD)]
    assert machine.handle(PhoneHeld(on=False)) == [CancelTimer(Timer.HOLD)]
    effects = machine.handle(TimerFired(Timer.HOLD))
    assert released(effects) == [Release(Outcome(Status.TIMEOUT, "hold_timeout"))]


def test_a_call_in_which_nobody_speaks_ends() -> None:
    _, effects = run(*TO_TALKING, TimerFired(Timer.SPEECH))
    assert released(effects) == [Release(Outcome(Status.TIMEOUT, "no_speech"))]


# --- transfers


def test_a_target_is_briefed_and_gets_the_caller() -> None:
    machine, effects = run(*TO_TALKING, ConsultRequested("+493023125001"))
    assert effects == [PlayMusic(), SetTimer(Timer.CONSULT), CallTarget("+493023125001")]
    assert machine.handle(TargetConnected()) == [
        CancelTimer(Timer.CONSULT),
        TellTarget(None),
        SetTimer(Timer.BRIEF),
    ]
    assert machine.handle(TimerFired(Timer.BRIEF)) == [
        CancelTimer(Timer.BRIEF),
        CancelTimer(Timer.CALL),
        CancelTimer(Timer.SPEECH),
        CancelTimer(Timer.HOLD),
        HandOver(),
    ]
    assert state_of(machine) is State.HANDED_OVER
    assert machine.handle(Connected()) == []
    for event in (
        *(SoundLost("gone"), AgentClosed(DONE), AgentFailed("silent"), LineFailed("late")),
        *(TargetConnected(), PhoneHeld(on=True), PhoneHeld(on=False)),
    ):
        assert machine.handle(event) == [], "the two are left alone"
    effects = machine.handle(TargetLost("hung_up"))
    assert released(effects) == [Release(Outcome(Status.COMPLETED, "transferred"))]


@pytest.mark.parametrize("state", [State.CONSULTING, State.BRIEFING])
@pytest.mark.parametrize(
    ("event", "why"), [(TargetLost("busy"), "busy"), (GiveBackRequested(), GIVEN_UP)], ids=repr
)
def test_a_target_that_is_lost_brings_the_caller_back(state: State, event: Event, why: str) -> None:
    machine, effects = run(*WAYS_TO[state], event)
    assert state_of(machine) is State.TALKING
    assert effects == [
        CancelTimer(Timer.CONSULT),
        CancelTimer(Timer.BRIEF),
        DropTarget(),
        ConnectCaller(),
        TellTarget(why),
    ]


def test_a_target_that_does_not_answer_is_given_up() -> None:
    machine, effects = run(*WAYS_TO[State.CONSULTING], TimerFired(Timer.CONSULT))
    assert state_of(machine) is State.TALKING
    assert effects[-1] == TellTarget("no_answer")


def test_an_agent_that_is_lost_in_a_transfer() -> None:
    _, effects = run(*WAYS_TO[State.CONSULTING], AgentClosed(LOST))
    assert released(effects) == [Release(LOST)]
    machine, effects = run(*WAYS_TO[State.BRIEFING], AgentClosed(LOST))
    assert HandOver() in effects
    assert state_of(machine) is State.HANDED_OVER


EVENTS: st.SearchStrategy[Event] = st.sampled_from(
    [
        *TO_TALKING[1:],
        Ended("gone"),
        SoundLost("lost"),
        LineFailed("failed"),
        AgentFailed("failed"),
        AgentEnding(DONE),
        AgentEnding(TRANSFER),
        AgentClosed(DONE),
        AgentClosed(LOST),
        *(AgentLost(LOST, phrase) for phrase in (True, False)),
        AgentResumed(),
        PlayedOut(),
        EndRequested(DONE),
        *(TimerFired(timer) for timer in Timer),
        Rings(),
        Answered(),
        *(CalleeScreened(action) for action in OnMachine),
        Ended("busy", Result.BUSY),
        SpeechHeard(),
        SilenceHeard(),
        *(HoldRequested(on) for on in (True, False)),
        *(PhoneHeld(on) for on in (True, False)),
        ConsultRequested("+493023125001"),
        TakeOverRequested("2001"),
        GiveBackRequested(),
        TargetConnected(),
        TargetLost("busy"),
    ]
)
BEGINNINGS: st.SearchStrategy[Event] = st.sampled_from(
    [
        *(CallerArrived(answered, action) for answered in (True, False) for action in OnMachine),
        *(CallWanted(screened) for screened in (True, False)),
    ]
)


@given(BEGINNINGS, st.lists(EVENTS, max_size=40))
def test_no_order_of_events_leaves_the_table(beginning: Event, events: list[Event]) -> None:
    machine = CallMachine()
    effects = machine.handle(beginning)
    for event in [*events, TimerFired(Timer.CALL)]:
        effects += machine.handle(event)
    assert state_of(machine) is State.RELEASING
    assert len(released(effects)) == 1
    assert effects[-1] == released(effects)[0], "nothing is asked for once everything is given back"
    assert released(effects)[0].outcome == machine.outcome
    # One for a lost agent, and one each time that a call without one is given back.
    replaced = sum(isinstance(effect, ReplaceAgent) for effect in effects)
    assert replaced <= 1 + sum(isinstance(effect, GiveBack) and effect.lost for effect in effects)
    rang = sum(isinstance(effect, BringIn) for effect in effects)
    came = sum(isinstance(effect, TakeOver | TakeOverEnded) for effect in effects)
    assert rang == came, "each supervisor comes or does not"
    once = (ConnectAgent(), OpenLine(), HandOver(), WatchSpeech())
    for single in (*once, StartAudio(), PlayOut()):
        assert effects.count(single) <= 1
    machine.handle(Released())
    assert machine.handle(Ended("late")) == []
    assert state_of(machine) is State.ENDED
