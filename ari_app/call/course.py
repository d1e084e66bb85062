"""The state of one call's machine: where it is in the table of states, and what it knows. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ari_app.call.amd import OnMachine
from ari_app.call.signals import (
    AgentLost,
    CancelTimer,
    ConnectCaller,
    DropTarget,
    Effect,
    PlayOut,
    Release,
    SetTimer,
    TakeOverEnded,
    Timer,
)
from ari_app.call.states import State, Step, advance
from ari_app.line.interface import Outcome, Status

TRANSFERRED: Final = Outcome(Status.COMPLETED, "transferred")
"""How a call ends whose caller speaks with the target of a transfer."""
CALL_ENDED: Final = "call_ended"
"""Why the phone of a supervisor, or of a transfer's target, rings no more: there is nobody to speak
with."""
AGENT_LOST: Final = "agent_lost"
"""Why the target of a transfer rings no more: whoever wanted to speak with it is gone."""


@dataclass(slots=True)
class Course:
    """The state of one call's machine.

    Attributes:
        state: Where the call is.
        outcome: How it ends; known from the moment that it is decided, None before.
        answered: The caller is up.
        screened: Whom we call is to be screened for machines.
        on_machine: What to do, for a machine has answered; `TALK` for a person.
        prepared: A way for sound has been asked for.
        opened: It is there.
        music: The caller hears music.
        agent_wanted: The agent has been dialled.
        agent_ready: It is there.
        ending: It has ended the call before the caller was there: how, once its words are heard.
        agent_closed: It has left before the caller was there: how the call ends then.
        agent_lost: It was lost then, and is to be replaced.
        replaced: That has been done; a call gets no third agent.
        together: The caller is with the target of a transfer.
        phrase: There is a phrase to cover the gap, and it has not been played.
        dialled_again: Another agent is on its way in place of the lost one.
        calls_in: A supervisor's phone rings.
        absent: The agent was lost while a supervisor spoke with the caller: how the call ends if
            there is no other.
        phone_holds: The caller's phone holds us.
        unasked: The agent has come in the place of another while the caller heard music, and waits
            to be asked to go on.
    """

    state: State = State.NEW
    outcome: Outcome | None = None
    answered: bool = False
    screened: bool = False
    on_machine: OnMachine = OnMachine.TALK
    prepared: bool = False
    opened: bool = False
    music: bool = False
    agent_wanted: bool = False
    agent_ready: bool = False
    ending: Outcome | None = None
    agent_closed: Outcome | None = None
    agent_lost: AgentLost | None = None
    replaced: bool = False
    phrase: bool = False
    together: bool = False
    dialled_again: bool = False
    calls_in: bool = False
    absent: AgentLost | None = None
    phone_holds: bool = False
    unasked: bool = False

    def step(self, step: Step) -> None:
        """Move to the state that a step leads to.

        Raises:
            IllegalStep: The table has no such row.
        """
        self.state = advance(self.state, step)

    def forget_agent(self) -> None:
        """Forget agent and way for sound: both are gone, before anything was said."""
        self.prepared = self.opened = self.agent_wanted = self.agent_ready = False
        self.ending = self.agent_closed = self.agent_lost = None

    def decided(self) -> Outcome:
        """Return how the call ends, in a state in which that is known."""
        assert self.outcome is not None, f"a call that is {self.state} knows how it ends"
        return self.outcome

    def connect_caller(self) -> ConnectCaller:
        """Let the caller hear the agent; the music, if any, ends."""
        self.music = False
        return ConnectCaller()

    def agent_ends(self, outcome: Outcome) -> Iterator[Effect]:
        """Wait for the agent's last words: it has said that it ends the call."""
        self.step(Step.AGENT_ENDING)
        yield from self.call_off(CALL_ENDED)
        self.outcome = outcome
        yield SetTimer(Timer.CLOSE)

    def agent_done(self, outcome: Outcome) -> Iterator[Effect]:
        """Play out what is queued: nothing more comes from the agent."""
        self.step(Step.AGENT_DONE)
        yield from self.call_off(CALL_ENDED)
        self.outcome = outcome
        yield CancelTimer(Timer.CLOSE)
        yield PlayOut()

    def call_off(self, why: str) -> Iterator[Effect]:
        """Let a supervisor's phone ring no more, if one does."""
        if self.calls_in:
            self.calls_in = False
            yield CancelTimer(Timer.BRING_IN)
            yield DropTarget()
            yield TakeOverEnded(why)

    def stop(self, outcome: Outcome) -> Iterator[Effect]:
        """End now."""
        yield from self.release(Step.STOP, outcome)

    def release(self, step: Step, outcome: Outcome) -> Iterator[Effect]:
        """Give everything back."""
        self.step(step)
        yield from self.call_off(CALL_ENDED)
        self.outcome = outcome
        for timer in Timer:
            yield CancelTimer(timer)
        yield Release(outcome)
