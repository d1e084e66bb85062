"""Sends one request to Asterisk over HTTP, within a deadline.

Asterisk's HTTP server (main/http.c) closes an idle connection after 15 s, serves at most 100 at a
time with a thread for each, takes a request line of at most 4096 bytes and a body of 40960.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import orjson
import structlog
from yarl import URL

from ari_app.addresses import is_loopback
from ari_app.ari.errors import (
    AriError,
    AriTimeout,
    AriUnavailable,
    AriUnreached,
    error_for_status,
    untrusted,
)
from ari_app.ari.operations import Operation, Parameter
from ari_app.errors import ConfigError
from ari_app.trust import trusting

log = structlog.get_logger(__name__)

T = TypeVar("T")
Observer = Callable[[Operation[Any], float, str], None]
"""Told of every request: the operation, its duration in seconds, `ok` or the error's code."""

# Below Asterisk's session_keep_alive of 15 s.
KEEPALIVE_SECONDS: Final = 10.0
# Asterisk's words are for a log line, not for a page.
_LONGEST_REASON: Final = 200


class Rest:
    """A pool of connections to one Asterisk, and the credentials for it.

    The pool is made at the first request, inside the running loop.

    Args:
        base_url: Where Asterisk's HTTP server is, without `/ari`: `http://127.0.0.1:8088`, or with
            the `prefix` of http.conf as its path.
        username: A user of ari.conf.
        password: Sent in a header only, never in a URL.
        max_connections: Further requests wait for a free one; their deadline runs meanwhile.
        observe: Called after every request.
        ca_file: For https: certificates (PEM) to trust instead of the system's.

    Raises:
        ConfigError: The URL is not http(s), or holds credentials, a query or a fragment; the
            username holds a colon; or the file of certificates cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        username: str,
        password: str,
        *,
        max_connections: int = 50,
        observe: Observer | None = None,
        ca_file: str | Path | None = None,
    ) -> None:
        self.root = _root(base_url)
        self._tls: ssl.SSLContext | bool = True
        if self.root.startswith("https:"):
            self._tls = trusting(ca_file, "ARI_CA_FILE")
        elif not is_loopback(URL(self.root).host or ""):
            log.warning("ari_password_unencrypted", url=self.root)
        try:
            self._authorization = aiohttp.encode_basic_auth(username, password, encoding="utf-8")
        except ValueError:
            raise ConfigError("the user of Asterisk's ari.conf must not hold a colon") from None
        self._max_connections = max_connections
        self._observe = observe
        self._session: aiohttp.ClientSession | None = None
        self.closed = False

    @property
    def session(self) -> aiohttp.ClientSession:
        """The pool, which puts the credentials into the header of every request.

        Raises:
            AriUnavailable: :meth:`close` was called.
        """
        if self.closed:
            raise AriUnavailable("the client is closed", code="ari_closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"Authorization": self._authorization},
                connector=aiohttp.TCPConnector(
                    limit=self._max_connections,
                    keepalive_timeout=KEEPALIVE_SECONDS,
                    ssl=self._tls,
                ),
                # The deadline is asyncio's: it holds for waiting in the pool and repeating, too.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            )
        return self._session

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        self.closed = True
        if self._session is not None:
            await self._session.close()

    def url(self, path: str) -> URL:
        """The address of a path whose segments are quoted already."""
        return URL(f"{self.root}{path}", encoded=True)

    async def call(
        self,
        operation: Operation[T],
        ids: tuple[str, ...],
        given: dict[str, Parameter],
        deadline: float,
    ) -> T:
        """Do an operation.

        Args:
            operation: What to ask.
            ids: For the path's placeholders, in order.
            given: Parameters by their names on the wire; None leaves one out.
            deadline: Seconds for all of it.

        Raises:
            AriError: See `errors.py`.
            ValueError: The operation does not declare what was given.
        """
        path = operation.fill_path(ids)
        parameters = operation.select(given)
        loop = asyncio.get_running_loop()
        started = loop.time()
        outcome = "cancelled"
        try:
            async with asyncio.timeout(deadline):
                answer = operation.read(await self._exchange(operation, path, parameters))
            outcome = "ok"
            return answer
        except TimeoutError:
            outcome = AriTimeout.default_code
            raise AriTimeout(
                # What has been seen to hold up a healthy Asterisk, and shows nowhere in its log.
                f"no answer within {deadline:g} s (does it know its own name? docs/asterisk.md)",
                method=operation.method,
                path=path,
            ) from None
        except AriError as error:
            outcome = error.code
            raise
        finally:
            if self._observe is not None:
                self._observe(operation, loop.time() - started, outcome)

    async def _exchange(
        self, operation: Operation[T], path: str, parameters: dict[str, Parameter]
    ) -> bytes:
        may_be_done = False
        try:
            try:
                return await self._send(operation, path, parameters)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # Asterisk closed a pooled connection as we wrote to it.
                if not operation.repeatable:
                    raise
                may_be_done = True
                log.debug("ari_request_repeated", method=operation.method, path=operation.path)
                return await self._send(operation, path, parameters)
        except aiohttp.ClientConnectorCertificateError as error:
            raise untrusted(error, method=operation.method, path=path) from None
        except aiohttp.ClientConnectorError as error:
            kind = AriUnavailable if may_be_done else AriUnreached
            raise kind(str(error), method=operation.method, path=path) from error
        except aiohttp.ClientError as error:
            raise AriUnavailable(
                str(error) or type(error).__name__, method=operation.method, path=path
            ) from error

    async def _send(
        self, operation: Operation[T], path: str, parameters: dict[str, Parameter]
    ) -> bytes:
        # Asterisk takes every parameter from a JSON body as well as from the query, and a body is
        # not bound to the length of a request line.
        query: dict[str, str] | None = None
        data: bytes | None = None
        headers: dict[str, str] = {}
        if operation.method == "POST":
            if parameters:
                data = orjson.dumps(parameters)
                headers["Content-Type"] = "application/json"
        elif parameters:
            query = {name: str(value) for name, value in parameters.items()}
        async with self.session.request(
            operation.method,
            self.url(path),
            params=query,
            data=data,
            headers=headers,
            allow_redirects=False,
        ) as response:
            body = await response.read()
            if response.status >= 300:
                reason = _reason(body) or response.reason or ""
                raise error_for_status(response.status, reason, method=operation.method, path=path)
            return body


def _root(base_url: str) -> str:
    try:
        url = URL(base_url)
    except ValueError:
        raise ConfigError("the URL of Asterisk is not a URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError("the URL of Asterisk must look like http://host:8088")
    if url.user is not None or url.password is not None:
        raise ConfigError("the URL of Asterisk must not hold a user or a password")
    if url.query_string or url.fragment:
        raise ConfigError("the URL of Asterisk must not hold a query or a fragment")
    return f"{url.origin()}{url.raw_path.rstrip('/')}/ari"


def _reason(body: bytes) -> str:
    """Asterisk's own words: `{"message": ...}`, or `{"error": ...}` from the HTTP server."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(answer, dict):
        return ""
    said = answer.get("message") or answer.get("error")
    return said[:_LONGEST_REASON] if isinstance(said, str) else ""
