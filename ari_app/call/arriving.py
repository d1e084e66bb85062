"""The machine's way in: from the first word of a call until caller and agent are together. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ari_app.call import recovering
from ari_app.call.course import Course
from ari_app.call.results import Result
from ari_app.call.signals import (
    AgentNamed,
    AgentReady,
    AnswerCaller,
    BridgeMade,
    CalleeAnswered,
    CalleeLost,
    CalleeRings,
    CalleeScreened,
    CallerAnswered,
    CallerEntered,
    CallerJoined,
    CallerWaits,
    CallWanted,
    CancelTimer,
    ConnectAgent,
    Effect,
    JoinMedia,
    MakeBridge,
    MediaEntered,
    MediaJoined,
    OnMachine,
    OpenMedia,
    Outcome,
    PlaceCall,
    PlayKept,
    PlayMusic,
    RingCaller,
    ScreenCall,
    SetTimer,
    SilenceHeard,
    SpeechHeard,
    StartAudio,
    Status,
    Timer,
    WatchSpeech,
)
from ari_app.call.states import State, Step

_PLACED = (State.DIALLING, State.RINGING)
_MACHINE = Outcome(Status.COMPLETED, "machine_detected")
_WAIT_TIMEOUT = Outcome(Status.FAILED, "wait_timeout")
_SCREEN_TIMEOUT = Outcome(Status.FAILED, "screening_timeout")
_AGENT_TIMEOUT = Outcome(Status.FAILED, "agent_timeout")
_CONNECT_TIMEOUT = Outcome(Status.FAILED, "connect_timeout")
_JOIN_TIMEOUT = Outcome(Status.FAILED, "join_timeout")


def begin(course: Course, event: CallerEntered | CallerWaits | CallWanted) -> Iterator[Effect]:
    """Take the first event of a call."""
    match event:
        case CallerEntered(answered, on_machine):
            course.step(Step.START)
            course.answered = answered
            if on_machine is OnMachine.HANG_UP:
                yield from course.stop(_MACHINE)
                return
            course.on_machine = on_machine
            yield SetTimer(Timer.CALL)
            yield SetTimer(Timer.CONNECT)
            if not answered:
                yield RingCaller()
            yield from _prepare(course)
        case CallerWaits(answered):
            course.step(Step.WAIT)
            course.answered = course.music = answered
            yield SetTimer(Timer.WAIT)
            yield PlayMusic() if answered else RingCaller()
        case CallWanted(screened):
            course.step(Step.PLACE)
            course.screened = screened
            yield SetTimer(Timer.RING)
            yield PlaceCall()


def arrive(
    course: Course,
    event: AgentNamed | CalleeRings | CalleeAnswered | CalleeScreened | CalleeLost,
) -> Iterator[Effect]:
    """A waiting caller gets an agent, or whom we call is heard of."""
    match event:
        case AgentNamed():
            if course.state is State.WAITING:
                course.step(Step.START)
                yield CancelTimer(Timer.WAIT)
                yield SetTimer(Timer.CALL)
                yield SetTimer(Timer.CONNECT)
                yield from _prepare(course)
        case CalleeRings():
            if course.state is State.DIALLING:
                course.step(Step.RINGS)
                # The agent is told who answered, so it cannot be dialled before that is known.
                yield from _prepare(course, agent=not course.screened)
        case CalleeAnswered():
            if course.state in _PLACED:
                yield CancelTimer(Timer.RING)
                yield SetTimer(Timer.CALL)
                if course.screened:
                    course.step(Step.SCREEN)
                    yield SetTimer(Timer.SCREEN)
                    yield ScreenCall()
                else:
                    yield from _callee_there(course)
        case CalleeScreened(on_machine):
            if course.state is State.SCREENING:
                yield CancelTimer(Timer.SCREEN)
                if on_machine is OnMachine.HANG_UP:
                    yield from course.stop(_MACHINE)
                else:
                    course.on_machine = on_machine
                    yield from _callee_there(course)
        case CalleeLost(result, present):
            if course.state in _PLACED:
                outcome = Outcome(Status.FAILED, result)
                yield from course.release(Step.CALLER_GONE, outcome, caller_present=present)


def join(
    course: Course,
    event: BridgeMade | MediaEntered | MediaJoined | AgentReady | CallerAnswered | CallerJoined,
) -> Iterator[Effect]:
    """One of the things has happened without which caller and agent cannot be together."""
    match event:
        case BridgeMade() if not course.bridge_made:
            course.bridge_made = True
            if course.media_entered:
                yield JoinMedia()
        case MediaEntered() if not course.media_entered:
            course.media_entered = True
            if course.bridge_made:
                yield JoinMedia()
        case MediaJoined():
            course.media_joined = True
            yield from _join_when_ready(course)
        case AgentReady():
            course.agent_ready = True
            yield from _join_when_ready(course)
        case CallerAnswered():
            if course.state is State.JOINING and not course.answered:
                course.answered = True
                yield course.join_caller()
        case CallerJoined():
            if course.state is State.JOINING:
                yield from _joined(course)
            elif course.state in (State.TALKING, State.CLOSING):
                yield PlayKept()
            elif course.state is State.HANDED_OVER:
                course.together = True
        case _:
            pass  # said twice


def greeting(course: Course, event: SpeechHeard | SilenceHeard) -> Iterator[Effect]:
    """A machine speaks, or has said all."""
    match event, course.state:
        case SpeechHeard(), State.GREETING:
            yield CancelTimer(Timer.QUIET)
        case SilenceHeard(), State.GREETING:
            yield from _greeted(course)
        case _:
            pass


def time_is_up(course: Course, timer: Timer) -> Iterator[Effect]:
    """One of the timers of the way in has run out."""
    match timer, course.state:
        case Timer.WAIT, State.WAITING:
            yield from course.stop(_WAIT_TIMEOUT)
        case Timer.RING, State.DIALLING | State.RINGING:
            rang = course.state is State.RINGING
            result = Result.NO_ANSWER if rang else Result.UNREACHABLE
            yield from course.stop(Outcome(Status.FAILED, result.value))
        case Timer.SCREEN, State.SCREENING:
            yield from course.stop(_SCREEN_TIMEOUT)
        case Timer.CONNECT, State.CONNECTING:
            yield from course.stop(_CONNECT_TIMEOUT if course.agent_ready else _AGENT_TIMEOUT)
        case Timer.JOIN, State.JOINING:
            yield from course.stop(_JOIN_TIMEOUT)
        case Timer.QUIET | Timer.GREETING, State.GREETING:
            yield from _greeted(course)
        case _:
            pass  # cancelled in the moment that it fired


def _callee_there(course: Course) -> Iterator[Effect]:
    course.step(Step.ANSWERED)
    course.answered = True
    yield SetTimer(Timer.CONNECT)
    yield from _prepare(course)
    yield from _join_when_ready(course)


def _prepare(course: Course, *, agent: bool = True) -> Iterator[Effect]:
    if agent and not course.agent_wanted:
        course.agent_wanted = True
        yield ConnectAgent()
    if not course.prepared:
        course.prepared = True
        yield MakeBridge()
        yield OpenMedia()


def _join_when_ready(course: Course) -> Iterator[Effect]:
    if course.state is not State.CONNECTING or not (course.agent_ready and course.media_joined):
        return
    course.step(Step.READY)
    yield CancelTimer(Timer.CONNECT)
    yield SetTimer(Timer.JOIN)
    yield course.join_caller() if course.answered else AnswerCaller()


def _joined(course: Course) -> Iterator[Effect]:
    yield CancelTimer(Timer.JOIN)
    if course.on_machine is OnMachine.LEAVE_MESSAGE:
        course.step(Step.MACHINE_JOINED)
        yield SetTimer(Timer.QUIET)
        yield SetTimer(Timer.GREETING)
        yield WatchSpeech()
    else:
        course.step(Step.JOINED)
        yield from _start_audio(course)


def _greeted(course: Course) -> Iterator[Effect]:
    course.step(Step.GREETED)
    yield CancelTimer(Timer.QUIET)
    yield CancelTimer(Timer.GREETING)
    yield from _start_audio(course)


def _start_audio(course: Course) -> Iterator[Effect]:
    yield StartAudio()
    yield SetTimer(Timer.SPEECH)
    if course.agent_closed is not None:
        yield from course.agent_done(course.agent_closed)
    elif course.ending is not None:
        yield from course.agent_ends(course.ending)
    elif course.agent_lost is not None:
        yield from recovering.lost(course, course.agent_lost)
