"""Passes a request on to the worker that it concerns, or to another machine."""

from __future__ import annotations

import abc
import asyncio
import os
import socket
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import aiohttp
import structlog
from aiohttp import hdrs, web
from yarl import URL

from ari_app.control.http.audit import PASSED_ON
from ari_app.control.http.keys import HERE
from ari_app.control.http.middleware import (
    KEY_NAME,
    REQUEST_ID,
    REQUEST_ID_HEADER,
    address_of,
)
from ari_app.control.http.problems import Problem
from ari_app.control.http.requests import MOST_WAIT_SECONDS
from ari_app.control.http.worker import ADDRESS_HEADER, KEY_HEADER, MOST_HEAD
from ari_app.control.workers.folder import Folder
from ari_app.control.workers.roster import Worker

log = structlog.get_logger(__name__)

_CONNECT_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = MOST_WAIT_SECONDS + 60.0
"""Longer than any request waits: for a place and then a pre-call service, or the end of a call."""
_PIECE: Final = 1 << 16
MACHINE_HEADER: Final = "X-Ari-App-Machine"
"""What one machine shows another, so that it is believed; taken out of what others send."""
_FROM_US: Final = {KEY_HEADER: HERE}
_OF_A_CONNECTION: Final = frozenset(
    name.lower()
    for name in (
        hdrs.CONNECTION,
        hdrs.KEEP_ALIVE,
        hdrs.PROXY_AUTHENTICATE,
        hdrs.PROXY_AUTHORIZATION,
        hdrs.TE,
        hdrs.TRAILER,
        hdrs.TRANSFER_ENCODING,
        hdrs.UPGRADE,
        hdrs.CONTENT_LENGTH,
        hdrs.EXPECT,
        KEY_HEADER,
        MACHINE_HEADER,
        ADDRESS_HEADER,
        REQUEST_ID_HEADER,
    )
)
"""What does not go from one connection to the next (RFC 9110, 7.6.1), and what is ours."""


class WorkerAway(Problem):
    """The worker, or machine, that a request concerns cannot be reached just now."""

    def __init__(self) -> None:
        super().__init__("worker_away")


To = TypeVar("To")


class Relay(abc.ABC, Generic[To]):
    """Passes requests on to `Workers`, or to other machines (`ari_app.control.http.machines`).

    `To` is a worker or a machine.
    """

    @abc.abstractmethod
    async def close(self) -> None:
        """Close all connections."""

    @abc.abstractmethod
    def _session(self, to: To) -> aiohttp.ClientSession:
        """Return the HTTP session for it."""

    @abc.abstractmethod
    def _url(self, to: To, path: str) -> URL:
        """Return the URL of a path there."""

    @abc.abstractmethod
    def _give(self, request: web.Request, to: To, descriptor: int) -> None:
        """Hand over the client's connection, with the request's head.

        Args:
            request: The request.
            to: Who takes the connection.
            descriptor: A duplicate of the connection's descriptor, which this closes.

        Raises:
            WorkerAway: It cannot be reached.
            Problem: `bad_request`: the head is too long to be handed over.
        """

    def pass_on(self, request: web.Request, to: To) -> web.Response:
        """Hand over the client's connection for good.

        Returns:
            A response for aiohttp, which cannot be sent any more.

        Raises:
            WorkerAway: It cannot be reached.
            Problem: `bad_request`: the head is too long to be handed over.
        """
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        self._give(request, to, os.dup(transport.get_extra_info("socket").fileno()))
        request[PASSED_ON] = True
        transport.abort()
        return web.Response(status=101)

    async def get(self, to: To, path: str, seconds: float) -> tuple[int, bytes]:
        """Ask a worker for something of our own.

        Returns:
            The status and the body.

        Raises:
            WorkerAway: It does not answer in time.
        """
        try:
            async with asyncio.timeout(seconds), self.stream(to, path) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise WorkerAway from None

    def stream(self, to: To, path: str) -> aiohttp.client._RequestContextManager:
        """Ask a worker for a stream."""
        return self._session(to).get(
            # A redirect would take the secret of all machines elsewhere.
            self._url(to, path),
            headers=_FROM_US,
            allow_redirects=False,
        )

    async def ask(
        self, request: web.Request, to: To, body: bytes, *, without: str = ""
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Let a worker answer a request, and return the answer.

        Args:
            request: What the client has sent.
            to: Who is asked.
            body: Its body.
            without: A header that is not for them; empty: all are.

        Raises:
            WorkerAway: It is not there.
        """
        async with self._asked(request, to, body, without) as response:
            return response.status, _headers(response), await response.read()

    async def would_give(self, request: web.Request, to: To, seconds: float) -> bool:
        """Return whether a worker has what a request asks for; nothing of it is sent.

        Raises:
            WorkerAway: It does not answer in time.
        """
        try:
            async with asyncio.timeout(seconds):
                async with self._asked(request, to, b"", method=hdrs.METH_HEAD) as response:
                    return response.ok
        except TimeoutError:
            raise WorkerAway from None

    async def answer(
        self, request: web.Request, to: To, body: bytes | aiohttp.StreamReader
    ) -> web.StreamResponse:
        """Let a worker answer a request, and send on what it answers as it comes.

        Raises:
            WorkerAway: It is not there.
        """
        async with self._asked(request, to, body) as response:
            length = response.content_length
            # The length that a HEAD is answered with is that of a body which does not come.
            is_head = request.method == hdrs.METH_HEAD
            if length is not None and length <= _PIECE and not is_head:
                answered = web.Response(status=response.status, body=await response.read())
                _copy(response, answered)
                return answered
            passed = web.StreamResponse(status=response.status)
            _copy(response, passed)
            if length is not None:
                passed.content_length = length
            await passed.prepare(request)
            if not is_head:
                try:
                    async for piece in response.content.iter_chunked(_PIECE):
                        await passed.write(piece)
                except aiohttp.ClientError:
                    # What has been sent cannot be taken back; its end must not look like one.
                    if request.transport is not None:
                        request.transport.abort()
                    raise ConnectionResetError("the worker has gone") from None
            await passed.write_eof()
            return passed

    def _asked(
        self,
        request: web.Request,
        to: To,
        body: bytes | aiohttp.StreamReader,
        without: str = "",
        method: str = "",
    ) -> _Asked:
        return _Asked(
            request,
            self._session(to).request(
                method or request.method,
                self._url(to, request.raw_path),
                headers=_to_worker(request, without),
                data=body or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=_CONNECT_SECONDS, sock_read=_ANSWER_SECONDS
                ),
            ),
        )


@dataclass(frozen=True, slots=True)
class There(Generic[To]):
    """Where to pass a request on to.

    Attributes:
        to: The worker, or the machine.
        relay: Passes requests on to it.
    """

    to: To
    relay: Relay[To]


class Workers(Relay[Worker]):
    """Passes requests on to the workers of this machine.

    Args:
        folder: The folder with their sockets.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._sessions: dict[int, aiohttp.ClientSession] = {}
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._door.setblocking(False)

    async def close(self) -> None:
        """Close all connections."""
        self._door.close()
        for session in self._sessions.values():
            await session.close()

    def _session(self, to: Worker) -> aiohttp.ClientSession:
        session = self._sessions.get(to.number)
        if session is None:
            path = str(self._folder.http(to.number))
            session = self._sessions[to.number] = new_session(aiohttp.UnixConnector(path, limit=0))
        return session

    def _url(self, to: Worker, path: str) -> URL:
        return URL(f"http://worker{path}", encoded=True)

    def _give(self, request: web.Request, to: Worker, descriptor: int) -> None:
        head = head_of(request)
        try:
            if len(head) > MOST_HEAD:
                raise Problem("bad_request", "The request's head is too long to be passed on.")
            # socket.send_fds takes an address, and leaves it out.
            self._door.sendmsg(
                [head],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))],
                0,
                str(self._folder.passed(to.number)),
            )
        except OSError as error:
            log.warning("connection_not_passed", worker=to.number, error=error.strerror)
            raise WorkerAway from None
        finally:
            os.close(descriptor)


