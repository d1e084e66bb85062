"""The life of a call as a table.

A call moves by *steps*. Each row says: in this state, this step leads there. What is not in the
table cannot happen: `advance` raises and changes nothing. `docs/architecture.md` draws its
diagram from this table, and a test holds the two together.

`RELEASING` is where every call passes on its way out, whoever ended it, so there is one place
that gives back the line and the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """The states of a call."""

    NEW = "new"
    DIALLING = "dialling"  # we call somebody, and nothing has been heard of them yet
    RINGING = "ringing"  # it rings there; the agent is dialled and the line opened meanwhile
    SCREENING = "screening"  # answered; the line finds out whether by a machine
    CONNECTING = "connecting"  # the agent is dialled, the line is opened; the caller rings
    JOINING = "joining"  # both are there; the caller is answered
    GREETING = "greeting"  # an answering machine speaks; the agent waits for its end
    TALKING = "talking"
    HOLDING = "holding"  # the caller hears music instead of the agent
    CONSULTING = "consulting"  # the caller hears music while a transfer's target is called
    BRIEFING = "briefing"  # the agent speaks with the target
    TAKEN_OVER = "taken_over"  # a supervisor speaks with the caller; the agent is held
    HANDED_OVER = "handed_over"  # caller and target speak; the agent has left
    RECOVERING = "recovering"  # the agent was lost; another one is on its way
    CLOSING = "closing"  # the agent said that it ends the call; its last words still come
    DRAINING = "draining"  # nothing more comes; what is queued is played out
    RELEASING = "releasing"  # everything is given back
    ENDED = "ended"


class Step(StrEnum):
    """The steps between the states."""

    START = "start"
    PLACE = "place"
    RINGS = "rings"
    ANSWERED = "answered"
    SCREEN = "screen"
    READY = "ready"
    JOINED = "joined"
    MACHINE_JOINED = "machine_joined"
    GREETED = "greeted"
    HOLD = "hold"
    UNHOLD = "unhold"
    CONSULT = "consult"
    TARGET_CONNECTED = "target_connected"
    TARGET_LOST = "target_lost"
    HAND_OVER = "hand_over"
    TAKE_OVER = "take_over"
    GIVE_BACK = "give_back"
    AGENT_LOST = "agent_lost"
    AGENT_RESUMED = "agent_resumed"
    AGENT_ENDING = "agent_ending"
    AGENT_DONE = "agent_done"
    PLAYED_OUT = "played_out"
    CALLER_GONE = "caller_gone"
    STOP = "stop"
    RELEASED = "released"


LIVE: Final = tuple(
    state for state in State if state not in (State.NEW, State.RELEASING, State.ENDED)
)
"""Neither before its beginning nor on its way out."""

TRANSITIONS: Final[Mapping[tuple[State, Step], State]] = MappingProxyType(
    {
        (State.NEW, Step.START): State.CONNECTING,
        (State.NEW, Step.STOP): State.RELEASING,  # no room, no agent named
        (State.NEW, Step.CALLER_GONE): State.RELEASING,  # while the call was planned
        (State.NEW, Step.PLACE): State.DIALLING,
        (State.DIALLING, Step.RINGS): State.RINGING,
        (State.DIALLING, Step.ANSWERED): State.CONNECTING,
        (State.RINGING, Step.ANSWERED): State.CONNECTING,
        (State.DIALLING, Step.SCREEN): State.SCREENING,
        (State.RINGING, Step.SCREEN): State.SCREENING,
        (State.SCREENING, Step.ANSWERED): State.CONNECTING,
        (State.CONNECTING, Step.READY): State.JOINING,
        (State.JOINING, Step.JOINED): State.TALKING,
        (State.JOINING, Step.MACHINE_JOINED): State.GREETING,
        (State.GREETING, Step.GREETED): State.TALKING,
        (State.TALKING, Step.HOLD): State.HOLDING,
        (State.HOLDING, Step.UNHOLD): State.TALKING,
        (State.TALKING, Step.CONSULT): State.CONSULTING,
        (State.HOLDING, Step.CONSULT): State.CONSULTING,
        (State.CONSULTING, Step.TARGET_CONNECTED): State.BRIEFING,
        (State.CONSULTING, Step.TARGET_LOST): State.TALKING,
        (State.BRIEFING, Step.TARGET_LOST): State.TALKING,
        (State.BRIEFING, Step.HAND_OVER): State.HANDED_OVER,
        (State.TALKING, Step.TAKE_OVER): State.TAKEN_OVER,
        (State.HOLDING, Step.TAKE_OVER): State.TAKEN_OVER,
        (State.RECOVERING, Step.TAKE_OVER): State.TAKEN_OVER,
        (State.TAKEN_OVER, Step.GIVE_BACK): State.TALKING,
        (State.TAKEN_OVER, Step.HAND_OVER): State.HANDED_OVER,
        (State.TAKEN_OVER, Step.AGENT_LOST): State.RECOVERING,
        (State.TALKING, Step.AGENT_LOST): State.RECOVERING,
        (State.HOLDING, Step.AGENT_LOST): State.RECOVERING,
        (State.CONSULTING, Step.AGENT_LOST): State.RECOVERING,
        (State.RECOVERING, Step.AGENT_RESUMED): State.TALKING,
        (State.TALKING, Step.AGENT_ENDING): State.CLOSING,
        (State.TALKING, Step.AGENT_DONE): State.DRAINING,
        (State.CLOSING, Step.AGENT_DONE): State.DRAINING,
        (State.DRAINING, Step.PLAYED_OUT): State.RELEASING,
        **{(state, Step.CALLER_GONE): State.RELEASING for state in LIVE},
        **{(state, Step.STOP): State.RELEASING for state in LIVE},
        (State.RELEASING, Step.RELEASED): State.ENDED,
    }
)


IDLE: Final = frozenset({State.NEW, State.HANDED_OVER, State.RELEASING, State.ENDED})
"""The call holds no agent, and is not about to."""

TRANSFERABLE: Final = frozenset(state for state, step in TRANSITIONS if step is Step.CONSULT)
"""A caller can be passed on from here, where no supervisor's phone rings."""

OVER: Final = frozenset({State.RELEASING, State.ENDED})
"""Whatever happens now changes nothing."""

INITIALIZING: Final = frozenset(
    {
        State.NEW,
        State.DIALLING,
        State.RINGING,
        State.SCREENING,
        State.CONNECTING,
        State.JOINING,
    }
)
"""Caller and agent are not together yet."""


class IllegalStep(Exception):
    """A step that the table does not have: our own fault, never a peer's."""

    def __init__(self, state: State, step: Step) -> None:
        super().__init__(f"a call that is {state} cannot take the step {step}")
        self.state = state
        self.step = step


def advance(state: State, step: Step) -> State:
    """Return the state that `step` leads to.

    Raises:
        IllegalStep: The table has no such row.
    """
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise IllegalStep(state, step) from None


def mermaid() -> str:
    """Draw the table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> new"]
    rows: dict[tuple[State, State], list[str]] = {}
    for (state, step), target in TRANSITIONS.items():
        rows.setdefault((state, target), []).append(step.value)
    lines += [
        f"    {state} --> {target}: {', '.join(steps)}" for (state, target), steps in rows.items()
    ]
    lines.append("    ended --> [*]")
    return "\n".join(lines)
