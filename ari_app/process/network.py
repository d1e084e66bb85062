"""Connections to others: whom to trust, why one failed, sessions, and names of hosts to addresses.

The loop's own look-ups share a few threads: two names whose servers do not answer would hold up
all others, the agent's among them. So whoever asks hosts that somebody else names (tools, a service
before the call) brings a resolver along, and only holds up itself.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from ari_app.errors import ConfigError, forget_frames

if TYPE_CHECKING:
    from aiohttp import web

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
"""What OpenSSL's versions say where the answer is no TLS."""


def why_unreachable(error: BaseException) -> str:
    """Say why nobody could be connected to, in a few words: an unknown name, a refusal, no way
    there. More of the address than its host is never repeated.

    Args:
        error: What connecting failed with; aiohttp wraps the system's in `os_error`.
    """
    error = getattr(error, "os_error", error)
    if isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    # The text of these two repeats the whole URL, whose path may be a secret.
    if isinstance(error, aiohttp.InvalidURL):
        return "its address cannot be used"
    if isinstance(error, aiohttp.ClientResponseError):
        known = isinstance(error, aiohttp.WSServerHandshakeError)
        return f"the answer is HTTP {error.status}" if known else "what answers speaks no HTTP"
    if isinstance(error, socket.gaierror):
        return "this name is not known here"
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
        return "what answers speaks no TLS; write http:// for https://, or another port"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails ({(error.reason or 'no reason given').replace('_', ' ').lower()})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        # Several addresses of one host were tried, and asyncio has put their errors into words.
        if error.errno is None:
            refused = os.strerror(errno.ECONNREFUSED)
            return refused.lower() if "refused" in str(error).lower() else str(error)
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _client_context(ca_file: str | Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    # While a server of TLS 1.2 shakes hands anew, what is to be written would wait for reading.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


@functools.cache
def system_trust() -> ssl.SSLContext:
    """Return the client's TLS context that trusts the system's certificates: one for all, for it
    takes 2 MB, and reading them some 30 ms."""
    return _client_context()


def trusting(ca_file: str | Path | None, setting: str) -> ssl.SSLContext:
    """Return a client's TLS context, with the system's certificates, or with those of a PEM file
    alone. It is not to be changed.

    Args:
        ca_file: The file; None for the system's.
        setting: What names the file, for the error.

    Raises:
        ConfigError: The file cannot be read, or holds no certificate.
    """
    if ca_file is None:
        return system_trust()
    try:
        return _client_context(ca_file)
    except ssl.SSLError:
        why = "holds no certificate in PEM form"
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    raise ConfigError(f"{setting} {ca_file} {why}.")


def why_untrusted(error: BaseException) -> str:
    """Say what is wrong with a server's certificate: its issuer, its time, or its name.

    Args:
        error: What the handshake failed with.
    """
    return error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)


_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class OwnThreadResolver(AbstractResolver):
    """Looks each name up in a thread, which nobody waits for when the answer comes too late.

    Args:
        max_lookups: One more at a time fails at once.
        seconds: A name that nobody has told in this time is not known; None waits without end.
    """

    def __init__(self, *, max_lookups: int = 8, seconds: float | None = None) -> None:
        self._max_lookups = max_lookups
        self._seconds = seconds
        self._under_way = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look up the addresses of a host.

        Raises:
            OSError: There is none, or too many names are being looked up.
        """
        if self._under_way >= self._max_lookups:
            raise OSError("too many names are being looked up")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def settle(infos: list[Any] | OSError) -> None:
            self._under_way -= 1
            if found.done():
                return
            if isinstance(infos, OSError):
                found.set_exception(infos)
            else:
                found.set_result(infos)

        def look_up() -> None:
            infos: list[Any] | OSError
            try:
                infos = socket.getaddrinfo(
                    host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG
                )
            except OSError as error:
                infos = error
            except UnicodeError:
                infos = OSError("not the name of a host")
            try:
                loop.call_soon_threadsafe(settle, infos)
            except RuntimeError:
                return  # The loop has ended, and nobody waits.

        self._under_way += 1
        threading.Thread(target=look_up, name="resolver", daemon=True).start()
        try:
            async with asyncio.timeout(self._seconds):
                addresses = await found
        except TimeoutError:
            raise socket.gaierror(
                socket.EAI_AGAIN, f"no name server has answered within {self._seconds:g} s"
            ) from None
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=kind,
                proto=proto,
                flags=_NUMERIC,
            )
            for kind, _, proto, _, address in addresses
        ]

    async def close(self) -> None:
        """Do nothing: a look-up that is under way ends by itself."""


def session_for_others(
    *,
    decompress: bool = True,
    max_connections: int = 100,
    middlewares: Sequence[aiohttp.ClientMiddlewareType] = (),
    ws_response_class: type[aiohttp.ClientWebSocketResponse] = aiohttp.ClientWebSocketResponse,
) -> aiohttp.ClientSession:
    """Make a session for hosts that somebody else names; each request brings its own deadline.

    It keeps no cookies, and a name server that is silent holds up nobody but itself.

    Args:
        max_connections: So many at once, and others wait; 0: any number.
        middlewares, ws_response_class: As aiohttp has them.
        decompress: Answers are unpacked, where they are packed.
    """
    return aiohttp.ClientSession(
        auto_decompress=decompress,
        connector=aiohttp.TCPConnector(
            limit=max_connections, resolver=OwnThreadResolver(), ssl=system_trust()
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        middlewares=middlewares,
        ws_response_class=ws_response_class,
    )


def without_redirects(
    failure: Callable[[aiohttp.ClientResponse], Exception],
) -> aiohttp.ClientMiddlewareType:
    """Return what lets a redirection fail, which a session's WebSockets would follow.

    Args:
        failure: Makes the error that is raised.
    """

    async def refusing(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        if 300 <= response.status < 400:
            response.close()
            raise failure(response)
        return response

    return refusing


def let_go(socket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse) -> None:
    """Have a WebSocket that is over freed as soon as nobody has it any more.

    The error that a broken one has ended with knows its frames, and they the socket, its request
    and its connection: only a collector would free them.
    """
    if (error := socket.exception()) is not None:
        forget_frames(error)


async def read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes | None:
    """Read the body of an answer; None: it is longer than that, and was not read to its end."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            return None
    return bytes(body)
