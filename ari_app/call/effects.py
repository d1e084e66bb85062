"""What comes out of the call's machine: what is to be done, in the imperative.

:class:`ari_app.call.performer.Performer` does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ari_app.call.outcome import Outcome


class Timer(StrEnum):
    """The timers that a call can hold; one of each."""

    CONNECT = "connect"  # from the start to both the agent and the media channel being there
    JOIN = "join"  # from then to the caller being in the bridge
    CLOSE = "close"  # from the agent's end_call to its closing
    CALL = "call"  # the whole call, from its start or from the callee's answer
    WAIT = "wait"  # until somebody names an agent
    RING = "ring"  # until the callee answers
    SCREEN = "screen"  # until it is known whether a machine answered
    QUIET = "quiet"  # a machine that says nothing: its greeting is over already
    GREETING = "greeting"  # a machine's greeting
    CONSULT = "consult"  # until a transfer's target answers
    BRIEF = "brief"  # the agent's words to the target
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
class MakeBridge:
    """Make the bridge; answered by BridgeMade or ControlFailed."""


@dataclass(frozen=True, slots=True)
class OpenMedia:
    """Have Asterisk dial our AudioSocket server; answered by MediaEntered or ControlFailed."""


@dataclass(frozen=True, slots=True)
class JoinMedia:
    """Put the media channel into the bridge; answered by MediaJoined or ControlFailed."""


@dataclass(frozen=True, slots=True)
class AnswerCaller:
    """Answer the caller; answered by CallerAnswered or ControlFailed."""


@dataclass(frozen=True, slots=True)
class JoinCaller:
    """Put the caller into the bridge; answered by CallerJoined or ControlFailed."""


@dataclass(frozen=True, slots=True)
class PlayMusic:
    """Let the caller hear music; one in the bridge leaves it first."""


@dataclass(frozen=True, slots=True)
class PlaceCall:
    """Call the callee; answered by CalleeRings, CalleeAnswered or CalleeLost."""


@dataclass(frozen=True, slots=True)
class ScreenCall:
    """Let the dialplan find out who answered; answered by CalleeScreened."""


@dataclass(frozen=True, slots=True)
class WatchSpeech:
    """Listen to the machine: report SpeechHeard and SilenceHeard."""


@dataclass(frozen=True, slots=True)
class CallTarget:
    """Call a transfer's target; answered by TargetAnswered or TargetLost."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class JoinTarget:
    """Put the target into the bridge; answered by TargetJoined or TargetLost."""


@dataclass(frozen=True, slots=True)
class DropTarget:
    """Hang the target up."""


@dataclass(frozen=True, slots=True)
class TellTarget:
    """Tell the agent how the call to the target went.

    Attributes:
        lost: Why there is no target; None: it is in the bridge and hears the agent.
    """

    lost: str | None


@dataclass(frozen=True, slots=True)
class DropAgent:
    """End the agent's part; caller and target go on without."""


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
class PlayOut:
    """Report PlayedOut when nothing is queued any more."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire ``timer`` after its time."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget ``timer``."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class Release:
    """Give everything back; answered by Released.

    Attributes:
        outcome: What the dialplan is told.
        caller_present: The caller is still in the application and goes on in the dialplan.
    """

    outcome: Outcome
    caller_present: bool


Effect = (
    RingCaller
    | PlayMusic
    | PlaceCall
    | ScreenCall
    | WatchSpeech
    | CallTarget
    | JoinTarget
    | DropTarget
    | TellTarget
    | DropAgent
    | ConnectAgent
    | ReplaceAgent
    | PlayPhrase
    | PromptAgent
    | PlayKept
    | MakeBridge
    | OpenMedia
    | JoinMedia
    | AnswerCaller
    | JoinCaller
    | StartAudio
    | PlayOut
    | SetTimer
    | CancelTimer
    | Release
)
