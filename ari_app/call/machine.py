"""The call's machine: events in, effects out. It knows neither sockets nor clocks, nor any kind of
line.

The order in which the line and the agent report is theirs to choose; the machine takes any order.
An event that comes too late to matter (the agent answers a call that is being released) changes
nothing. `Course` (`ari_app.call.course`) is where one call is. Below it stand hold and attended
transfer, the loss of an agent, the way in, and at the end the machine itself; taking over has a
file of its own, `ari_app.call.taking_over`.

What becomes of a call whose agent is lost:

========================  ==========================================================================
ringing, connecting       another is dialled; the caller rings on
joining, greeting         the same as while talking, once the caller is there
talking                   what is queued is heard, then a phrase or music, then the new agent
holding                   the music goes on until the new agent speaks
consulting                the target is given up; the music goes on until the new agent speaks
briefing                  caller and target are connected, as if the agent had said all
taken over                nothing, until the call is given back; then as while talking
closing, draining         it had ended the call: nothing is lost; the same before the caller is
                          there, if it has ended the call already
========================  ==========================================================================

A call gets one other agent. When that is lost too, or does not come, the call has `FAILED`.

A call whose process was lost goes on in another one (`take_up`) as if its agent had been lost, but
for this: held by somebody else than its agent it stays held, a target that rings rings on, and of
one that is not yet together with its caller both begin anew. Who is taken back from hold or target
before the new agent is there hears music until it speaks; a target who answers before that is
connected at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from ari_app.call import taking_over
from ari_app.call.amd import OnMachine
from ari_app.call.course import AGENT_LOST, TRANSFERRED, Course
from ari_app.call.signals import (
    AgentClosed,
    AgentEnding,
    AgentFailed,
    AgentLost,
    AgentReady,
    AgentResumed,
    CallAdopted,
    CalleeScreened,
    CallerArrived,
    CallTarget,
    CallWanted,
    CancelTimer,
    ConnectAgent,
    ConsultRequested,
    DropTarget,
    Effect,
    EndRequested,
    Event,
    GiveBackRequested,
    HandOver,
    HoldRequested,
    OpenLine,
    PlaceCall,
    PlayedOut,
    PlayKept,
    PlayMusic,
    PlayPhrase,
    PromptAgent,
    Refused,
    Release,
    Released,
    ReplaceAgent,
    ResumeAudio,
    RingCaller,
    ScreenCall,
    SetTimer,
    SilenceHeard,
    SpeechHeard,
    StartAudio,
    TakeOverRequested,
    TellTarget,
    Timer,
    TimerFired,
    WatchSpeech,
)
from ari_app.call.states import OVER, TRANSFERABLE, State, Step
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


def hold(course: Course, *, on: bool) -> Iterator[Effect]:
    """Let the caller hear music, or the agent again."""
    match course.state, on:
        case State.TALKING, True:
            course.step(Step.HOLD)
            course.music = True
            yield PlayMusic()
        case State.HOLDING, False if course.dialled_again:
            yield from _wait_for_agent(course)
        case State.HOLDING, False:
            course.step(Step.UNHOLD)
            yield course.connect_caller()
            if course.unasked:
                course.unasked = False
                yield PromptAgent()
        case _:
            pass


def consult(
    course: Course, event: ConsultRequested | TargetConnected | TargetLost
) -> Iterator[Effect]:
    """Handle what happens in an attended transfer."""
    match event, course.state:
        case ConsultRequested(target), state if state in TRANSFERABLE and not course.calls_in:
            course.step(Step.CONSULT)
            course.music = True
            yield PlayMusic()
            yield SetTimer(Timer.CONSULT)
            yield CallTarget(target)
        case TargetConnected(), State.CONSULTING:
            course.step(Step.TARGET_CONNECTED)
            yield CancelTimer(Timer.CONSULT)
            if course.dialled_again:
                # Nobody is there who could tell them anything.
                yield from hand_over(course)
                return
            yield TellTarget(None)
            yield SetTimer(Timer.BRIEF)
        case TargetLost(result), State.CONSULTING | State.BRIEFING:
            yield from _target_lost(course, result)
        case TargetConnected(), _ if course.calls_in:
            yield from taking_over.take_over(course)
        case TargetLost(result), _ if course.calls_in:
            yield from taking_over.not_answered(course, result)
        case TargetLost(), State.TAKEN_OVER:
            yield from taking_over.give_back(course)
        case TargetLost(), State.HANDED_OVER:
            yield from course.stop(TRANSFERRED)
        case _:
            pass


def transfer_time_is_up(course: Course, timer: Timer) -> Iterator[Effect]:
    """Handle the end of one of a transfer's timers."""
    match timer, course.state:
        case Timer.CONSULT, State.CONSULTING:
            yield from _target_lost(course, Result.NO_ANSWER.value)
        case Timer.BRIEF, State.BRIEFING:
            yield from hand_over(course)
        case Timer.BRING_IN, _:
            yield from taking_over.not_answered(course)
        case _:
            pass  # cancelled in the moment that it fired


