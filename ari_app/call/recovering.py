"""The machine's part for a call whose agent was lost: one other takes its place. Pure.

What becomes of a lost agent's call:

========================  ==========================================================================
ringing, connecting       another is dialled; the caller rings on
joining, greeting         the same as while talking, once the caller is there
talking                   what is queued is heard, then a phrase or music, then the new agent
holding                   the music goes on until the new agent speaks
consulting                the target is given up; the music goes on until the new agent speaks
briefing                  caller and target are connected, as if the agent had said all
closing, draining         it had ended the call: nothing is lost; the same before the caller is
                          there, if it has ended the call already
========================  ==========================================================================

A call gets one other agent. When that is lost too, or does not come, the call has ``FAILED``.
"""

from __future__ import annotations

from collections.abc import Iterator

from ari_app.call.course import Course
from ari_app.call.signals import (
    AgentLost,
    CancelTimer,
    DropTarget,
    Effect,
    PlayKept,
    PlayMusic,
    PlayPhrase,
    PromptAgent,
    ReplaceAgent,
    SetTimer,
    TellTarget,
    Timer,
)
from ari_app.call.states import State, Step

_WITH_AGENT = frozenset(
    {
        State.RINGING,
        State.CONNECTING,
        State.JOINING,
        State.GREETING,
        State.TALKING,
        State.HOLDING,
        State.CONSULTING,
    }
)


def possible(course: Course) -> bool:
    """Whether a lost agent is replaced now."""
    # One that has ended the call has said all that it had to say.
    return course.state in _WITH_AGENT and not course.replaced and course.ending is None


def lost(course: Course, event: AgentLost) -> Iterator[Effect]:
    """The agent has gone, and :func:`possible` says that another may come."""
    match course.state:
        case State.RINGING | State.CONNECTING:
            course.replaced, course.agent_ready = True, False
            yield ReplaceAgent(heard=False)
        case State.JOINING | State.GREETING:
            course.agent_lost = event
        case _:
            yield from _recover(course, event)


def ready(course: Course) -> Iterator[Effect]:
    """The new agent is there; the gap lasts until it speaks."""
    yield CancelTimer(Timer.RECONNECT)
    yield SetTimer(Timer.RESUME)


def resumed(course: Course) -> Iterator[Effect]:
    """The caller hears the agent again."""
    if course.state is not State.RECOVERING:
        return
    course.step(Step.AGENT_RESUMED)
    for timer in (Timer.RECONNECT, Timer.COVER, Timer.RESUME):
        yield CancelTimer(timer)
    yield course.join_caller() if course.music else PlayKept()


def failed(course: Course) -> Iterator[Effect]:
    """There is no other agent: the call ends as it would have with the loss of the first."""
    assert course.agent_lost is not None, "a call that recovers has lost its agent"
    yield from course.stop(course.agent_lost.outcome)


def time_is_up(course: Course, timer: Timer) -> Iterator[Effect]:
    """One of the timers of this part has run out."""
    if course.state is not State.RECOVERING:
        return
    match timer:
        case Timer.COVER if course.phrase:
            course.phrase = False
            yield PlayPhrase()
            yield SetTimer(Timer.COVER)
        case Timer.COVER:
            course.music = True
            yield PlayMusic()
        case Timer.RESUME:
            yield PromptAgent()
            yield from resumed(course)
        case _:
            yield from failed(course)


def _recover(course: Course, event: AgentLost) -> Iterator[Effect]:
    consulted = course.state is State.CONSULTING
    course.step(Step.AGENT_LOST)
    course.replaced, course.agent_lost, course.phrase = True, event, event.phrase
    if consulted:
        yield CancelTimer(Timer.CONSULT)
        yield DropTarget()
        yield TellTarget(event.outcome.reason)
    yield SetTimer(Timer.RECONNECT)
    if not course.music:
        yield SetTimer(Timer.COVER)
    yield ReplaceAgent(heard=True)
