"""The words of a call's machine: its timers, its effects (commands) and its events (past tense)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ari_app.call.amd import OnMachine
from ari_app.line.interface import (
    Answered,
    Connected,
    Ended,
    LineFailed,
    Opened,
    Outcome,
    PhoneHeld,
    Rings,
    SoundLost,
    TargetConnected,
    TargetLost,
)


class Timer(StrEnum):
    """The timers that a call can hold; one of each."""

    CONNECT = "connect"  # from the start to both the agent and the way for sound being there
    JOIN = "join"  # from then to the caller hearing the agent
    CLOSE = "close"  # from the agent's end_call to its closing
    CALL = "call"  # the whole call, from its start or from the callee's answer
    RING = "ring"  # until the callee answers
    SCREEN = "screen"  # until it is known whether a machine answered
    QUIET = "quiet"  # a machine that says nothing: its greeting is over already
    GREETING = "greeting"  # a machine's greeting
    CONSULT = "consult"  # until a transfer's target answers
    BRIEF = "brief"  # the agent's words to the target
    BRING_IN = "bring_in"  # until a supervisor answers
    SPEECH = "speech"  # nobody says anything
    HOLD = "hold"  # the caller's phone has put us on hold
    RECONNECT = "reconnect"  # until another agent is there in place of the lost one
    COVER = "cover"  # silence after the loss; what is queued is played first
    RESUME = "resume"  # from the new agent being there to its first word


@dataclass(frozen=True, slots=True)
class RingCaller:
    """Let the caller hear ringing."""


@dataclass(frozen=True, slots=True)
class ConnectAgent:
    """Dial the agent; answered by AgentReady or AgentFailed."""


@dataclass(frozen=True, slots=True)
class OpenLine:
    """Make a way for sound; answered by Opened or LineFailed."""


@dataclass(frozen=True, slots=True)
class ConnectCaller:
    """Let caller and agent hear each other; answered by Connected or LineFailed."""


@dataclass(frozen=True, slots=True)
class PlayMusic:
    """Let the caller hear music instead of the agent."""


@dataclass(frozen=True, slots=True)
class PlaceCall:
    """Call the callee; answered by Rings, Answered or Ended."""


@dataclass(frozen=True, slots=True)
class ScreenCall:
    """Find out who answered; answered by CalleeScreened."""


@dataclass(frozen=True, slots=True)
class WatchSpeech:
    """Listen to the machine: report SpeechHeard and SilenceHeard."""


@dataclass(frozen=True, slots=True)
class CallTarget:
    """Call a transfer's target; answered by TargetConnected or TargetLost."""

    target: str


@dataclass(frozen=True, slots=True)
class DropTarget:
    """Hang the target up."""


@dataclass(frozen=True, slots=True)
class TellTarget:
    """Tell the agent how the call to the target went.

    Attributes:
        lost: Why there is no target; None: it hears the agent.
    """

    lost: str | None


@dataclass(frozen=True, slots=True)
class HandOver:
    """Join caller and target, and end the agent's part; answered by Connected."""


@dataclass(frozen=True, slots=True)
class BringIn:
    """Call a supervisor, while the agent goes on; answered by TargetConnected or TargetLost."""

    target: str


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Silence the agent: the supervisor speaks with the caller."""


@dataclass(frozen=True, slots=True)
class TakeOverEnded:
    """The call to the supervisor has come to nothing, and the agent has gone on meanwhile.

    Attributes:
        why: A `Result`, or `given_up`, or `call_ended`.
    """

    why: str


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Let agent and caller hear each other again, and tell the agent of its colleague.

    Attributes:
        there: The agent is there; otherwise it is told as soon as one is.
        lost: It was lost meanwhile, and another one is dialled.
    """

    there: bool
    lost: bool = False


@dataclass(frozen=True, slots=True)
class ReplaceAgent:
    """Dial the agent once more; answered by AgentReady or AgentFailed.

    Attributes:
        heard: The caller has spoken with the last one: the new one is told what was said, and shall
            not greet.
    """

    heard: bool


