"""Takes down what a conversation tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ari_app.agent.interface import AgentEvent, Closed


class Told:
    """What has been told, in order: give it to `connect` as `tell`."""

    def __init__(self) -> None:
        self.events: list[AgentEvent] = []
        self.failing = False
        self._news = asyncio.Event()

    def __call__(self, event: AgentEvent) -> None:
        self.events.append(event)
        self._news.set()
        if self.failing:
            raise RuntimeError("whoever is told fails")

    @property
    def kinds(self) -> list[type[AgentEvent]]:
        return [type(event) for event in self.events]

    @property
    def end(self) -> Closed:
        (close,) = (event for event in self.events if isinstance(event, Closed))
        return close

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def until_told(self, kind: type[AgentEvent], times: int = 1) -> None:
        await self.until(lambda: self.kinds.count(kind) >= times)
