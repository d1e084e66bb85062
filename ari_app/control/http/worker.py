"""A worker's HTTP interface, which only the front can reach: it has checked who asks.

Requests come over a Unix socket. Streams and WebSockets are passed on as the connections that they
are: what is said on them does not go through the front, which may even die meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from ari_app.control.http.access import REQUEST_KEY
from ari_app.control.http.application import audit_changes, new_app
from ari_app.control.http.audit import AuditLog
from ari_app.control.http.handlers import (
    Handlers,
    ServiceView,
    serve_calls,
)
from ari_app.control.http.keys import ApiKey, Scope
from ari_app.control.http.middleware import (
    ADDRESS,
    FOREIGN_PAGE,
    KEY_NAME,
    REQUEST_ID,
    REQUEST_ID_HEADER,
    path_served,
)
from ari_app.control.http.problems import Problem
from ari_app.control.http.server import Connection

log = structlog.get_logger(__name__)

KEY_HEADER: Final = "X-Ari-App-Key"
"""Whose key it was; the front takes out what others write there."""
ADDRESS_HEADER: Final = "X-Ari-App-Address"
"""Where it came from."""
MOST_HEAD: Final = 1 << 17
"""Bytes of a head that is passed on. What is beyond it would be lost, and whatever the client says
next would stand in its place."""
_SHUTDOWN_SECONDS: Final = 2.0
_PASSED_AT_ONCE: Final = 16


def believe(request: web.Request, name: str | None) -> None:
    """Take over who asks, from a process of ours that has checked the client's key.

    Args:
        request: The request that it passes on.
        name: The name of the key; None: it checked none.
    """
    request[FOREIGN_PAGE] = False
    request[ADDRESS] = request.headers.get(ADDRESS_HEADER, "")
    if name is not None:
        request[KEY_NAME], request[REQUEST_KEY] = name, ApiKey(name, Scope.ADMIN, b"")


def trusted(checked_paths: frozenset[str]) -> Middleware:
    """Return a middleware that takes over from the front who asks.

    Args:
        checked_paths: Paths whose handlers check by themselves who asks; on every other path the
            front has to name the key.
    """

    @web.middleware
    async def who_asks(request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.protocol
        if isinstance(connection, PassedConnection) and connection.requests > 1:
            # Behind its first request stands somebody whom the front has not seen.
            raise ConnectionResetError("one request a connection")
        request[REQUEST_ID] = request.headers.get(REQUEST_ID_HEADER, "-")
        name = request.headers.get(KEY_HEADER)
        believe(request, name)
        if name is None and path_served(request) not in checked_paths:
            return Problem("unauthorized").response(request[REQUEST_ID])
        with structlog.contextvars.bound_contextvars(request=request[REQUEST_ID]):
            return await handler(request)

    return who_asks


async def _close_what_was_passed(request: web.Request, response: web.StreamResponse) -> None:
    if isinstance(request.protocol, PassedConnection) and response.status != 101:
        response.headers[hdrs.CONNECTION] = "close"
        response.force_close()


def build_worker_app(
    service: ServiceView,
    *,
    public_url: str | None,
    number_pattern: str | None,
    routes: Sequence[web.RouteDef],
    audit_file: AuditLog | None = None,
    hidden: Collection[str] = (),
) -> web.Application:
    """Build the aiohttp application of a worker.

    Args:
        service: What is shown and acted on.
        public_url: How others reach the interface.
        number_pattern: What a number to call must match as a whole.
        routes: What ways in serve here.
        audit_file: Where changes are written down; None: in the log alone.
        hidden: What must not be kept, as `RECORDS_HIDE` says.
    """
    app = new_app(
        trusted(frozenset(route.path for route in routes)), audit_changes(audit_file, hidden)
    )
    handlers = Handlers(service, keyed=True, public_url=public_url, number_pattern=number_pattern)
    watch = serve_calls(app, service, handlers, routes)
    app.on_response_prepare.append(_close_what_was_passed)
    app.router.add_get("/page/watch", watch.serve)
    return app


class PassedConnection(Connection):
    """A client's connection that the front has accepted, and whose first request it has read."""


class WorkerServer:
    """Serves an application to the front, and to the clients whom it passes on.

    Args:
        app: What is served.
    """

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        self._server: asyncio.Server | None = None
        self._door: socket.socket | None = None
        self._opening: set[asyncio.Task[None]] = set()

    async def start(self, requests: Path, connections: Path) -> None:
        """Listen.

        Args:
            requests: Where the front asks.
            connections: Where it passes connections on.
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        for path in (requests, connections):
            # Of the worker that was here before.
            path.unlink(missing_ok=True)
        self._server = await loop.create_unix_server(lambda: self._made(Connection), str(requests))
        self._door = door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        door.setblocking(False)
        door.bind(str(connections))
        loop.add_reader(door.fileno(), self._take_over, door)

    def stop_listening(self) -> None:
        """Accept no more. May be called twice."""
        server, self._server = self._server, None
        door, self._door = self._door, None
        if server is not None:
            server.close()
        if door is not None:
            asyncio.get_running_loop().remove_reader(door.fileno())
            door.close()

    async def close(self) -> None:
        """Accept no more, let requests end for two seconds, and close. May be called twice."""
        self.stop_listening()
        if self._opening:
            await asyncio.wait(self._opening)
        await self._runner.cleanup()

    def _made(self, kind: type[Connection]) -> Connection:
        assert self._runner.server is not None
        return kind(
            self._runner.server,
            loop=asyncio.get_running_loop(),
            on_lost=lambda connection: None,
            on_refused=lambda code: None,
        )

    def _take_over(self, door: socket.socket) -> None:
        for _ in range(_PASSED_AT_ONCE):
            try:
                head, descriptors, flags, _ = socket.recv_fds(door, MOST_HEAD, 1)
            except OSError:
                return
            for descriptor in descriptors:
                sock = socket.socket(fileno=descriptor)
                if flags & socket.MSG_TRUNC:
                    sock.close()
                    continue
                sock.setblocking(False)
                task = asyncio.create_task(self._open(sock, head), name="passed-connection")
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket, head: bytes) -> None:
        connection = self._made(PassedConnection)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
        except OSError:
            sock.close()
            return
        connection.data_received(head)
