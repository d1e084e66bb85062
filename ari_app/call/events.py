"""What goes into the call's machine: what happened, in the past tense."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ari_app.call.effects import Timer
from ari_app.call.outcome import Outcome


class OnMachine(StrEnum):
    """What to do when a machine has answered; ``TALK`` also stands for a person."""

    TALK = "talk"
    LEAVE_MESSAGE = "leave_message"
    HANG_UP = "hang_up"


@dataclass(frozen=True, slots=True)
class CallerEntered:
    """The caller's channel entered the application (``StasisStart``).

    Attributes:
        answered: The channel is already up: a dialer answered it, or the dialplan did.
        on_machine: What to do, if the dialplan says that a machine has answered.
    """

    answered: bool
    on_machine: OnMachine = OnMachine.TALK


@dataclass(frozen=True, slots=True)
class CallerWaits:
    """The caller's channel entered the application, to wait for an agent to be named.

    Attributes:
        answered: As for :class:`CallerEntered`.
    """

    answered: bool


@dataclass(frozen=True, slots=True)
class AgentNamed:
    """A waiting caller gets an agent."""


@dataclass(frozen=True, slots=True)
class CallWanted:
    """Somebody is to be called.

    Attributes:
        screened: Find out first whether a machine answers.
    """

    screened: bool


@dataclass(frozen=True, slots=True)
class CalleeRings:
    """It rings at the callee's, or there is early sound from there."""


@dataclass(frozen=True, slots=True)
class CalleeAnswered:
    """The callee's channel entered the application."""


@dataclass(frozen=True, slots=True)
class CalleeScreened:
    """The dialplan has listened, and the callee's channel has entered again.

    Attributes:
        on_machine: What to do; ``TALK`` for a person.
    """

    on_machine: OnMachine


@dataclass(frozen=True, slots=True)
class CalleeLost:
    """The callee did not answer.

    Attributes:
        result: See :mod:`ari_app.call.results`.
        present: The channel may still be there.
    """

    result: str
    present: bool = False


@dataclass(frozen=True, slots=True)
class SpeechHeard:
    """The machine speaks, after :class:`WatchSpeech`."""


@dataclass(frozen=True, slots=True)
class SilenceHeard:
    """The machine's greeting has ended."""


@dataclass(frozen=True, slots=True)
class HoldRequested:
    """The caller is to hear music, or the agent again."""

    on: bool


@dataclass(frozen=True, slots=True)
class PhoneHeld:
    """The caller's phone has put us on hold, or taken us back."""

    on: bool


@dataclass(frozen=True, slots=True)
class ConsultRequested:
    """A transfer's target is to be asked first.

    Attributes:
        endpoint: Whom to call, as Asterisk dials it.
    """

    endpoint: str


@dataclass(frozen=True, slots=True)
class TargetAnswered:
    """The target's channel entered the application."""


@dataclass(frozen=True, slots=True)
class TargetJoined:
    """The target's channel is in the bridge."""


@dataclass(frozen=True, slots=True)
class TargetLost:
    """The target did not answer, or hung up.

    Attributes:
        result: See :mod:`ari_app.call.results`.
    """

    result: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The call cannot be taken at all: no room, draining, or no agent is named."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class BridgeMade:
    """The bridge exists."""


@dataclass(frozen=True, slots=True)
class MediaEntered:
    """The media channel entered the application; only now may it be bridged."""


@dataclass(frozen=True, slots=True)
class MediaJoined:
    """The media channel is in the bridge (``ChannelEnteredBridge``)."""


@dataclass(frozen=True, slots=True)
class CallerAnswered:
    """The caller's channel is up."""


@dataclass(frozen=True, slots=True)
class CallerJoined:
    """The caller's channel is in the bridge (``ChannelEnteredBridge``)."""


@dataclass(frozen=True, slots=True)
class CallerLeft:
    """The caller hung up, or was taken away by somebody else."""

    reason: str


@dataclass(frozen=True, slots=True)
class MediaLost:
    """The media channel or its AudioSocket connection is gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class ControlFailed:
    """A request to Asterisk failed without which the call cannot go on."""

    reason: str


@dataclass(frozen=True, slots=True)
class AgentReady:
    """The agent's conversation has started and its formats are known."""


@dataclass(frozen=True, slots=True)
class AgentFailed:
    """The agent could not be reached."""

    reason: str


@dataclass(frozen=True, slots=True)
class AgentEnding:
    """The agent means to end the call, or to pass it on; its last words may still come."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class AgentClosed:
    """The agent's socket has closed.

    Attributes:
        outcome: What the close code stands for.
    """

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class AgentLost:
    """The agent's socket has closed, and another conversation may be begun in its place.

    Attributes:
        outcome: How the call ends if it is not.
        phrase: There is a phrase to cover the gap.
    """

    outcome: Outcome
    phrase: bool = False


@dataclass(frozen=True, slots=True)
class AgentResumed:
    """The agent that came in the place of a lost one begins to speak."""


@dataclass(frozen=True, slots=True)
class PlayedOut:
    """The last queued frame has been sent to the caller."""


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer that was set has run out."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class EndRequested:
    """Somebody wants the call to end now: the HTTP interface or a shut-down."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Released:
    """Everything has been given back."""


Event = (
    CallerEntered
    | CallerWaits
    | AgentNamed
    | CallWanted
    | CalleeRings
    | CalleeAnswered
    | CalleeScreened
    | CalleeLost
    | SpeechHeard
    | SilenceHeard
    | HoldRequested
    | PhoneHeld
    | ConsultRequested
    | TargetAnswered
    | TargetJoined
    | TargetLost
    | Refused
    | BridgeMade
    | MediaEntered
    | MediaJoined
    | CallerAnswered
    | CallerJoined
    | CallerLeft
    | MediaLost
    | ControlFailed
    | AgentReady
    | AgentFailed
    | AgentEnding
    | AgentClosed
    | AgentLost
    | AgentResumed
    | PlayedOut
    | TimerFired
    | EndRequested
    | Released
)
