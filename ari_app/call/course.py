"""Where one call is, and what is known about it: what the parts of the machine share. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ari_app.call.signals import (
    AgentLost,
    CancelTimer,
    Effect,
    JoinCaller,
    OnMachine,
    Outcome,
    PlayOut,
    Release,
    SetTimer,
    Timer,
)
from ari_app.call.states import State, Step, advance


class Course:
    """One call's way through the table of states.

    Attributes:
        state: Where the call is.
        outcome: How it ends; known from the moment that it is decided, None before.
        answered: The caller's channel is up.
        screened: Whom we call is to be screened for machines.
        on_machine: What to do, for a machine has answered; ``TALK`` for a person.
        prepared: Bridge and media channel have been asked for.
        music: The caller hears music.
        agent_wanted: The agent has been dialled.
        agent_ready: It is there.
        ending: It has ended the call before the caller was there: how, once its words are heard.
        agent_closed: It has left before the caller was there: how the call ends then.
        agent_lost: It was lost then, and is to be replaced.
        replaced: That has been done; a call gets no third agent.
        together: The caller is with the target of a transfer.
        phrase: There is a phrase to cover the gap, and it has not been played.
        bridge_made, media_entered, media_joined: What Asterisk has done.
    """

    def __init__(self) -> None:
        self.state = State.NEW
        self.outcome: Outcome | None = None
        self.answered = False
        self.screened = False
        self.on_machine = OnMachine.TALK
        self.prepared = False
        self.music = False
        self.agent_wanted = False
        self.agent_ready = False
        self.ending: Outcome | None = None
        self.agent_closed: Outcome | None = None
        self.agent_lost: AgentLost | None = None
        self.replaced = False
        self.phrase = False
        self.together = False
        self.bridge_made = False
        self.media_entered = False
        self.media_joined = False

    def step(self, step: Step) -> None:
        """Go on.

        Raises:
            IllegalStep: The table has no such row.
        """
        self.state = advance(self.state, step)

    def decided(self) -> Outcome:
        """How the call ends, where that must be known."""
        assert self.outcome is not None, f"a call that is {self.state} knows how it ends"
        return self.outcome

    def join_caller(self) -> JoinCaller:
        """Put the caller into the bridge; the music, if any, ends."""
        self.music = False
        return JoinCaller()

    def agent_ends(self, outcome: Outcome) -> Iterator[Effect]:
        """The agent has said that it ends the call; its last words are waited for."""
        self.step(Step.AGENT_ENDING)
        self.outcome = outcome
        yield SetTimer(Timer.CLOSE)

    def agent_done(self, outcome: Outcome) -> Iterator[Effect]:
        """Nothing more comes from the agent; what is queued is played out."""
        self.step(Step.AGENT_DONE)
        self.outcome = outcome
        yield CancelTimer(Timer.CLOSE)
        yield PlayOut()

    def stop(self, outcome: Outcome) -> Iterator[Effect]:
        """End now; the caller may still be there."""
        yield from self.release(Step.STOP, outcome, caller_present=True)

    def release(self, step: Step, outcome: Outcome, *, caller_present: bool) -> Iterator[Effect]:
        """Give everything back."""
        self.step(step)
        self.outcome = outcome
        for timer in Timer:
            yield CancelTimer(timer)
        yield Release(outcome, caller_present)
