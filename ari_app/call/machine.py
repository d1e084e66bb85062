"""The call's machine: events in, effects out. It knows neither sockets nor clocks.

The order in which Asterisk, the line and the agent report is theirs to choose; the machine takes
any order. An event that comes too late to matter (the agent answers a call that is being released)
changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

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
from ari_app.call.states import State, Step, advance

_OVER = (State.RELEASING, State.ENDED)
_CONNECT_TIMEOUT = Outcome(Status.FAILED, "connect_timeout")
_JOIN_TIMEOUT = Outcome(Status.FAILED, "join_timeout")
_CALL_TIMEOUT = Outcome(Status.TIMEOUT, "call_timeout")


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
        self._bridge_made = False
        self._media_entered = False
        self._media_joined = False
        self._agent_ready = False
        self._agent_closed: Outcome | None = None

    def handle(self, event: Event) -> list[Effect]:
        """Take one event and return what is to be done, in order.

        Raises:
            IllegalStep: Our own fault: the caller of this method started a call twice, or released
                it
                before the machine asked for that. State and flags are as before.
        """
        return list(self._handle(event))

    def _handle(self, event: Event) -> Iterator[Effect]:
        match event:
            case Released():
                self._step(Step.RELEASED)
            case CallerEntered(answered):
                self._step(Step.START)
                self._answered = answered
                yield SetTimer(Timer.CALL)
                yield SetTimer(Timer.CONNECT)
                if not answered:
                    yield RingCaller()
                yield ConnectAgent()
                yield MakeBridge()
                yield OpenMedia()
            case Refused(outcome):
                yield from self._stop(outcome)
            case _ if self.state in _OVER:
                return
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
                    self._step(Step.JOINED)
                    yield CancelTimer(Timer.JOIN)
                    yield StartAudio()
                    if self._agent_closed is not None:
                        yield from self._agent_done(self._agent_closed)
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
            case MediaLost(reason) | ControlFailed(reason) | AgentFailed(reason):
                yield from self._stop(Outcome(Status.FAILED, reason))
            case EndRequested(outcome):
                yield from self._stop(outcome)
            case _:
                pass  # said twice

    def _step(self, step: Step) -> None:
        self.state = advance(self.state, step)

    def _decided(self) -> Outcome:
        assert self.outcome is not None, f"a call that is {self.state} knows how it ends"
        return self.outcome

    def _join_when_ready(self) -> Iterator[Effect]:
        if self.state is not State.CONNECTING or not (self._agent_ready and self._media_joined):
            return
        self._step(Step.READY)
        yield CancelTimer(Timer.CONNECT)
        yield SetTimer(Timer.JOIN)
        yield JoinCaller() if self._answered else AnswerCaller()

    def _agent_ending(self, outcome: Outcome) -> Iterator[Effect]:
        # Before the caller is in the bridge the agent's close, which follows, is what counts.
        if self.state is State.TALKING:
            self._step(Step.AGENT_ENDING)
            self.outcome = outcome
            yield SetTimer(Timer.CLOSE)

    def _closed(self, outcome: Outcome) -> Iterator[Effect]:
        match self.state:
            case State.CONNECTING:
                # Nothing has been said that the caller could hear.
                yield from self._stop(Outcome(Status.FAILED, outcome.reason))
            case State.JOINING:
                # The greeting is queued; the caller, who is being answered, shall hear it.
                self._agent_closed = outcome
            case State.TALKING:
                yield from self._agent_done(outcome)
            case State.CLOSING:
                yield from self._agent_done(self._decided())
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
