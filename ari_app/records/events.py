"""Who follows calls from outside: metrics, event streams, the live transcript of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ari_app.agent.elevenlabs.closing import AgentClose
from ari_app.call.hearing import ResponseTime
from ari_app.call.states import State

if TYPE_CHECKING:
    from ari_app.call.call import CallSession


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """Something that was said.

    Attributes:
        at_seconds: Since the call entered the application.
        who: ``agent``, ``caller``, ``interruption``, ``correction``, ``tool``, ``dtmf`` or
            ``note``.
        text: The words.
    """

    at_seconds: float
    who: str
    text: str


class SessionObserver:
    """Who wants to know how a call goes.

    A class that derives from it need only have the methods that it wants.
    """

    def call_changed(self, session: CallSession, state: State) -> None:
        """The call has reached ``state``."""

    def call_said(self, session: CallSession, line: TranscriptLine) -> None:
        """One side said something, or the agent was interrupted."""

    def call_responded(self, session: CallSession, response: ResponseTime) -> None:
        """The agent begins to answer what the caller said."""

    def agent_connected(self, session: CallSession, seconds: float) -> None:
        """The agent is ready, so long after the call's start."""

    def agent_not_reached(self, session: CallSession, code: str) -> None:
        """No conversation came about; ``code`` is that of the error."""

    def agent_lost(self, session: CallSession) -> None:
        """The agent's socket died in the middle of the call; another agent is dialled."""

    def agent_resumed(self, session: CallSession, seconds: float) -> None:
        """Another agent speaks in place of the lost one, so long after the loss."""

    def agent_closed(self, session: CallSession, close: AgentClose) -> None:
        """The agent's socket has closed."""
