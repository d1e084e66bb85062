"""Being an application of Asterisk's for the length of a check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp

from ari_app.addresses import is_unspecified
from ari_app.ari import AriTimeout, Client, Event, EventSocket, SocketState
from ari_app.settings import Settings, split_host_port

CONNECT_SECONDS = 4.0
_HEALTH_SECONDS = 2.0


@dataclass(slots=True)
class Listener:
    """What was heard on the event socket.

    Attributes:
        clock_ahead_seconds: How far Asterisk's clock is ahead of ours, from the first event that
            had a time; None before.
    """

    clock_ahead_seconds: float | None = None

    def heard(self, event: Event) -> None:
        """Take note of an event."""
        if self.clock_ahead_seconds is None and event.timestamp is not None:
            ahead = event.timestamp - datetime.now(UTC)
            self.clock_ahead_seconds = ahead.total_seconds()


@asynccontextmanager
async def listening(ari: Client) -> AsyncIterator[Listener]:
    """Register the client's application, which Asterisk makes channels for.

    Raises:
        AriTimeout: No event socket could be opened.
    """
    listener = Listener()
    connected = asyncio.Event()

    def changed(state: SocketState) -> None:
        if state is SocketState.CONNECTED:
            connected.set()

    socket = EventSocket(ari, listener.heard, changed)
    task = asyncio.create_task(socket.run())
    try:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connected.wait()
        except TimeoutError:
            raise AriTimeout("no event socket could be opened") from None
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def is_serving(settings: Settings) -> bool:
    """Whether ``ari-app serve`` runs here with these settings: its own HTTP says so."""
    host, port = split_host_port(settings.api_bind)
    if port == 0:
        return False
    if is_unspecified(host):
        host = "::1" if ":" in host else "127.0.0.1"
    named = f"[{host}]" if ":" in host else host
    timeout = aiohttp.ClientTimeout(total=_HEALTH_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{named}:{port}/health/live") as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
