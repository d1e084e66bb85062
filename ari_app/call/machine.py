"""The call's machine: events in, effects out. It knows neither sockets nor clocks.

The order in which Asterisk, the line and the agent report is theirs to choose; the machine takes
any order. An event that comes too late to matter (the agent answers a call that is being released)
changes nothing.

:mod:`ari_app.call.arriving` decides on the way in, :mod:`ari_app.call.passing_on` while the caller
hears music, :mod:`ari_app.call.recovering` when the agent was lost; the middle and the way out are
here.
"""

from __future__ import annotations

from collections.abc import Iterator

from ari_app.call import arriving, passing_on, recovering
from ari_app.call.course import Course
from ari_app.call.signals import (
    AgentClosed,
    AgentEnding,
    AgentFailed,
    AgentLost,
    AgentNamed,
    AgentReady,
    AgentResumed,
    BridgeMade,
    CalleeAnswered,
    CalleeLost,
    CalleeRings,
    CalleeScreened,
    CallerAnswered,
    CallerEntered,
    CallerJoined,
    CallerLeft,
    CallerWaits,
    CallWanted,
    CancelTimer,
    ConsultRequested,
    ControlFailed,
    Effect,
    EndRequested,
    Event,
    HoldRequested,
    MediaEntered,
    MediaJoined,
    MediaLost,
    Outcome,
    PhoneHeld,
    PlayedOut,
    Refused,
    Released,
    SetTimer,
    SilenceHeard,
    SpeechHeard,
    Status,
    TargetAnswered,
    TargetJoined,
    TargetLost,
    Timer,
    TimerFired,
)
from ari_app.call.states import OVER, State, Step

_CALL_TIMEOUT = Outcome(Status.TIMEOUT, "call_timeout")
_NO_SPEECH = Outcome(Status.TIMEOUT, "no_speech")
_HELD_TOO_LONG = Outcome(Status.TIMEOUT, "hold_timeout")


