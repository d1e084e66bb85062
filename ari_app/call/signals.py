"""What goes into the call's machine and what comes out of it.

Events say what happened, in the past tense; effects say what is to be done, in the imperative.
:class:`ari_app.call.session.CallSession` turns one into the other by talking to Asterisk and the
agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """``AGENT_STATUS``: what the dialplan is told when the agent's part has ended."""

    COMPLETED = "COMPLETED"
    TRANSFER = "TRANSFER"
    TIMEOUT = "TIMEOUT"
    REJECTED = "REJECTED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        status: For the dialplan.
        reason: A stable slug such as ``agent_ended`` or ``agent_timeout``.
        transfer_to: Where the agent wants the caller to go; only with ``TRANSFER``.
    """

    status: Status
    reason: str
    transfer_to: str | None = None


class Timer(StrEnum):
    """The timers that a call can hold; one of each."""

    CONNECT = "connect"  # from the start to both the agent and the media channel being there
    JOIN = "join"  # from then to the caller being in the bridge
    CLOSE = "close"  # from the agent's end_call to its closing
    CALL = "call"  # the whole call


# --- events
# -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallerEntered:
    """The caller's channel entered the application (``StasisStart``).

    Attributes:
        answered: The channel is already up: a dialer answered it, or the dialplan did.
    """

    answered: bool


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
    | PlayedOut
    | TimerFired
    | EndRequested
    | Released
)


# --- effects
# ----------------------------------------------------------------------------------------


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
    | ConnectAgent
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
