"""Agents that say what a test tells them to, and keep the promises of the real client: nothing is
reported before `connect` has returned, and `closed` comes exactly once and last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from ari_app.agent.elevenlabs.closing import RETRYABLE, AgentClose, CloseKind
from ari_app.agent.interface import (
    AgentCorrected,
    AgentSaid,
    Briefing,
    CallerSaid,
    Ending,
    Interrupted,
    ResponseComplete,
    Spoke,
    TellAgentEvent,
    TheirToolBegan,
    TheirToolEnded,
    ToolCalled,
)
from ari_app.audio.formats import AgentFormats, AudioFormat


class Handler:
    """What the agent's service does, by the names of its messages."""

    def __init__(self, tell: TellAgentEvent) -> None:
        self.tell = tell

    def audio(self, event_id: int, data: bytes, is_final: bool) -> None:
        self.tell(Spoke(event_id, data, is_final))

    def interruption(self, event_id: int) -> None:
        self.tell(Interrupted(event_id))

    def user_transcript(self, text: str, event_id: int | None) -> None:
        self.tell(CallerSaid(text, event_id))

    def agent_response(self, text: str, event_id: int | None) -> None:
        self.tell(AgentSaid(text, event_id))

    def agent_response_correction(
        self, original: str, corrected: str, event_id: int | None
    ) -> None:
        self.tell(AgentCorrected(original, corrected, event_id))

    def response_complete(self, event_id: int | None) -> None:
        self.tell(ResponseComplete(event_id))

    def tool_call(
        self, name: str, call_id: str, parameters: dict[str, Any], expects_response: bool
    ) -> None:
        self.tell(ToolCalled(name, call_id, parameters, expects_response, None))

    def their_tool_begins(self, name: str, call_id: str, seconds: float | None = None) -> None:
        self.tell(TheirToolBegan(name, call_id, seconds))

    def tool_response(self, name: str, call_id: str, status: str, is_error: bool) -> None:
        self.tell(TheirToolEnded(name, call_id, status, is_error))
        if name == "end_call" and status == "success":
            self.tell(Ending())


class FakeAgent:
    """One conversation.

    Attributes:
        heard: The caller's sound, chunk by chunk.
        results: How tools were answered: call id, text, whether it was an error.
        told: What it was told otherwise: in which way, and the text.
    """

    def __init__(
        self,
        briefing: Briefing,
        tell: TellAgentEvent,
        *,
        conversation_id: str,
        input_format: str,
        output_format: str,
        waits: bool,
    ) -> None:
        self.agent_id = briefing.agent_id
        self.briefing = briefing
        self.handler = Handler(tell)
        self.id = conversation_id
        self.hears = AudioFormat.parse(input_format)
        self.speaks = AudioFormat.parse(output_format)
        self.waits = waits
        self.heard: list[bytes] = []
        self.not_sent_bytes = 0
        self.results: list[tuple[str, str, bool]] = []
        self.told: list[tuple[str, str]] = []
        self.end: CloseKind | None = None
        self.dead_seconds = 0.0
        self.before_close: Callable[[], Awaitable[object]] | None = None

    # --- Conversation

    def hear(self, data: bytes) -> None:
        if self.end is None:
            self.heard.append(data)

    @property
    def is_open(self) -> bool:
        return self.end is None

    def still_here(self) -> None:
        self.told.append(("activity", ""))

    def tell(self, text: str, *, about: str | None = None) -> None:
        if self.end is None:
            self.told.append(("context", text))

    def ask(self, text: str, *, keys: bool = False) -> None:
        if self.end is None:
            self.told.append(("dtmf" if keys else "text", text))

    def answer_tool(self, tool_call_id: str, text: str, *, is_error: bool = False) -> None:
        if self.end is None:
            self.results.append((tool_call_id, text, is_error))

    async def close(self) -> None:
        await asyncio.sleep(0)
        if self.before_close is not None:
            await self.before_close()
        self.closes(CloseKind.LOCAL)

    # --- what it does

    def says(self, ms: int, *, event_id: int = 1, level: int = 8000, final: bool = False) -> None:
        """Sound of this length without a silent sample, all at once, as agents send it."""
        rate_hz = self.speaks.rate_hz
        samples = [level, -level, level] * (rate_hz * ms // 3000 + 1)
        pcm = np.array(samples[: rate_hz * ms // 1000], "<i2").tobytes()
        self.handler.audio(event_id, pcm, final)

    def closes(self, kind: CloseKind = CloseKind.AGENT_ENDED, code: int = 1000) -> None:
        """Its socket closes; the second time nothing happens."""
        if self.end is None:
            self.end = kind
            close = AgentClose(code, "", kind, retryable=kind in RETRYABLE)
            self.handler.tell(close.told(silent_seconds=self.dead_seconds))
            self.handler.tell = lambda event: None


class FakeAgents:
    """The client's stand-in.

    Attributes:
        conversations: All that came about.
        dialled: The agents that were asked for.
        ready: Set it, and `connect` returns; set from the start.
        before: What happens when an agent is dialled; what it raises, `connect` raises.
        conversation_id: What they call their conversations; None: by the agent's name.
        names: How the ids begin that are told before a conversation; empty: they are not told.
        greets_always: They let nobody choose their first message.
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
        self.names = ""
        self.greets_always = False

    def _conversations_of(self, agent_id: str) -> int:
        return sum(agent.agent_id == agent_id for agent in self.conversations)

    async def connect(
        self,
        briefing: Briefing,
        tell: TellAgentEvent,
        named: Callable[[str], None] = lambda conversation_id: None,
    ) -> FakeAgent:
        self.dialled.append(briefing.agent_id)
        try:
            await asyncio.sleep(0)
            if self.names:
                named(f"{self.names}_{len(self.dialled)}")
            if self.before is not None and (waiting := self.before()) is not None:
                await waiting
            await self.ready.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        agent_id, resumed = briefing.agent_id, briefing.resumed
        agent = FakeAgent(
            briefing,
            tell,
            conversation_id=self.conversation_id
            or f"conv_of_{agent_id}" + "_again" * self._conversations_of(agent_id),
            input_format=self.input_format,
            output_format=self.output_format,
            waits=(resumed is not None and not resumed.first_message and not self.greets_always),
        )
        self.conversations.append(agent)
        return agent

    def formats_of(self, agent_id: str) -> AgentFormats:
        return AgentFormats(
            AudioFormat.parse(self.input_format), AudioFormat.parse(self.output_format)
        )

    def problems(self) -> list[str]:
        return []

    async def watch(self) -> None:
        await asyncio.get_running_loop().create_future()
