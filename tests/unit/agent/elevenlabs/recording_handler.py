"""A handler that writes down every call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ari_app.agent.elevenlabs.closing import AgentClose
from ari_app.agent.elevenlabs.server_messages import ServerMessage, Unknown


class RecordingHandler:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failing = False
        self._news = asyncio.Event()

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    @property
    def end(self) -> AgentClose:
        (close,) = (call[1] for call in self.calls if call[0] == "closed")
        assert isinstance(close, AgentClose)
        return close

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def until_called(self, name: str, times: int = 1) -> None:
        await self.until(lambda: self.names.count(name) >= times)

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        self._news.set()
        if self.failing:
            raise RuntimeError("the handler fails")

    def audio(self, event_id: int, data: bytes, is_final: bool) -> None:
        self._note("audio", event_id, data, is_final)

    def interruption(self, event_id: int) -> None:
        self._note("interruption", event_id)

    def user_transcript(self, text: str, event_id: int | None) -> None:
        self._note("user_transcript", text, event_id)

    def agent_response(self, text: str, event_id: int | None) -> None:
        self._note("agent_response", text, event_id)

    def agent_response_correction(
        self, original: str, corrected: str, event_id: int | None
    ) -> None:
        self._note("agent_response_correction", original, corrected, event_id)

    def response_complete(self, event_id: int | None) -> None:
        self._note("response_complete", event_id)

    def tool_call(
        self, name: str, call_id: str, parameters: dict[str, Any], expects_response: bool
    ) -> None:
        self._note("tool_call", name, call_id, parameters, expects_response)

    def tool_response(self, name: str, call_id: str, status: str, is_error: bool) -> None:
        self._note("tool_response", name, call_id, status, is_error)

    def other(self, message: ServerMessage | Unknown) -> None:
        self._note("other", message)

    def closed(self, reason: AgentClose) -> None:
        self._note("closed", reason)
