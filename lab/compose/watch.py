"""Follows a call through the service's own HTTP interface: its list of calls, and its events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Self

import aiohttp

from lab.asterisk import LabError

_POLL_SECONDS = 0.2
_REQUEST_SECONDS = 5.0


class NoAnswer(LabError):
    """The service does not answer as it should: what it does with calls is not known."""

    default_code: ClassVar[str] = "no_answer"


class Watcher:
    """The service's HTTP interface, as far as somebody needs it who watches calls."""

    def __init__(self, api_url: str, api_key: str) -> None:
        self._url = api_url.rstrip("/")
        self._session = aiohttp.ClientSession(
            headers={"X-API-Key": api_key},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_REQUEST_SECONDS),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()

    async def session_ids(self, caller: str) -> set[str]:
        """The calls of this caller that are there now.

        Raises:
            NoAnswer: the service does not answer as it should.
        """
        try:
            async with (
                asyncio.timeout(_REQUEST_SECONDS),
                self._session.get(f"{self._url}/sessions", raise_for_status=True) as answer,
            ):
                listed = await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NoAnswer(f"The service at {self._url} does not answer: {error!r}.") from None
        return {
            session["session_id"]
            for session in listed["sessions"]
            if session["caller_number"] == caller
        }

    async def new_session(self, caller: str, known: set[str], timeout: float = 10.0) -> str:
        """Wait for a call of this caller's that is not `known`, and return its id.

        Raises:
            LabError: there is none within `timeout` seconds.
            NoAnswer: the service does not answer as it should.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    if new := await self.session_ids(caller) - known:
                        return min(new)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise LabError(f"The call has not reached the service within {timeout:g} s.") from None

    async def events(self, session_id: str) -> AsyncIterator[dict[str, Any]]:
        """Yield a call's events from the first to the last, as docs/http.md describes them.

        Raises:
            LabError: the stream cannot be had.
        """
        try:
            async with self._session.ws_connect(
                f"{self._url}/sessions/{session_id}/events"
            ) as socket:
                async for message in socket:
                    yield message.json()
        except aiohttp.ClientError as error:
            raise LabError(f"The call's events cannot be followed: {error!r}.") from None
