from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from multidict import CIMultiDictProxy

from lab.web import serving

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived."""

    method: str
    path_qs: str
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass(slots=True)
class FakeService:
    """Somebody's HTTP service: answers as it is told and keeps what it was asked."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    answer: Handler | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def answers(self, text: str, status: int = 200, content_type: str = "application/json") -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(text=text, status=status, content_type=content_type)

        self.answer = answer

    def answers_bytes(self, body: bytes, headers: dict[str, str]) -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=body, headers=headers)

        self.answer = answer

    def never_answers(self) -> None:
        """Until the test is over."""

        async def answer(request: web.Request) -> web.Response:
            await self.over.wait()
            return web.Response()

        self.answer = answer

    def hangs_up(self) -> None:
        async def answer(request: web.Request) -> web.Response:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        self.answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(
            Seen(request.method, request.raw_path, request.headers, await request.read())
        )
        self.asked.set()
        assert self.answer is not None
        return await self.answer(request)


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    fake = FakeService()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    async with serving(app) as fake.url:
        yield fake
        fake.over.set()
