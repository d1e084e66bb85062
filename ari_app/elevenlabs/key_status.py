"""Whether ElevenLabs can be reached and takes our key: what the last requests have shown."""

from __future__ import annotations

import asyncio

import structlog

from ari_app.elevenlabs.errors import (
    AgentNotFound,
    AgentRejected,
    AgentUnauthorized,
    AgentUnavailable,
    ConnectError,
)

log = structlog.get_logger(__name__)


class KeyStatus:
    """Refused from the first 401 on until an answer shows that the key is taken; out of reach from
    the first connection that fails until there is any answer.

    An answer that says nothing of the key changes nothing about it: 429, 5xx, none at all. Nor does
    403, which may be about one agent.

    Attributes:
        agent_id: The agent for which it was refused, or not reached, last.
        unreachable: Why no connection came about; empty when one did.
    """

    def __init__(self) -> None:
        self.agent_id = ""
        self.unreachable = ""
        self.refused = False
        self._failing = asyncio.Event()

    @property
    def problem(self) -> str:
        """Why every new call would fail; empty when none would."""
        return "ElevenLabs refuses the key" if self.refused else self.unreachable

    def accepted(self) -> None:
        """A signed URL was given, or the socket opened without one."""
        if self.refused:
            log.info("agent_key_accepted")
        self._now(refused=False)

    def failed(self, agent_id: str, error: ConnectError) -> None:
        """None was given."""
        match error:
            case AgentUnauthorized(http_status=401):
                if not self.refused:
                    log.error("agent_key_refused", error=str(error))
                self.agent_id = agent_id
                self._now(refused=True)
            case AgentNotFound() | AgentRejected():
                self.accepted()
            case AgentUnavailable(http_status=None):
                self.agent_id = agent_id
                self._now(refused=self.refused, unreachable=str(error))
            case ConnectError(http_status=int()):
                self._now(refused=self.refused)

    def _now(self, *, refused: bool, unreachable: str = "") -> None:
        if bool(unreachable) is not bool(self.unreachable):
            if unreachable:
                log.error("agent_unreachable", error=unreachable)
            else:
                log.info("agent_reached")
        self.refused, self.unreachable = refused, unreachable
        if self.problem:
            self._failing.set()
        else:
            self._failing.clear()

    async def until_failing(self) -> None:
        """Wait until there is a problem."""
        await self._failing.wait()
