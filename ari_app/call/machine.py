"""The call's machine: events in, effects out. It knows neither sockets nor clocks.

The order in which Asterisk, the line and the agent report is theirs to choose; the machine takes
any order. An event that comes too late to matter (the agent answers a call that is being released)
changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from ari_app.call.results import Result
from ari_app.call.signals import (
    AgentClosed,
    AgentEnding,
    AgentFailed,
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
    CallerLeft,
    CallerWaits,
    CallTarget,
    CallWanted,
    CancelTimer,
    ConnectAgent,
    ConsultRequested,
    ControlFailed,
    DropAgent,
    DropTarget,
    Effect,
    EndRequested,
    Event,
    HoldRequested,
    JoinCaller,
    JoinMedia,
    JoinTarget,
    MakeBridge,
    MediaEntered,
    MediaJoined,
    MediaLost,
    OnMachine,
    OpenMedia,
    Outcome,
    PhoneHeld,
    PlaceCall,
    PlayedOut,
    PlayMusic,
    PlayOut,
    Refused,
    Release,
    Released,
    RingCaller,
    ScreenCall,
    SetTimer,
    SilenceHeard,
    SpeechHeard,
    StartAudio,
    Status,
    TargetAnswered,
    TargetJoined,
    TargetLost,
    TellTarget,
    Timer,
    TimerFired,
    WatchSpeech,
)
from ari_app.call.states import State, Step, advance

_OVER = (State.RELEASING, State.ENDED)
_PLACED = (State.DIALLING, State.RINGING)
_CONNECT_TIMEOUT = Outcome(Status.FAILED, "connect_timeout")
_JOIN_TIMEOUT = Outcome(Status.FAILED, "join_timeout")
_WAIT_TIMEOUT = Outcome(Status.FAILED, "wait_timeout")
_SCREEN_TIMEOUT = Outcome(Status.FAILED, "screening_timeout")
_CALL_TIMEOUT = Outcome(Status.TIMEOUT, "call_timeout")
_NO_SPEECH = Outcome(Status.TIMEOUT, "no_speech")
_HELD_TOO_LONG = Outcome(Status.TIMEOUT, "hold_timeout")
_MACHINE = Outcome(Status.COMPLETED, "machine_detected")
_HANDED_OVER = Outcome(Status.COMPLETED, "transferred")


class CallMachine:
    """Decides what happens next in one call.

    Attributes:
        state: Where the call is.
        outcome: How it ends; known from the moment that it is decided, None before.
    """

    def __init__(self) -> None:
        self.state = State.NEW
        self.outcome: Outcome | None = None
        self._answered = False
        self._screened = False
        self._prepared = False
        self._music = False
        self._on_machine = OnMachine.TALK
        self._agent_wanted = False
        self._bridge_made = False
        self._media_entered = False
        self._media_joined = False
        self._agent_ready = False
        self._agent_closed: Outcome | None = None

    def handle(self, event: Event) -> list[Effect]:
        """Take one event and return what is to be done, in order.

        Raises:
            IllegalStep: Our own fault: the caller of this method started a call twice, or released
                it before the machine asked for that. State and flags are as before.
        """
        return list(self._handle(event))

    def _handle(self, event: Event) -> Iterator[Effect]:
        match event:
            case Released():
                self._step(Step.RELEASED)
            case CallerEntered() | CallerWaits() | CallWanted():
                yield from self._begin(event)
            case Refused(outcome):
                yield from self._stop(outcome)
            case _ if self.state in _OVER:
                return
            case (
                BridgeMade() | MediaEntered() | MediaJoined() | AgentReady() | CallerAnswered()
            ) | CallerJoined():
                yield from self._joining(event)
            case AgentNamed() | CalleeRings() | CalleeAnswered() | CalleeScreened() | CalleeLost():
                yield from self._arriving(event)
            case SpeechHeard():
                if self.state is State.GREETING:
                    yield CancelTimer(Timer.QUIET)
            case SilenceHeard():
                yield from self._greeted()
            case HoldRequested(on):
                yield from self._hold(on)
            case PhoneHeld(on):
                yield SetTimer(Timer.HOLD) if on else CancelTimer(Timer.HOLD)
            case ConsultRequested() | TargetAnswered() | TargetJoined() | TargetLost():
                yield from self._consulting(event)
            case AgentEnding(outcome):
                yield from self._agent_ending(outcome)
            case AgentClosed(outcome):
                yield from self._closed(outcome)
            case PlayedOut():
                if self.state is State.DRAINING:
                    yield from self._release(Step.PLAYED_OUT, self._decided(), caller_present=True)
            case TimerFired(timer):
                yield from self._timer_fired(timer)
            case CallerLeft(reason):
                outcome = Outcome(Status.COMPLETED, reason)
                yield from self._release(Step.CALLER_GONE, outcome, caller_present=False)
            case MediaLost() if self.state is State.HANDED_OVER:
                pass  # the agent's part has been given back
            case MediaLost(reason) | ControlFailed(reason) | AgentFailed(reason):
                yield from self._stop(Outcome(Status.FAILED, reason))
            case EndRequested(outcome):
                yield from self._stop(outcome)

    def _step(self, step: Step) -> None:
        self.state = advance(self.state, step)

    def _decided(self) -> Outcome:
        assert self.outcome is not None, f"a call that is {self.state} knows how it ends"
        return self.outcome

    # --- the way in

    def _begin(self, event: CallerEntered | CallerWaits | CallWanted) -> Iterator[Effect]:
        match event:
            case CallerEntered(answered, on_machine):
                self._step(Step.START)
                self._answered = answered
                if on_machine is OnMachine.HANG_UP:
                    yield from self._stop(_MACHINE)
                    return
                self._on_machine = on_machine
                yield SetTimer(Timer.CALL)
                yield SetTimer(Timer.CONNECT)
                if not answered:
                    yield RingCaller()
                yield from self._prepare()
            case CallerWaits(answered):
                self._step(Step.WAIT)
                self._answered = self._music = answered
                yield SetTimer(Timer.WAIT)
                yield PlayMusic() if answered else RingCaller()
            case CallWanted(screened):
                self._step(Step.PLACE)
                self._screened = screened
                yield SetTimer(Timer.RING)
                yield PlaceCall()

    def _arriving(
        self, event: AgentNamed | CalleeRings | CalleeAnswered | CalleeScreened | CalleeLost
    ) -> Iterator[Effect]:
        match event:
            case AgentNamed():
                if self.state is State.WAITING:
                    self._step(Step.START)
                    yield CancelTimer(Timer.WAIT)
                    yield SetTimer(Timer.CALL)
                    yield SetTimer(Timer.CONNECT)
                    yield from self._prepare()
            case CalleeRings():
                if self.state is State.DIALLING:
                    self._step(Step.RINGS)
                    # The agent is told who answered, so it cannot be dialled before that is known.
                    yield from self._prepare(agent=not self._screened)
            case CalleeAnswered():
                if self.state in _PLACED:
                    yield CancelTimer(Timer.RING)
                    yield SetTimer(Timer.CALL)
                    if self._screened:
                        self._step(Step.SCREEN)
                        yield SetTimer(Timer.SCREEN)
                        yield ScreenCall()
                    else:
                        yield from self._callee_there()
            case CalleeScreened(on_machine):
                if self.state is State.SCREENING:
                    yield CancelTimer(Timer.SCREEN)
                    if on_machine is OnMachine.HANG_UP:
                        yield from self._stop(_MACHINE)
                    else:
                        self._on_machine = on_machine
                        yield from self._callee_there()
            case CalleeLost(result, present):
                if self.state in _PLACED:
                    outcome = Outcome(Status.FAILED, result)
                    yield from self._release(Step.CALLER_GONE, outcome, caller_present=present)

    def _callee_there(self) -> Iterator[Effect]:
        self._step(Step.ANSWERED)
        self._answered = True
        yield SetTimer(Timer.CONNECT)
        yield from self._prepare()
        yield from self._join_when_ready()

    def _prepare(self, *, agent: bool = True) -> Iterator[Effect]:
        if agent and not self._agent_wanted:
            self._agent_wanted = True
            yield ConnectAgent()
        if not self._prepared:
            self._prepared = True
            yield MakeBridge()
            yield OpenMedia()

    # --- into the bridge

    def _joining(
        self,
        event: BridgeMade | MediaEntered | MediaJoined | AgentReady | CallerAnswered | CallerJoined,
    ) -> Iterator[Effect]:
        match event:
            case BridgeMade() if not self._bridge_made:
                self._bridge_made = True
                if self._media_entered:
                    yield JoinMedia()
            case MediaEntered() if not self._media_entered:
                self._media_entered = True
                if self._bridge_made:
                    yield JoinMedia()
            case MediaJoined():
                self._media_joined = True
                yield from self._join_when_ready()
            case AgentReady():
                self._agent_ready = True
                yield from self._join_when_ready()
            case CallerAnswered():
                if self.state is State.JOINING and not self._answered:
                    self._answered = True
                    yield JoinCaller()
            case CallerJoined():
                if self.state is State.JOINING:
                    yield from self._joined()
            case _:
                pass  # said twice

    def _join_when_ready(self) -> Iterator[Effect]:
        if self.state is not State.CONNECTING or not (self._agent_ready and self._media_joined):
            return
        self._step(Step.READY)
        yield CancelTimer(Timer.CONNECT)
        yield SetTimer(Timer.JOIN)
        yield self._join_caller() if self._answered else AnswerCaller()

    def _join_caller(self) -> JoinCaller:
        after_music, self._music = self._music, False
        return JoinCaller(after_music)

    def _joined(self) -> Iterator[Effect]:
        yield CancelTimer(Timer.JOIN)
        if self._on_machine is OnMachine.LEAVE_MESSAGE:
            self._step(Step.MACHINE_JOINED)
            yield SetTimer(Timer.QUIET)
            yield SetTimer(Timer.GREETING)
            yield WatchSpeech()
        else:
            self._step(Step.JOINED)
            yield from self._start_audio()

    def _greeted(self) -> Iterator[Effect]:
        if self.state is State.GREETING:
            self._step(Step.GREETED)
            yield CancelTimer(Timer.QUIET)
            yield CancelTimer(Timer.GREETING)
            yield from self._start_audio()

    def _start_audio(self) -> Iterator[Effect]:
        yield StartAudio()
        yield SetTimer(Timer.SPEECH)
        if self._agent_closed is not None:
            yield from self._agent_done(self._agent_closed)

    # --- in the middle

    def _hold(self, on: bool) -> Iterator[Effect]:
        match self.state, on:
            case State.TALKING, True:
                self._step(Step.HOLD)
                self._music = True
                yield PlayMusic()
            case State.HOLDING, False:
                self._step(Step.UNHOLD)
                yield self._join_caller()
            case _:
                pass

    def _consulting(
        self, event: ConsultRequested | TargetAnswered | TargetJoined | TargetLost
    ) -> Iterator[Effect]:
        match event, self.state:
            case ConsultRequested(endpoint), State.TALKING:
                self._step(Step.CONSULT)
                self._music = True
                yield PlayMusic()
                yield SetTimer(Timer.CONSULT)
                yield CallTarget(endpoint)
            case TargetAnswered(), State.CONSULTING:
                self._step(Step.TARGET_ANSWERED)
                yield CancelTimer(Timer.CONSULT)
                yield JoinTarget()
            case TargetJoined(), State.BRIEFING:
                yield TellTarget(None)
                yield SetTimer(Timer.BRIEF)
            case TargetLost(result), State.CONSULTING | State.BRIEFING:
                yield from self._target_lost(result)
            case TargetLost(), State.HANDED_OVER:
                yield from self._stop(_HANDED_OVER)
            case _:
                pass

    def _target_lost(self, result: str) -> Iterator[Effect]:
        self._step(Step.TARGET_LOST)
        yield CancelTimer(Timer.CONSULT)
        yield CancelTimer(Timer.BRIEF)
        yield DropTarget()
        yield self._join_caller()
        yield TellTarget(result)

    def _hand_over(self) -> Iterator[Effect]:
        self._step(Step.HAND_OVER)
        for timer in (Timer.BRIEF, Timer.CALL, Timer.SPEECH):
            yield CancelTimer(timer)
        yield self._join_caller()
        yield DropAgent()

    # --- the way out

    def _agent_ending(self, outcome: Outcome) -> Iterator[Effect]:
        # Before the caller is in the bridge the agent's close, which follows, is what counts.
        if self.state is State.TALKING:
            self._step(Step.AGENT_ENDING)
            self.outcome = outcome
            yield SetTimer(Timer.CLOSE)
        elif self.state is State.HOLDING:
            yield from self._stop(outcome)

    def _closed(self, outcome: Outcome) -> Iterator[Effect]:
        match self.state:
            case State.RINGING | State.CONNECTING:
                # Nothing has been said that the caller could hear.
                yield from self._stop(Outcome(Status.FAILED, outcome.reason))
            case State.JOINING | State.GREETING:
                # The greeting is queued; the caller, who is being answered, shall hear it.
                self._agent_closed = outcome
            case State.TALKING:
                yield from self._agent_done(outcome)
            case State.CLOSING:
                yield from self._agent_done(self._decided())
            case State.HOLDING | State.CONSULTING:
                yield from self._stop(outcome)
            case State.BRIEFING:
                yield from self._hand_over()
            case _:
                pass

    def _timer_fired(self, timer: Timer) -> Iterator[Effect]:
        match timer, self.state:
            case Timer.CONNECT, State.CONNECTING:
                yield from self._stop(_CONNECT_TIMEOUT)
            case Timer.JOIN, State.JOINING:
                yield from self._stop(_JOIN_TIMEOUT)
            case Timer.CLOSE, State.CLOSING:
                # The agent said good-bye but keeps its socket open: take it at its word.
                yield from self._agent_done(self._decided())
            case Timer.WAIT, State.WAITING:
                yield from self._stop(_WAIT_TIMEOUT)
            case Timer.RING, State.DIALLING | State.RINGING:
                rang = self.state is State.RINGING
                result = Result.NO_ANSWER if rang else Result.UNREACHABLE
                yield from self._stop(Outcome(Status.FAILED, result.value))
            case Timer.SCREEN, State.SCREENING:
                yield from self._stop(_SCREEN_TIMEOUT)
            case Timer.QUIET | Timer.GREETING, State.GREETING:
                yield from self._greeted()
            case Timer.CONSULT, State.CONSULTING:
                yield from self._target_lost(Result.NO_ANSWER.value)
            case Timer.BRIEF, State.BRIEFING:
                yield from self._hand_over()
            case Timer.SPEECH, State.TALKING:
                yield from self._stop(_NO_SPEECH)
            case Timer.HOLD, _:
                yield from self._stop(_HELD_TOO_LONG)
            case Timer.CALL, _:
                yield from self._stop(_CALL_TIMEOUT)
            case _:
                pass  # cancelled in the moment that it fired

    def _agent_done(self, outcome: Outcome) -> Iterator[Effect]:
        self._step(Step.AGENT_DONE)
        self.outcome = outcome
        yield CancelTimer(Timer.CLOSE)
        yield PlayOut()

    def _stop(self, outcome: Outcome) -> Iterator[Effect]:
        yield from self._release(Step.STOP, outcome, caller_present=True)

    def _release(self, step: Step, outcome: Outcome, *, caller_present: bool) -> Iterator[Effect]:
        self._step(step)
        self.outcome = outcome
        for timer in Timer:
            yield CancelTimer(timer)
        yield Release(outcome, caller_present)