def hand_over(course: Course) -> Iterator[Effect]:
    """Let caller and target go on without the agent."""
    course.step(Step.HAND_OVER)
    for timer in (Timer.BRIEF, Timer.CALL, Timer.SPEECH, Timer.HOLD):
        yield CancelTimer(timer)
    course.music = False
    yield HandOver()


def _target_lost(course: Course, result: str) -> Iterator[Effect]:
    for timer in (Timer.CONSULT, Timer.BRIEF):
        yield CancelTimer(timer)
    yield DropTarget()
    if course.dialled_again:
        yield TellTarget(result)
        yield from _wait_for_agent(course)
        return
    course.step(Step.TARGET_LOST)
    yield course.connect_caller()
    course.unasked = False
    yield TellTarget(result)


def _wait_for_agent(course: Course) -> Iterator[Effect]:
    """Let the music go on until the agent speaks that is still on its way."""
    course.step(Step.AGENT_LOST)
    course.unasked = False
    yield SetTimer(Timer.RECONNECT)


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


def replaceable(course: Course) -> bool:
    """Return whether a lost agent is replaced now."""
    # One that has ended the call has said all that it had to say.
    return course.state in _WITH_AGENT and not course.replaced and course.ending is None


def agent_lost(course: Course, event: AgentLost) -> Iterator[Effect]:
    """Handle the loss of the agent, where `replaceable` says that another may come."""
    match course.state:
        case State.RINGING | State.CONNECTING:
            course.replaced, course.agent_ready = True, False
            yield ReplaceAgent(heard=False)
        case State.JOINING | State.GREETING:
            course.agent_lost = event
        case _:
            yield from _recover(course, event)


def agent_ready(course: Course) -> Iterator[Effect]:
    """Handle the new agent being there; the gap lasts until it speaks."""
    course.dialled_again = False
    if course.state is State.RECOVERING:
        yield CancelTimer(Timer.RECONNECT)
        yield SetTimer(Timer.RESUME)


def agent_resumed(course: Course) -> Iterator[Effect]:
    """Let the caller hear the agent again."""
    if course.state is not State.RECOVERING:
        return
    course.step(Step.AGENT_RESUMED)
    for timer in (Timer.RECONNECT, Timer.COVER, Timer.RESUME):
        yield CancelTimer(timer)
    yield course.connect_caller() if course.music else PlayKept()


def recovery_failed(course: Course) -> Iterator[Effect]:
    """End the call as it would have ended with the loss of the first agent: there is no other."""
    assert course.agent_lost is not None, "a call that recovers has lost its agent"
    yield from course.stop(course.agent_lost.outcome)


def recovery_time_is_up(course: Course, timer: Timer) -> Iterator[Effect]:
    """Handle the end of one of the timers of this part."""
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
            yield from agent_resumed(course)
        case _:
            yield from recovery_failed(course)


def _recover(course: Course, event: AgentLost) -> Iterator[Effect]:
    consulted = course.state is State.CONSULTING
    course.step(Step.AGENT_LOST)
    course.replaced = course.dialled_again = True
    course.unasked = False
    course.agent_lost, course.phrase = event, event.phrase
    if consulted:
        yield CancelTimer(Timer.CONSULT)
        yield DropTarget()
        yield TellTarget(AGENT_LOST)
    yield SetTimer(Timer.RECONNECT)
    if not course.music:
        yield SetTimer(Timer.COVER)
    yield ReplaceAgent(heard=True)


