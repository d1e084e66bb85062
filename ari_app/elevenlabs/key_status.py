"""Whether ElevenLabs takes our key: what the last requests for a signed URL have shown."""

from __future__ import annotations

import asyncio

import structlog

from ari_app.elevenlabs.errors import AgentNotFound, AgentRejected, AgentUnauthorized, ConnectError

log = structlog.get_logger(__name__)


class KeyStatus:
    """Refused from the first 401 on until an answer shows that the key is taken.

    An answer that says nothing of the key changes nothing: 429, 5xx, none at all. Nor does 403,
    which may be about one agent.

    Attributes:
        agent_id: The agent for which it was refused last.
    """

    def __init__(self) -> None:
        self.agent_id = ""
        self._refused = asyncio.Event()

    @property
    def refused(self) -> bool:
        """Whether every new call would fail."""
        return self._refused.is_set()

    def accepted(self) -> None:
        """A signed URL was given."""
        if self.refused:
            log.info("agent_key_accepted")
        self._refused.clear()

    def failed(self, agent_id: str, error: ConnectError) -> None:
        """None was given."""
        match error:
            case AgentUnauthorized(http_status=401):
                if not self.refused:
                    log.error("agent_key_refused", error=str(error))
                self.agent_id = agent_id
                self._refused.set()
            case AgentNotFound() | AgentRejected():
                self.accepted()

    async def until_refused(self) -> None:
        """Wait until it is refused."""
        await self._refused.wait()