class CallMachine:
    """Decides what happens next in one call."""

    def __init__(self) -> None:
        self._course = Course()

    @property
    def state(self) -> State:
        """Where the call is."""
        return self._course.state

    @property
    def outcome(self) -> Outcome | None:
        """How it ends; known from the moment that it is decided, None before."""
        return self._course.outcome

    @property
    def ends(self) -> bool:
        """Whether it is decided that the call ends, now or once what was said has been heard."""
        return self.outcome is not None or self._course.ending is not None

    def handle(self, event: Event) -> list[Effect]:
        """Take one event and return what is to be done, in order.

        Raises:
            IllegalStep: Our own fault: the caller of this method started a call twice, or released
                it before the machine asked for that. State and flags are as before.
        """
        return list(self._handle(event))

    def _handle(self, event: Event) -> Iterator[Effect]:
        course = self._course
        match event:
            case Released():
                course.step(Step.RELEASED)
            case CallerEntered() | CallerWaits() | CallWanted():
                yield from arriving.begin(course, event)
            case Refused(outcome):
                yield from course.stop(outcome)
            case _ if course.state in OVER:
                return
            case AgentReady() if course.state is State.RECOVERING:
                yield from recovering.ready(course)
            case AgentResumed():
                yield from recovering.resumed(course)
            case AgentFailed() if course.state is State.RECOVERING:
                yield from recovering.failed(course)
            case AgentFailed() if course.state is State.CLOSING:
                yield from course.agent_done(course.decided())
            case AgentFailed() if course.state is State.DRAINING:
                pass  # what it had to say is queued
            case AgentLost() if recovering.possible(course):
                yield from recovering.lost(course, event)
            case (
                BridgeMade() | MediaEntered() | MediaJoined() | AgentReady() | CallerAnswered()
            ) | CallerJoined():
                yield from arriving.join(course, event)
            case AgentNamed() | CalleeRings() | CalleeAnswered() | CalleeScreened() | CalleeLost():
                yield from arriving.arrive(course, event)
            case SpeechHeard() | SilenceHeard():
                yield from arriving.greeting(course, event)
            case HoldRequested(on):
                yield from passing_on.hold(course, on=on)
            case PhoneHeld() if course.state is State.HANDED_OVER:
                pass  # that is between the two
            case PhoneHeld(on):
                yield SetTimer(Timer.HOLD) if on else CancelTimer(Timer.HOLD)
            case ConsultRequested() | TargetAnswered() | TargetJoined() | TargetLost():
                yield from passing_on.consult(course, event)
            case AgentEnding(outcome):
                yield from self._agent_ending(outcome)
            case AgentClosed(outcome) | AgentLost(outcome):
                yield from self._agent_closed(outcome)
            case PlayedOut():
                if course.state is State.DRAINING:
                    outcome = course.decided()
                    yield from course.release(Step.PLAYED_OUT, outcome, caller_present=True)
            case TimerFired(timer):
                yield from self._timer_fired(timer)
            case CallerLeft(reason):
                outcome = Outcome(Status.COMPLETED, reason)
                yield from course.release(Step.CALLER_GONE, outcome, caller_present=False)
            case MediaLost() | AgentFailed() if course.state is State.HANDED_OVER:
                pass  # the agent's part has been given back
            case ControlFailed() if course.together:
                pass  # the two speak, and nothing more is needed for it
            case MediaLost() if course.state is State.BRIEFING:
                yield from passing_on.hand_over(course)
            case MediaLost(reason) | ControlFailed(reason) | AgentFailed(reason):
                yield from course.stop(Outcome(Status.FAILED, reason))
            case EndRequested(outcome):
                yield from course.stop(outcome)

    def _agent_ending(self, outcome: Outcome) -> Iterator[Effect]:
        course = self._course
        yield from recovering.resumed(course)
        match course.state:
            case State.RINGING | State.CONNECTING | State.JOINING | State.GREETING:
                # What the agent has said is queued; the caller shall hear it.
                course.ending = course.ending or outcome
            case State.TALKING:
                yield from course.agent_ends(outcome)
            case State.HOLDING:
                yield from course.stop(outcome)
            case _:
                pass  # the agent's close, which follows, is what counts

    def _agent_closed(self, outcome: Outcome) -> Iterator[Effect]:
        course = self._course
        match course.state:
            case State.RINGING | State.CONNECTING if course.ending is None:
                # Nothing has been said that the caller could hear.
                yield from course.stop(Outcome(Status.FAILED, outcome.reason))
            case State.RINGING | State.CONNECTING | State.JOINING | State.GREETING:
                # What the agent has said is queued; the caller shall hear it.
                course.agent_closed = course.ending or outcome
            case State.TALKING:
                yield from course.agent_done(outcome)
            case State.CLOSING:
                yield from course.agent_done(course.decided())
            case State.HOLDING | State.CONSULTING:
                yield from course.stop(outcome)
            case State.BRIEFING:
                yield from passing_on.hand_over(course)
            case State.RECOVERING:
                yield from recovering.failed(course)
            case _:
                pass

    def _timer_fired(self, timer: Timer) -> Iterator[Effect]:
        course = self._course
        match timer, course.state:
            case Timer.CLOSE, State.CLOSING:
                # The agent said good-bye but keeps its socket open: take it at its word.
                yield from course.agent_done(course.decided())
            case Timer.SPEECH, State.TALKING:
                yield from course.stop(_NO_SPEECH)
            case Timer.HOLD, _:
                yield from course.stop(_HELD_TOO_LONG)
            case Timer.CALL, _:
                yield from course.stop(_CALL_TIMEOUT)
            case (Timer.CONSULT, _) | (Timer.BRIEF, _) | (Timer.JOIN, State.BRIEFING):
                yield from passing_on.time_is_up(course, timer)
            case (Timer.RECONNECT, _) | (Timer.COVER, _) | (Timer.RESUME, _):
                yield from recovering.time_is_up(course, timer)
            case _:
                yield from arriving.time_is_up(course, timer)
