"""The service's HTTP interface, as a dialer uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import orjson

_POLL_SECONDS = 0.25
Session = dict[str, Any]


class ApiError(Exception):
    """The service refused, or what it says is not what was expected."""


class ServiceApi:
    """Asks one service. The owner closes the HTTP session."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        """Ask for something. Raises ApiError with the service's own code."""
        async with self._session.post(f"{self._url}{path}", json=body) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            if response.status >= 400:
                raise ApiError(f"{path}: {response.status} {answer.get('code')}")
            return answer

    async def session(self, caller: str) -> Session | None:
        """The latest session of a caller."""
        async with self._session.get(f"{self._url}/sessions") as response:
            sessions: list[Session] = orjson.loads(await response.read()).get("sessions", [])
        return next((s for s in reversed(sessions) if s["caller_number"] == caller), None)

    async def wait_for(
        self, caller: str, condition: Callable[[Session], bool], seconds: float
    ) -> Session:
        """The session of a caller, once it is as wished. Raises ApiError after so long."""
        session = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    session = await self.session(caller)
                    if session is not None and condition(session):
                        return session
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            state = "not there" if session is None else f"{session['state']}, {session['result']}"
            raise ApiError(f"after {seconds:g} s the session is {state}") from None

    async def follow(self, session_id: str) -> str:
        """Read a session's events to their end; the type of the last one."""
        url, last = f"{self._url}/sessions/{session_id}/events", ""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
        async with self._session.get(
            url, headers={"Accept": "text/event-stream"}, timeout=timeout
        ) as stream:
            async for line in stream.content:
                if line.startswith(b"event: "):
                    last = line.removeprefix(b"event: ").decode().strip()
        return last
