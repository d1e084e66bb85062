"""ARI's event socket: keeps one open, hands out its events, and knows when to give up.

Events that occur while the socket is down are lost (res/ari/ari_websockets.c); channels stay in
Stasis and in their bridges meanwhile. So whoever uses this compares what it knows with
`GET /channels` and `GET /bridges` at every `connected`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum

import aiohttp
import structlog

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import (
    AriError,
    AriMalformed,
    AriTimeout,
    AriUnauthorized,
    AriUnavailable,
    error_for_status,
    untrusted,
)
from ari_app.line.asterisk.ari.events import (
    EVENTS,
    ApplicationReplaced,
    AriEvent,
    UnknownEvent,
    parse_event,
)
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.line.asterisk.ari.rest import Backoff

log = structlog.get_logger(__name__)

EVENT_SOCKET = Operation[None]("GET", "/events", parameters=("app",))


class SocketState(StrEnum):
    """The states of the event socket."""

    DISCONNECTED = "disconnected"
    """There is none; another attempt follows."""
    CONNECTED = "connected"
    """Events arrive. What came before may have been missed."""
    REPLACED = "replaced"
    """Another client has our application. Final: to take it back would start a fight."""


_MAX_UNKNOWN_TYPES = 64
_TURN_SECONDS = 0.002
"""So long events are taken before it is somebody else's turn."""