def take_up(course: Course, event: CallAdopted) -> Iterator[Effect]:
    """Go on with a call whose process was lost, and with it its agent and its way for sound. The
    caller is there, and so is whoever was called; timers of the whole call run on."""
    match course.state:
        case State.DIALLING | State.RINGING | State.SCREENING:
            course.forget_agent()
            if course.state is State.RINGING:
                yield from _prepare(course, agent=not course.screened)
        case State.CONNECTING | State.JOINING | State.GREETING:
            # Nothing has been said yet.
            course.forget_agent()
            course.state = State.NEW
            yield from begin(course, CallerArrived(event.answered, course.on_machine))
        case State.TALKING | State.RECOVERING:
            yield from _take_up_talk(course, event)
        case State.HOLDING if event.agent_holds:
            # The tool that held the caller has been lost with the agent that waited for it.
            yield from _take_up_talk(course, event)
        case State.HOLDING | State.CONSULTING:
            course.agent_lost = AgentLost(event.outcome, event.phrase)
            course.unasked = course.dialled_again = True
            yield PlayMusic()
            yield OpenLine()
            yield ResumeAudio()
            yield ReplaceAgent(heard=True)
        case State.BRIEFING:
            yield from hand_over(course)
        case State.TAKEN_OVER:
            # The two go on; the agent that comes when the call is given back is another one.
            course.absent, course.dialled_again = AgentLost(event.outcome, event.phrase), False
            yield OpenLine()
            yield ResumeAudio()
        case State.HANDED_OVER:
            yield HandOver()
        case State.CLOSING | State.DRAINING:
            # It had ended the call; what it said last is lost.
            if course.state is State.CLOSING:
                course.step(Step.AGENT_DONE)
            yield from course.release(Step.PLAYED_OUT, course.decided())
        case State.RELEASING:
            yield Release(course.decided())
        case _:
            pass


def _take_up_talk(course: Course, event: CallAdopted) -> Iterator[Effect]:
    if course.state is not State.RECOVERING:
        course.step(Step.AGENT_LOST)
    # That it gets another agent is not the agent's fault: it may lose that one, too.
    course.agent_lost, course.phrase = AgentLost(event.outcome, event.phrase), event.phrase
    course.dialled_again = True
    if course.music:
        yield PlayMusic()
    yield OpenLine()
    yield ResumeAudio()
    yield SetTimer(Timer.RECONNECT)
    if not course.music:
        yield SetTimer(Timer.COVER)
    yield ReplaceAgent(heard=True)


_PLACED = (State.DIALLING, State.RINGING)
# What an agent has said is heard, though it has been lost or has left meanwhile.
_HEARS_AGENT = (State.TALKING, State.RECOVERING, State.CLOSING, State.DRAINING)
_MACHINE = Outcome(Status.COMPLETED, "machine_detected")
_SCREEN_TIMEOUT = Outcome(Status.FAILED, "screening_timeout")
_AGENT_TIMEOUT = Outcome(Status.FAILED, "agent_timeout")
_CONNECT_TIMEOUT = Outcome(Status.FAILED, "connect_timeout")
_JOIN_TIMEOUT = Outcome(Status.FAILED, "join_timeout")


def begin(course: Course, event: CallerArrived | CallWanted) -> Iterator[Effect]:
    """Take the first event of a call."""
    match event:
        case CallerArrived(answered, on_machine):
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
        case CallWanted(screened):
            course.step(Step.PLACE)
            course.screened = screened
            yield SetTimer(Timer.RING)
            yield PlaceCall()


def arrive(course: Course, event: Rings | Answered | CalleeScreened) -> Iterator[Effect]:
    """Handle what is heard of whom we call."""
    match event:
        case Rings():
            if course.state is State.DIALLING:
                course.step(Step.RINGS)
                # The agent is told who answered, so it cannot be dialled before that is known.
                yield from _prepare(course, agent=not course.screened)
        case Answered():
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


def join(course: Course, event: Opened | AgentReady | Connected) -> Iterator[Effect]:
    """Handle one of the things without which caller and agent cannot be together."""
    match event:
        case Opened():
            course.opened = True
            yield from _join_when_ready(course)
        case AgentReady():
            course.agent_ready = True
            yield from _join_when_ready(course)
        case Connected():
            course.answered = True
            if course.state is State.JOINING:
                yield from _joined(course)
            elif course.state in _HEARS_AGENT and not course.music:
                yield PlayKept()
            elif course.state is State.HANDED_OVER:
                course.together = True


def greeting(course: Course, event: SpeechHeard | SilenceHeard) -> Iterator[Effect]:
    """Handle a machine that speaks, or has said all."""
    match event, course.state:
        case SpeechHeard(), State.GREETING:
            yield CancelTimer(Timer.QUIET)
        case SilenceHeard(), State.GREETING:
            yield from _greeted(course)
        case _:
            pass


def arrival_time_is_up(course: Course, timer: Timer) -> Iterator[Effect]:
    """Handle the end of one of the timers of the way in."""
    match timer, course.state:
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
        yield OpenLine()


def _join_when_ready(course: Course) -> Iterator[Effect]:
    if course.state is not State.CONNECTING or not (course.agent_ready and course.opened):
        return
    course.step(Step.READY)
    yield CancelTimer(Timer.CONNECT)
    yield SetTimer(Timer.JOIN)
    yield course.connect_caller()


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
        yield from agent_lost(course, course.agent_lost)


