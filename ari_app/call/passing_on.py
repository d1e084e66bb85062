"""The machine's part for callers who do not hear the agent: hold and attended transfer. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ari_app.call.course import Course
from ari_app.call.results import Result
from ari_app.call.signals import (
    CallTarget,
    CancelTimer,
    ConsultRequested,
    DropAgent,
    DropTarget,
    Effect,
    JoinTarget,
    Outcome,
    PlayMusic,
    SetTimer,
    Status,
    TargetAnswered,
    TargetJoined,
    TargetLost,
    TellTarget,
    Timer,
)
from ari_app.call.states import State, Step

_HANDED_OVER = Outcome(Status.COMPLETED, "transferred")


def hold(course: Course, *, on: bool) -> Iterator[Effect]:
    """The caller is to hear music, or the agent again."""
    match course.state, on:
        case State.TALKING, True:
            course.step(Step.HOLD)
            course.music = True
            yield PlayMusic()
        case State.HOLDING, False:
            course.step(Step.UNHOLD)
            yield course.join_caller()
        case _:
            pass


def consult(
    course: Course, event: ConsultRequested | TargetAnswered | TargetJoined | TargetLost
) -> Iterator[Effect]:
    """Something of an attended transfer has happened."""
    match event, course.state:
        case ConsultRequested(endpoint), State.TALKING:
            course.step(Step.CONSULT)
            course.music = True
            yield PlayMusic()
            yield SetTimer(Timer.CONSULT)
            yield CallTarget(endpoint)
        case TargetAnswered(), State.CONSULTING:
            course.step(Step.TARGET_ANSWERED)
            yield CancelTimer(Timer.CONSULT)
            yield SetTimer(Timer.JOIN)
            yield JoinTarget()
        case TargetJoined(), State.BRIEFING:
            yield CancelTimer(Timer.JOIN)
            yield TellTarget(None)
            yield SetTimer(Timer.BRIEF)
        case TargetLost(result), State.CONSULTING | State.BRIEFING:
            yield from _target_lost(course, result)
        case TargetLost(), State.HANDED_OVER:
            yield from course.stop(_HANDED_OVER)
        case _:
            pass


def time_is_up(course: Course, timer: Timer) -> Iterator[Effect]:
    """One of a transfer's timers has run out."""
    match timer, course.state:
        case Timer.CONSULT, State.CONSULTING:
            yield from _target_lost(course, Result.NO_ANSWER.value)
        case Timer.JOIN, State.BRIEFING:
            yield from _target_lost(course, Result.FAILED.value)
        case Timer.BRIEF, State.BRIEFING:
            yield from hand_over(course)
        case _:
            pass  # cancelled in the moment that it fired


def hand_over(course: Course) -> Iterator[Effect]:
    """Caller and target go on without the agent."""
    course.step(Step.HAND_OVER)
    for timer in (Timer.JOIN, Timer.BRIEF, Timer.CALL, Timer.SPEECH, Timer.HOLD):
        yield CancelTimer(timer)
    yield course.join_caller()
    yield DropAgent()


def _target_lost(course: Course, result: str) -> Iterator[Effect]:
    course.step(Step.TARGET_LOST)
    for timer in (Timer.CONSULT, Timer.JOIN, Timer.BRIEF):
        yield CancelTimer(timer)
    yield DropTarget()
    yield course.join_caller()
    yield TellTarget(result)
