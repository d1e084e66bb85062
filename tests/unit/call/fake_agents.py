"""Agents that say what a test tells them to, and keep the promises of the real client: nothing is
reported before `connect` has returned, and `closed` comes exactly once and last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import numpy as np

from ari_app.agent.elevenlabs.client import AgentClient
from ari_app.agent.elevenlabs.client_messages import Initiation
from ari_app.agent.elevenlabs.closing import RETRYABLE, AgentClose, CloseKind
from ari_app.agent.elevenlabs.connection import AgentConnection, AgentHandler


class FakeAgent:
    """One conversation.

    Attributes:
        heard: The caller's sound, chunk by chunk.
        results: How tools were answered: call id, text, whether it was an error.
        told: What it was told otherwise: in which way, and the text.
    """

    def __init__(
        self,
        agent_id: str,
        initiation: Initiation,
        handler: AgentHandler,
        *,
        conversation_id: str,
        input_format: str,
        output_format: str,
    ) -> None:
        self.agent_id = agent_id
        self.initiation = initiation
        self.handler = handler
        self.conversation_id = conversation_id
        self.input_format = input_format
        self.output_format = output_format
        self.heard: list[bytes] = []
        self.results: list[tuple[str, str, bool]] = []
        self.told: list[tuple[str, str]] = []
        self.end: AgentClose | None = None
        self.dead_seconds = 0.0
        self.before_close: Callable[[], Awaitable[object]] | None = None

    # --- AgentConnection

    def send_audio(self, data: bytes) -> None:
        if self.end is None:
            self.heard.append(data)

    @property
    def is_open(self) -> bool:
        return self.end is None

    def send_user_activity(self) -> None:
        self.told.append(("activity", ""))

    def send_contextual_update(self, text: str, *, context_id: str | None = None) -> None:
        if self.end is None:
            self.told.append(("context", text))

    def send_user_message(self, text: str, *, source_medium: str | None = None) -> None:
        if self.end is None:
            self.told.append((source_medium or "text", text))

    def send_tool_result(self, call_id: str, result: str, *, is_error: bool = False) -> None:
        if self.end is None:
            self.results.append((call_id, result, is_error))

    async def close(self) -> None:
        await asyncio.sleep(0)
        if self.before_close is not None:
            await self.before_close()
        self.closes(CloseKind.LOCAL)

    # --- what it does

    def says(self, ms: int, *, event_id: int = 1, level: int = 8000, final: bool = False) -> None:
        """Sound of this length without a silent sample, all at once, as agents send it."""
        rate_hz = int(self.output_format.rpartition("_")[2])
        samples = [level, -level, level] * (rate_hz * ms // 3000 + 1)
        pcm = np.array(samples[: rate_hz * ms // 1000], "<i2").tobytes()
        self.handler.audio(event_id, pcm, final)

    def closes(self, kind: CloseKind = CloseKind.AGENT_ENDED, code: int = 1000) -> None:
        """Its socket closes; the second time nothing happens."""
        if self.end is None:
            self.end = AgentClose(code, "", kind, retryable=kind in RETRYABLE)
            self.handler.closed(self.end)


class FakeAgents:
    """The client's stand-in.

    Attributes:
        conversations: All that came about.
        dialled: The agents that were asked for.
        ready: Set it, and `connect` returns; set from the start.
        before: What happens when an agent is dialled; what it raises, `connect` raises.
        conversation_id: What they call their conversations; None: by the agent's name.
    """

    def __init__(self) -> None:
        self.conversations: list[FakeAgent] = []
        self.dialled: list[str] = []
        self.given_up = 0
        self.ready = asyncio.Event()
        self.ready.set()
        self.before: Callable[[], Awaitable[object] | None] | None = None
        self.input_format = "pcm_8000"
        self.output_format = "pcm_8000"
        self.conversation_id: str | None = None

    def _conversations_of(self, agent_id: str) -> int:
        return sum(agent.agent_id == agent_id for agent in self.conversations)

    @property
    def client(self) -> AgentClient:
        """As what the application takes it for."""
        return cast(AgentClient, self)

    async def connect(
        self, agent_id: str, initiation: Initiation | None = None, *, handler: AgentHandler
    ) -> AgentConnection:
        self.dialled.append(agent_id)
        try:
            await asyncio.sleep(0)
            if self.before is not None and (waiting := self.before()) is not None:
                await waiting
            await self.ready.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        agent = FakeAgent(
            agent_id,
            initiation or Initiation(),
            handler,
            conversation_id=f"conv_of_{agent_id}" + "_again" * self._conversations_of(agent_id),
            input_format=self.input_format,
            output_format=self.output_format,
        )
        agent.conversation_id = self.conversation_id or agent.conversation_id
        self.conversations.append(agent)
        return cast(AgentConnection, agent)