_CALL_TIMEOUT = Outcome(Status.TIMEOUT, "call_timeout")
_NO_SPEECH = Outcome(Status.TIMEOUT, "no_speech")
_HELD_TOO_LONG = Outcome(Status.TIMEOUT, "hold_timeout")


class CallMachine:
    """Decides what happens next in one call.

    Args:
        course: Where it is; None: at its beginning.
    """

    def __init__(self, course: Course | None = None) -> None:
        self._course = course or Course()

    @property
    def course(self) -> Course:
        """All that is known of where it is; to be looked at only."""
        return self._course

    @property
    def state(self) -> State:
        """Where the call is."""
        return self._course.state

    @property
    def outcome(self) -> Outcome | None:
        """How it ends; known from the moment that it is decided, None before."""
        return self._course.outcome

    @property
    def calls_in(self) -> bool:
        """Whether a supervisor's phone rings."""
        return self._course.calls_in

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
            case CallAdopted():
                yield from take_up(course, event)
            case CallerArrived() | CallWanted():
                yield from begin(course, event)
            case Refused(outcome):
                yield from course.stop(outcome)
            case _ if course.state in OVER:
                return
            case AgentReady() if course.dialled_again:
                yield from agent_ready(course)
            case AgentResumed():
                yield from agent_resumed(course)
            case AgentFailed() | AgentClosed() | AgentLost() if course.state is State.TAKEN_OVER:
                taking_over.agent_gone(course, event)
            case AgentFailed() if course.state is State.RECOVERING:
                yield from recovery_failed(course)
            case AgentFailed() if course.state is State.CLOSING:
                yield from course.agent_done(course.decided())
            case AgentFailed() if course.state is State.DRAINING:
                pass  # what it had to say is queued
            case AgentLost() if replaceable(course):
                yield from agent_lost(course, event)
            case Opened() | AgentReady() | Connected():
                yield from join(course, event)
            case Rings() | Answered() | CalleeScreened():
                yield from arrive(course, event)
            case SpeechHeard() | SilenceHeard():
                yield from greeting(course, event)
            case HoldRequested(on):
                yield from hold(course, on=on)
            case PhoneHeld(on):
                course.phone_holds = on
                # Otherwise that is between the two.
                if course.state not in (State.HANDED_OVER, State.TAKEN_OVER):
                    yield SetTimer(Timer.HOLD) if on else CancelTimer(Timer.HOLD)
            case TakeOverRequested(target):
                yield from taking_over.call_in(course, target)
            case GiveBackRequested() if course.state is State.TAKEN_OVER:
                yield from taking_over.give_back(course)
            case GiveBackRequested() if course.state in (State.CONSULTING, State.BRIEFING):
                yield from _target_lost(course, taking_over.GIVEN_UP)
            case GiveBackRequested():
                yield from taking_over.not_answered(course, taking_over.GIVEN_UP)
            case ConsultRequested() | TargetConnected() | TargetLost():
                yield from consult(course, event)
            case AgentEnding(outcome):
                yield from self._agent_ending(outcome)
            case AgentClosed(outcome) | AgentLost(outcome):
                yield from self._agent_closed(outcome)
            case PlayedOut():
                if course.state is State.DRAINING:
                    outcome = course.decided()
                    yield from course.release(Step.PLAYED_OUT, outcome)
            case TimerFired(timer):
                yield from self._timer_fired(timer)
            case Ended(reason, result):
                status = Status.COMPLETED if result is None else Status.FAILED
                yield from course.release(Step.CALLER_GONE, Outcome(status, reason))
            case SoundLost() | AgentFailed() if course.state is State.HANDED_OVER:
                pass  # the agent's part has been given back
            case LineFailed() if course.together:
                pass  # the two speak, and nothing more is needed for it
            case SoundLost() if course.state in (State.BRIEFING, State.TAKEN_OVER):
                yield from hand_over(course)
            case SoundLost(reason) | LineFailed(reason) | AgentFailed(reason):
                yield from course.stop(Outcome(Status.FAILED, reason))
            case EndRequested(outcome):
                yield from course.stop(outcome)

    def _agent_ending(self, outcome: Outcome) -> Iterator[Effect]:
        course = self._course
        yield from agent_resumed(course)
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
                yield from hand_over(course)
            case State.RECOVERING:
                yield from recovery_failed(course)
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
            case ((Timer.CONSULT | Timer.BRIEF | Timer.BRING_IN), _):
                yield from transfer_time_is_up(course, timer)
            case (Timer.RECONNECT, _) | (Timer.COVER, _) | (Timer.RESUME, _):
                yield from recovery_time_is_up(course, timer)
            case _:
                yield from arrival_time_is_up(course, timer)