def new_session(
    connector: aiohttp.BaseConnector, headers: dict[str, str] | None = None
) -> aiohttp.ClientSession:
    """Make a session that changes nothing of requests and answers."""
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        auto_decompress=False,
        # Only the client's own headers are sent: it may not know gzip.
        skip_auto_headers=(hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class _Asked:
    """A request to a worker, whose failures become `WorkerAway`."""

    def __init__(
        self, request: web.Request, context: aiohttp.client._RequestContextManager
    ) -> None:
        self._request = request
        self._context = context

    async def __aenter__(self) -> aiohttp.ClientResponse:
        # From now on the worker audits the request, also if the client hangs up meanwhile.
        self._request[PASSED_ON] = True
        try:
            return await self._context.__aenter__()
        except (aiohttp.ClientError, OSError, TimeoutError):
            del self._request[PASSED_ON]
            raise WorkerAway from None

    async def __aexit__(self, *exc_info: object) -> None:
        await self._context.__aexit__(None, None, None)


def _to_worker(request: web.Request, without: str) -> list[tuple[str, str]]:
    listed = {name.strip().lower() for name in request.headers.get(hdrs.CONNECTION, "").split(",")}
    left_out = _OF_A_CONNECTION | listed | {without.lower()}
    headers = [
        (name, value) for name, value in request.headers.items() if name.lower() not in left_out
    ]
    return [*headers, *_ours(request)]


def _ours(request: web.Request) -> list[tuple[str, str]]:
    found = [(REQUEST_ID_HEADER, request[REQUEST_ID]), (ADDRESS_HEADER, address_of(request))]
    if KEY_NAME in request:
        found.append((KEY_HEADER, request[KEY_NAME]))
    return found


def head_of(request: web.Request, more: Sequence[tuple[str, str]] = ()) -> bytes:
    """Return a request's head as it came, but with our own headers in place of the client's."""
    ours = {
        name.lower().encode()
        for name in (KEY_HEADER, ADDRESS_HEADER, MACHINE_HEADER, REQUEST_ID_HEADER)
    }
    lines = [f"{request.method} {request.raw_path} HTTP/1.1".encode()]
    lines += [
        name + b": " + value for name, value in request.raw_headers if name.lower() not in ours
    ]
    lines += [f"{name}: {value}".encode() for name, value in (*_ours(request), *more)]
    return b"\r\n".join([*lines, b"", b""])


def _headers(response: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, value in response.headers.items()
        if name.lower() not in _OF_A_CONNECTION
    ]


def _copy(response: aiohttp.ClientResponse, answer: web.StreamResponse) -> None:
    for name, value in _headers(response):
        answer.headers[name] = value