@dataclass(frozen=True, slots=True)
class PlayPhrase:
    """Let the caller hear the phrase that covers the gap."""


@dataclass(frozen=True, slots=True)
class PromptAgent:
    """Ask the new agent to go on: it has not said anything."""


@dataclass(frozen=True, slots=True)
class PlayKept:
    """Let the caller hear what the agent has said while the caller heard music."""


@dataclass(frozen=True, slots=True)
class StartAudio:
    """Let sound flow both ways, from the agent's first sample."""


@dataclass(frozen=True, slots=True)
class ResumeAudio:
    """Let sound flow again, in a process that has not heard its beginning."""


@dataclass(frozen=True, slots=True)
class PlayOut:
    """Report PlayedOut when nothing is queued any more."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire `timer` after its time."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget `timer`."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class Release:
    """Give everything back; answered by Released.

    Attributes:
        outcome: What whoever goes on with the caller is told.
    """

    outcome: Outcome


Effect = (
    RingCaller
    | PlayMusic
    | PlaceCall
    | ScreenCall
    | WatchSpeech
    | CallTarget
    | DropTarget
    | TellTarget
    | HandOver
    | BringIn
    | TakeOver
    | TakeOverEnded
    | GiveBack
    | ConnectAgent
    | ReplaceAgent
    | PlayPhrase
    | PromptAgent
    | PlayKept
    | OpenLine
    | ConnectCaller
    | StartAudio
    | ResumeAudio
    | PlayOut
    | SetTimer
    | CancelTimer
    | Release
)


@dataclass(frozen=True, slots=True)
class CallerArrived:
    """A caller has come in.

    Attributes:
        answered: The line is up already: a dialer answered it, or the dialplan did.
        on_machine: What to do, if a machine has answered.
    """

    answered: bool
    on_machine: OnMachine = OnMachine.TALK


@dataclass(frozen=True, slots=True)
class CallWanted:
    """Somebody is to be called.

    Attributes:
        screened: Find out first whether a machine answers.
    """

    screened: bool


@dataclass(frozen=True, slots=True)
class CallAdopted:
    """The call's process was lost, and this one goes on with it.

    Attributes:
        outcome: How the call ends if no agent comes.
        answered: The line is up.
        phrase: There is a phrase to cover the gap.
        agent_holds: Where the caller is held: by the agent, until it speaks.
    """

    outcome: Outcome
    answered: bool
    phrase: bool = False
    agent_holds: bool = False


@dataclass(frozen=True, slots=True)
class CalleeScreened:
    """It is known who has answered.

    Attributes:
        on_machine: What to do; `TALK` for a person.
    """

    on_machine: OnMachine


@dataclass(frozen=True, slots=True)
class SpeechHeard:
    """The machine speaks, after `WatchSpeech`."""


@dataclass(frozen=True, slots=True)
class SilenceHeard:
    """The machine's greeting has ended."""


@dataclass(frozen=True, slots=True)
class HoldRequested:
    """The caller is to hear music, or the agent again."""

    on: bool


@dataclass(frozen=True, slots=True)
class ConsultRequested:
    """A transfer's target is to be asked first.

    Attributes:
        target: Whom to call: a checked number.
    """

    target: str


@dataclass(frozen=True, slots=True)
class TakeOverRequested:
    """A supervisor wants to speak with the caller.

    Attributes:
        target: Their telephone: a checked number.
    """

    target: str


@dataclass(frozen=True, slots=True)
class GiveBackRequested:
    """The agent is to speak with the caller again, instead of a supervisor or the target of a
    transfer; the phone of either is to ring no more."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The call cannot be taken at all: no room, draining, or no agent is named."""

    outcome: Outcome


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
    Rings
    | Answered
    | Opened
    | Connected
    | PhoneHeld
    | TargetConnected
    | TargetLost
    | SoundLost
    | LineFailed
    | Ended
    | CallerArrived
    | CallWanted
    | CallAdopted
    | CalleeScreened
    | SpeechHeard
    | SilenceHeard
    | HoldRequested
    | ConsultRequested
    | TakeOverRequested
    | GiveBackRequested
    | Refused
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