class EventSocket:
    """Receives the events of the client's application for as long as `run` runs.

    Args:
        client: Where, who, and which application; its `timeout` limits the handshake.
        on_event: Called for each event, on the loop, in order. Must not block: Asterisk closes a
            socket whose reader is slower than `websocket_write_timeout` (100 ms).
        on_state: Called at each change of state.
        backoff: The delays between attempts.
        ping_seconds: After so long without a word from Asterisk it is pinged; when half of that
            passes without a pong, the connection counts as dead.
        max_message_bytes: A longer event ends the connection.
        sleep: For tests, like the next two.
        clock: Seconds that never go back.
        chance: A random number in [0, 1).

    An exception in a callback is logged and counted, and changes nothing else.
    """

    def __init__(
        self,
        client: Client,
        on_event: Callable[[AriEvent], None],
        on_state: Callable[[SocketState], None],
        *,
        backoff: Backoff | None = None,
        ping_seconds: float = 5.0,
        max_message_bytes: int = 1 << 20,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.state = SocketState.DISCONNECTED
        self._unknown_types: set[str] = set()
        self._client = client
        self._on_event = on_event
        self._on_state = on_state
        self._backoff = backoff or Backoff()
        self._ping_seconds = ping_seconds
        self._max_message_bytes = max_message_bytes
        self._sleep = sleep
        self._clock = clock
        self._chance = chance
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether events can arrive at present."""
        return self.state is SocketState.CONNECTED

    async def run(self) -> None:
        """Connect, and connect again whenever the socket is lost.

        Returns when `close` is called or the application was replaced.

        Raises:
            AriUnauthorized: Asterisk does not accept the user or the password, or the user may
                only read; trying again would not help.
            RuntimeError: It runs already.
        """
        if self._worker is not None:
            raise RuntimeError("the event socket runs already")
        if self._closed:
            return
        worker = self._worker = asyncio.create_task(self._keep_connected(), name="ari-events")
        try:
            await asyncio.wait([worker])
        finally:
            # Reached with the worker unfinished only when this task is cancelled.
            await _cancel(worker)
            self._worker = None
        if not worker.cancelled():
            worker.result()

    async def close(self) -> None:
        """Close the socket for good and let `run` return. May be called twice."""
        self._closed = True
        if self._worker is not None:
            await _cancel(self._worker)

    async def _keep_connected(self) -> None:
        failures = 0
        self._client.link.set(False)
        while not self._client.rest.closed:
            opened = self._clock()
            try:
                if await self._receive():
                    return
                if self._clock() - opened >= self._backoff.most_seconds:
                    failures = 0
            except AriUnauthorized:
                raise
            except AriError as error:
                # An outage is told once; the rest of it is for whoever looks closely.
                say = log.debug if failures else log.warning
                say("ari_events_unavailable", code=error.code, error=str(error))
            delay = self._backoff.delay(failures, self._chance())
            failures += 1
            await self._sleep(delay)

    async def _receive(self) -> bool:
        """Connect and take events until the socket closes. Returns whether we were replaced."""
        async with self._connect() as socket:
            await self._hear_only_known()
            log.info("ari_events_connected", app=self._client.app)
            self._enter(SocketState.CONNECTED)
            left_as = SocketState.DISCONNECTED
            busy = 0.0
            try:
                async for message in socket:
                    began = self._clock()
                    if message.type is aiohttp.WSMsgType.TEXT and self._take(message.data):
                        log.error("ari_application_replaced", app=self._client.app)
                        left_as = SocketState.REPLACED
                        break
                    busy += self._clock() - began
                    if busy > _TURN_SECONDS:
                        # Where many have come, reading does not wait; the calls' turn.
                        busy = 0.0
                        await asyncio.sleep(0)
                else:
                    log.warning(
                        "ari_events_lost",
                        close_code=socket.close_code,
                        error=str(socket.exception() or ""),
                    )
            finally:
                self._enter(left_as)
            return left_as is SocketState.REPLACED

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse[bool]]:
        rest = self._client.rest
        method, path = EVENT_SOCKET.method, EVENT_SOCKET.path
        try:
            async with asyncio.timeout(self._client.timeout):
                socket = await rest.session.ws_connect(
                    rest.url(path),
                    params={"app": self._client.app},
                    heartbeat=self._ping_seconds,
                    max_msg_size=self._max_message_bytes,
                    # A peer that is gone does not answer a close either.
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                    decode_text=False,
                )
        except TimeoutError:
            raise AriTimeout("no handshake in time", method=method, path=path) from None
        except aiohttp.WSServerHandshakeError as error:
            raise error_for_status(error.status, error.message, method=method, path=path) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise untrusted(error, method=method, path=path) from None
        except aiohttp.ClientError as error:
            reason = str(error) or type(error).__name__
            raise AriUnavailable(reason, method=method, path=path) from error
        try:
            yield socket
        finally:
            await socket.close()

    async def _hear_only_known(self) -> None:
        """Have Asterisk send our application no events that nobody here understands.

        Of a plain call they are more than half: it tells of each of some thirty variables. A
        failure is logged and changes nothing else, unless it is a user who may only read: nothing
        could be done for any caller.

        Raises:
            AriUnauthorized: The user may only read.
        """
        try:
            await self._client.applications.hear_only(EVENTS)
        except AriUnauthorized:
            raise
        except AriError as error:
            log.info("ari_events_not_filtered", code=error.code, error=str(error))

    def _take(self, text: str | bytes) -> bool:
        """Hand one message on. Returns whether it says that the application is another's now."""
        try:
            event = parse_event(text)
        except AriMalformed as error:
            log.warning("ari_event_malformed", error=str(error))
            return False
        if isinstance(event, UnknownEvent):
            self._tell_of_unknown(event.type)
        try:
            self._on_event(event)
        except Exception:
            log.exception("ari_event_handler_failed", type=event.type)
        return isinstance(event, ApplicationReplaced)

    def _tell_of_unknown(self, kind: str) -> None:
        if kind not in self._unknown_types and len(self._unknown_types) < _MAX_UNKNOWN_TYPES:
            self._unknown_types.add(kind)
            log.debug("ari_event_unknown", type=kind)

    def _enter(self, state: SocketState) -> None:
        self.state = state
        self._client.link.set(state is SocketState.CONNECTED)
        try:
            self._on_state(state)
        except Exception:
            log.exception("ari_state_handler_failed", state=state.value)


async def _cancel(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
