"""Serves the interface: who may connect, how many at once, and how long they may take.

aiohttp bounds what a request may be; this bounds what a connection may be. It is accepted a few at
a time, counted by address, has to send a request's head in time, and has to read its answers.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, TypeVar

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from ari_app.control.http.problems import MEDIA_TYPE, Problem
from ari_app.errors import forget_frames
from linekit.listener import Census, ConnectionLimits, Listener, counted_as, turn_away

log = structlog.get_logger(__name__)

OnRefused = Callable[[str], None]
"""Called with a code: `too_many_connections`, `rate_limited`, `head_too_late` or `bad_request`."""

_HEAD_SECONDS = 10.0
_IDLE_SECONDS = 75.0
"""Between requests; longer than the 60 s for which nginx keeps one."""
_UNREAD_SECONDS = 30.0
_LINGER_SECONDS = 2.0
_SHUTDOWN_SECONDS = 2.0
_BATCH: Final = 4
"""Connections that are accepted in one turn of the loop: each may be a request at once, and that
is half a millisecond of work."""
_NOBODY: Final = "-"


@web.middleware
async def mark_heads(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection when a request's head has arrived; the first of all middlewares."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        return await handler(request)
    connection.head_arrived()
    try:
        return await handler(request)
    finally:
        connection.request_ended()


Answer = TypeVar("Answer")


class ClientGone(ConnectionError):
    """The client has hung up before it was answered."""


def opens_connection(request: web.Request) -> bool:
    """Return whether a request is the first of its connection."""
    connection = request.protocol
    return isinstance(connection, Connection) and connection.requests == 1


async def while_there(request: web.Request, work: asyncio.Future[Answer]) -> Answer:
    """Wait for an answer, and cancel the work on it when the client hangs up before.

    Raises:
        ClientGone: The client has hung up.
    """
    connection = request.protocol
    if not isinstance(connection, Connection):
        return await work
    connection.on_gone = work.cancel
    try:
        return await work
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        raise ClientGone from None
    finally:
        connection.on_gone = None


class Connection(web.RequestHandler):
    """One connection of a client's, with a deadline for each head and for each answer's reading.

    Attributes:
        requests: How many have come.
        on_gone: Called when the connection is lost.
    """

    def __init__(
        self,
        manager: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[Connection], None],
        on_refused: OnRefused,
    ) -> None:
        super().__init__(
            manager,
            loop=loop,
            # None is what switches it off, though its type does not say so.
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=_LINGER_SECONDS,
            # No body is taken compressed, and what cannot be unpacked would end in a traceback.
            auto_decompress=False,
        )
        self._on_lost = on_lost
        self._on_refused = on_refused
        self._in_request = False
        self.requests = 0
        self.on_gone: Callable[[], object] | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def head_arrived(self) -> None:
        """Note that a request begins."""
        self._in_request = True
        self.requests += 1
        self._stop_head_timer()

    def request_ended(self) -> None:
        """Note that the request is over but for the sending of its answer."""
        self._in_request = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        if not self._in_request:
            self._start_head_timer()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        self._stop_unread_timer()
        super().connection_lost(exc)
        # A WebSocket of this connection, which knows its request, and that this connection.
        self._data_received_cb = None
        self._on_lost(self)
        if self.on_gone is not None:
            self.on_gone()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_timer = self._loop.call_later(_UNREAD_SECONDS, self._give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread_timer()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, as every failure is answered; its words are not repeated."""
        if exc is not None:
            # It refers to itself through its frames, and to what was received: without this a
            # flood of garbage stays in memory until the next collection of it all.
            forget_frames(exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        if status >= 500:
            if not isinstance(exc, ClientGone):
                log.error("http_request_failed", error=repr(exc))
            return Problem("internal", closes=True).response(_NOBODY)
        self._on_refused("bad_request")
        return Problem("bad_request", closes=True).response(_NOBODY)

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self._loop.call_later(_HEAD_SECONDS, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _head_is_late(self) -> None:
        if self.transport is not None:
            self._on_refused("head_too_late")
            self.transport.write(_last_words("head_too_late"))
            self.force_close()

    def _give_up(self) -> None:
        if self.transport is not None:
            log.info("http_client_reads_nothing")
            self.transport.abort()


class HttpServer:
    """Serves an application on one address.

    Args:
        app: What is served.
        limits: How many connections, in all and for each address.
        take: Given what an address counts as: lets it connect, 0, or says how many seconds it has
            to wait. A new connection counts as a request: most of its cost is the same.
        on_refused: Told of what is refused before it is a request.
    """

    def __init__(
        self,
        app: web.Application,
        *,
        limits: ConnectionLimits,
        take: Callable[[str], float],
        on_refused: OnRefused,
    ) -> None:
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        self._take = take
        self._on_refused = on_refused
        self._census: Census[Connection] = Census(limits, identify_seconds=0)
        self._listener = Listener(self._accepted, exhausted=self._exhausted, batch=_BATCH)
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._census)

    async def start(self, host: str, port: int, *, shared: bool = False) -> tuple[str, int]:
        """Listen, and return the address.

        Args:
            host, port: The address.
            shared: Another process of ours may listen there at the same time.

        Raises:
            OSError: It cannot be had.
        """
        if self._runner.server is None:
            await self._runner.setup()
        return await self._listener.start(host, port, shared=shared)

    async def serve(self, sockets: Sequence[socket.socket]) -> tuple[str, int]:
        """Accept from sockets that listen already, and return the address."""
        await self._runner.setup()
        return self._listener.serve(sockets)

    def stop_listening(self) -> None:
        """Accept no more. May be called twice."""
        self._listener.close()

    async def close(self) -> None:
        """Accept no more, let requests end for two seconds, and close. May be called twice."""
        self._listener.close()
        if self._opening:
            await asyncio.wait(self._opening)
        await self._runner.cleanup()

    def _accepted(self, sock: socket.socket, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        if (wait := self._take(counted_as(host))) > 0:
            self._turn_away(sock, "rate_limited", math.ceil(wait))
            return
        assert self._runner.server is not None
        connection = Connection(
            self._runner.server,
            loop=loop,
            on_lost=self._census.leave,
            on_refused=self._on_refused,
        )
        if self._census.arrive(connection, host, now=loop.time()).refused is not None:
            self._turn_away(sock, "too_many_connections")
            return
        # Whoever has connected is somebody here.
        self._census.identify(connection)
        task = asyncio.create_task(self._open(connection, sock), name="http-connection")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, connection: Connection, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
        except OSError:
            sock.close()
            self._census.leave(connection)

    def _turn_away(self, sock: socket.socket, code: str, retry_seconds: int | None = None) -> None:
        self._on_refused(code)
        turn_away(sock, _last_words(code, retry_seconds))

    def _exhausted(self, error: OSError) -> None:
        log.error("http_accepts_no_connections", error=error.strerror)


@lru_cache(maxsize=256)
def _last_words(code: str, retry_seconds: int | None = None) -> bytes:
    """Return an answer for a connection that is closed after it."""
    problem = Problem(code, retry_after=retry_seconds)
    body = problem.body(_NOBODY)
    headers = {
        **problem.headers,
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "Cache-Control": "no-store",
    }
    lines = [f"HTTP/1.1 {problem.status.value} {problem.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
