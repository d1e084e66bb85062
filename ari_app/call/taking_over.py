"""What happens when a supervisor takes a call over, and gives it back. Pure.

While the supervisor's phone rings nothing changes for caller and agent. When it is answered the two
people speak, and the agent is held: neither heard nor hearing. Whatever becomes of the agent
meanwhile is settled when the call is given back.

========================  ==========================================================================
talking, recovering       a supervisor may be called
holding                   refused; where the hold began while the phone rang, it ends with the
                          answer
closing, draining         the phone rings no more, for the agent has ended the call
consulting, briefing      refused: there can be one third party
all others                refused
========================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from ari_app.call.course import Course
from ari_app.call.signals import (
    AgentClosed,
    AgentFailed,
    AgentLost,
    BringIn,
    CancelTimer,
    DropTarget,
    Effect,
    GiveBack,
    ReplaceAgent,
    SetTimer,
    TakeOver,
    Timer,
)
from ari_app.call.states import State, Step
from ari_app.line.interface import Outcome, Result, Status

_SET_UP: Final = ("not_talking", "Caller and agent are not together yet.")
_TRANSFER: Final = ("already_transferring", "A transfer is under way, and its result comes first.")
_ENDS: Final = ("not_talking", "The call ends already.")
REFUSALS: Final[Mapping[State, tuple[str, str]]] = MappingProxyType(
    {
        State.NEW: _SET_UP,
        State.DIALLING: _SET_UP,
        State.RINGING: _SET_UP,
        State.SCREENING: _SET_UP,
        State.CONNECTING: _SET_UP,
        State.JOINING: _SET_UP,
        State.GREETING: ("not_talking", "An answering machine is speaking."),
        State.HOLDING: ("busy", "The caller is on hold: take them back first."),
        State.CONSULTING: _TRANSFER,
        State.BRIEFING: _TRANSFER,
        State.TAKEN_OVER: ("busy", "Somebody speaks with the caller already."),
        State.HANDED_OVER: (
            "already_transferring",
            "The caller has been transferred, and the agent has left.",
        ),
        State.CLOSING: _ENDS,
        State.DRAINING: _ENDS,
        State.RELEASING: _ENDS,
        State.ENDED: _ENDS,
    }
)
"""Where a call cannot be taken over, and why: a slug and a sentence."""
RINGS_ALREADY: Final = ("busy", "A supervisor is being called already.")
GIVEN_UP: Final = "given_up"
"""Why a supervisor's phone rings no more: somebody has thought better of it."""

_ABSENT: Final = Outcome(Status.FAILED, "agent_lost")
_AGENTS_OWN: Final = (Timer.CALL, Timer.SPEECH, Timer.HOLD)
_OF_RECOVERY: Final = (Timer.RECONNECT, Timer.COVER, Timer.RESUME)


def refusal(state: State, *, rings: bool) -> tuple[str, str] | None:
    """Say why a call cannot be taken over now; None: it can.

    Args:
        state: Where it is.
        rings: A supervisor's phone rings.
    """
    return RINGS_ALREADY if rings else REFUSALS.get(state)


def call_in(course: Course, target: str) -> Iterator[Effect]:
    """Call a supervisor, where that may be done."""
    if refusal(course.state, rings=course.calls_in) is None:
        course.calls_in = True
        yield SetTimer(Timer.BRING_IN)
        yield BringIn(target)


def take_over(course: Course) -> Iterator[Effect]:
    """Let the supervisor, who has answered, speak with the caller."""
    course.step(Step.TAKE_OVER)
    # Whoever gets the call back is asked to go on then.
    course.calls_in = course.unasked = False
    for timer in (Timer.BRING_IN, *_AGENTS_OWN, *_OF_RECOVERY):
        yield CancelTimer(timer)
    yield TakeOver()
    if course.music:
        yield course.connect_caller()


def give_back(course: Course) -> Iterator[Effect]:
    """Let the caller speak with the agent again, or with another one if it was lost."""
    absent, course.absent = course.absent, None
    there = absent is None and not course.dialled_again
    course.step(Step.GIVE_BACK if there else Step.AGENT_LOST)
    yield DropTarget()
    yield SetTimer(Timer.CALL)
    yield SetTimer(Timer.SPEECH)
    if course.phone_holds:
        yield SetTimer(Timer.HOLD)
    yield GiveBack(there, lost=absent is not None)
    if there:
        return
    yield SetTimer(Timer.RECONNECT)
    yield SetTimer(Timer.COVER)
    if absent is not None:
        course.agent_lost, course.phrase = absent, absent.phrase
        course.dialled_again = True
        yield ReplaceAgent(heard=True)


def agent_gone(course: Course, event: AgentClosed | AgentLost | AgentFailed) -> None:
    """Take note that the agent has gone while the supervisor speaks with the caller."""
    course.dialled_again = False
    match event:
        case AgentFailed(reason):
            course.absent = AgentLost(Outcome(Status.FAILED, reason))
        case AgentClosed(outcome):
            # It may have ended the call as it should; the caller is still there.
            failed = outcome.status is Status.FAILED
            course.absent = AgentLost(outcome if failed else _ABSENT)
        case AgentLost():
            course.absent = event


def not_answered(course: Course, why: str = Result.NO_ANSWER.value) -> Iterator[Effect]:
    """Let the agent go on: the supervisor has not answered."""
    yield from course.call_off(why)
