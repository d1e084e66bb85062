"""What may be asked of calls from outside: begin one, end one, act on one.

The HTTP interface is one way in; nothing here knows of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ari_app.call.session import CallSession
from ari_app.errors import AppError

Variable = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Initiate:
    """A wish for an agent.

    Attributes:
        agent_id: The agent; None leaves it to the settings.
        session_id: A name for the session; None lets us choose.
        call_id: Without a called number: the channel that waits in our application. With one: the
            dialer's own reference.
        caller_number: Whom the callee sees; for a waiting channel, what the agent is told in place
            of the channel's own caller.
        called_number: Whom to call; None takes the waiting channel.
        variables: Dynamic variables for the agent.
        overrides: ``conversation_config_override`` for the agent; None for none.
        ring_timeout_seconds: How long it may ring.
        amd: Let answering machine detection run before the agent joins.
        wait_seconds: How long to wait for room; 0 refuses at once.
        metadata: Kept with the session and shown, never read.
    """

    agent_id: str | None = None
    session_id: str | None = None
    call_id: str | None = None
    caller_number: str | None = None
    called_number: str | None = None
    variables: Mapping[str, Variable] = field(default_factory=dict)
    overrides: Mapping[str, Any] | None = None
    ring_timeout_seconds: float = 30.0
    amd: bool = False
    wait_seconds: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)


class ControlRefused(AppError):
    """A wish for an agent was not granted.

    Attributes:
        code: ``capacity``, ``draining``, ``rate_limited``, ``queue_timeout``, ``invalid_number``,
            ``invalid_session_id``, ``no_agent_id``, ``no_such_channel``,
            ``session_exists``, ``not_connected``, or a code of
            :class:`~ari_app.precall.PreCallError`.
        retry_after: Seconds after which it may be granted; None: asking again is of no use.
    """

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, code=code, retryable=retry_after is not None)
        self.retry_after = retry_after


class SessionNotFound(AppError):
    """There is no such session, or it ended more than 60 seconds ago."""

    default_code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__("There is no such session; an ended one is kept for 60 seconds.")
        self.session_id = session_id


class NotPossible(AppError):
    """The call is not in a state for this, or Asterisk refused it.

    Attributes:
        code: ``not_talking``, ``bad_target``, ``bad_digits`` or ``asterisk``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code=code)


class CallControl(Protocol):
    """Begins calls and acts on them.

    The methods that act on a call raise :class:`SessionNotFound` and :class:`NotPossible`.
    """

    async def initiate(self, request: Initiate) -> CallSession:
        """Begin a call, or give the agent to a waiting one; returns before it is answered.

        Raises:
            ControlRefused: It was not granted.
        """
        ...

    async def end(self, session_id: str, reason: str | None = None) -> CallSession:
        """End a call and wait until everything is given back; an ended one is returned as it is.

        Raises:
            SessionNotFound: There is no such session.
        """
        ...

    async def transfer(
        self, session_id: str, to: str, mode: Literal["blind", "attended"] = "blind"
    ) -> None:
        """Pass the caller on, after what the agent is saying."""
        ...

    async def send_dtmf(self, session_id: str, digits: str) -> None:
        """Send keys (0 to 9, A to D, * and #) to the caller's side."""
        ...

    async def hold(self, session_id: str) -> None:
        """Give the caller music instead of the agent."""
        ...

    async def unhold(self, session_id: str) -> None:
        """Give the caller the agent again."""
        ...

    async def say_to_agent(
        self, session_id: str, kind: Literal["context", "user"], text: str
    ) -> None:
        """Send the agent a contextual update, or a message as if the caller had said it."""
        ...

    async def mute(self, session_id: str, muted: bool) -> None:
        """Let the agent hear silence instead of the caller, or the caller again."""
        ...
