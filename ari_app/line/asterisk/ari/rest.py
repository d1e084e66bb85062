"""Sends one request to Asterisk over HTTP, within a deadline.

Asterisk's HTTP server (main/http.c) closes an idle connection after 15 s, serves at most 100 at a
time with a thread for each, takes a request line of at most 4096 bytes and a body of 40960.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import orjson
import structlog
from yarl import URL

from ari_app.errors import ConfigError
from ari_app.line.asterisk.ari.errors import (
    AriConflict,
    AriError,
    AriNotFound,
    AriServerError,
    AriTimeout,
    AriUnavailable,
    AriUnreached,
    error_for_status,
    untrusted,
)
from ari_app.line.asterisk.ari.http import Connections, Lost, NotReached
from ari_app.line.asterisk.ari.operation import Operation, Parameter
from ari_app.process.addresses import is_loopback
from ari_app.process.network import trusting, why_unreachable, without_redirects


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with jitter.

    The delay before attempt n (0 is the first repetition) lies between half of
    `first_seconds * 2**n` and all of it, and never above `most_seconds`: many clients of one
    Asterisk do not come back in step.
    """

    first_seconds: float = 0.2
    most_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.first_seconds <= self.most_seconds:
            raise ValueError("0 < first_seconds <= most_seconds is needed")

    def delay(self, attempt: int, chance: float) -> float:
        """Return the seconds to wait.

        Args:
            attempt: How many attempts have failed since the last good connection, from 0.
            chance: A number in [0, 1], random where many would come back in step; 1: all of it.
        """
        # Beyond 2**64 the power says nothing new, and far beyond it overflows.
        ceiling = min(self.most_seconds, self.first_seconds * 2.0 ** min(attempt, 64))
        return ceiling * (0.5 + chance / 2)


T = TypeVar("T")

log = structlog.get_logger(__name__)


# How long requests that fail are repeated while events arrive: then it is not the way to Asterisk
# that is broken.
_PATIENCE_SECONDS: Final = 10.0
_BACKOFF: Final = Backoff(0.1, 2.0)


class Sender(Protocol):
    """Makes requests: `Rest`, or `Persistent`."""

    async def call(
        self,
        operation: Operation[T],
        ids: tuple[str, ...],
        given: dict[str, Parameter],
        deadline: float,
    ) -> T:
        """See `ari_app.line.asterisk.ari.rest.Rest.call`."""
        ...


class Link:
    """Whether Asterisk can be reached, as the event socket tells.

    Attributes:
        up: Events arrive. True until the event socket says otherwise.
        outages: How often it went down.
        abandoned: Requests do not wait for it any more.
    """

    def __init__(self) -> None:
        self.up = True
        self.outages = 0
        self.abandoned = False
        self._news = asyncio.Event()

    def set(self, up: bool) -> None:
        """Say whether events arrive."""
        if self.up and not up:
            self.outages += 1
        self.up = up
        self._tell()

    def abandon(self) -> None:
        """Let all requests that wait for it give up, now and from now on."""
        self.abandoned = True
        self._tell()

    async def news(self) -> None:
        """Wait until any of this changes."""
        await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Errand:
    """The purpose of some requests, which are repeated for as long as it is wanted.

    Attributes:
        wanted: It is wanted. Once it is not, requests are not repeated; one that is under way is
            still waited for.
        in_doubt: A request may have been done whose answer was lost.
    """

    def __init__(self) -> None:
        self.wanted = True
        self.in_doubt = False
        self._pauses: set[asyncio.Timeout] = set()

    def drop(self) -> None:
        """Give up the purpose: it is not wanted any more."""
        self.wanted = False
        for pause in self._pauses:
            pause.reschedule(asyncio.get_running_loop().time())

    async def pause(self, link: Link, seconds: float) -> None:
        """Wait for `seconds`, or until the link or the errand changes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds if self.wanted else 0) as pause:
                self._pauses.add(pause)
                try:
                    await link.news()
                finally:
                    self._pauses.discard(pause)


class Persistent:
    """Sends requests again and again while Asterisk cannot be reached.

    It is for one purpose, such as giving one call back: while the link is up, all of its requests
    together are repeated for ten seconds at most. While it is down there is no limit but
    `Errand.drop` and `Link.abandon`. An answer of Asterisk's, whichever it is, is never
    asked for again.

    A request whose answer was lost may have been done already, so only what may be done twice
    belongs here, or what is found under the name that we gave it.
    """

    def __init__(self, sender: Sender, link: Link, errand: Errand | None = None) -> None:
        self._sender = sender
        self._link = link
        self._errand = errand or Errand()
        self._failing_since: float | None = None
        self._outage = link.outages
        self._told = False

    async def call(
        self,
        operation: Operation[T],
        ids: tuple[str, ...],
        given: dict[str, Parameter],
        deadline: float,
    ) -> T:
        """Do a request.

        Raises:
            AriUnavailable: There is no sense in waiting any longer.
            AriError: What Asterisk said.
        """
        failures, in_doubt = 0, False
        while not self._hopeless():
            if operation.needs_events and not self._link.up:
                await self._errand.pause(self._link, _BACKOFF.most_seconds)
                continue
            try:
                return await self._sender.call(operation, ids, given, deadline)
            except (AriUnavailable, AriTimeout) as error:
                if not isinstance(error, AriUnavailable) or error.may_be_done:
                    in_doubt = self._errand.in_doubt = True
                self._failed(operation)
            except (AriConflict, AriServerError):
                if not in_doubt or operation.found_by is None:
                    raise
                named = ids or (str(given["channelId"]),)
                with suppress(AriNotFound):
                    return await self.call(operation.found_by, named, {}, deadline)
                raise
            # Not by chance: requests fail each at its own time, and the link's return wakes all.
            await self._errand.pause(self._link, _BACKOFF.delay(failures, 1.0))
            failures += 1
        raise AriUnavailable("given up", method=operation.method, path=operation.path)

    def _hopeless(self) -> bool:
        if not self._link.up or self._outage != self._link.outages:
            # What failed in an outage says nothing about what comes after it.
            self._outage, self._failing_since = self._link.outages, None
        if self._link.abandoned or not self._errand.wanted:
            return True
        if self._failing_since is None:
            return False
        return asyncio.get_running_loop().time() - self._failing_since >= _PATIENCE_SECONDS

    def _failed(self, operation: Operation[Any]) -> None:
        if self._failing_since is None:
            self._failing_since = asyncio.get_running_loop().time()
        if not self._told:
            self._told = True
            log.warning("ari_request_waits", method=operation.method, path=operation.path)


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
        ca_file: For https: certificates (PEM) to trust instead of the system's.

    Attributes:
        authorization: The header that says who we are.
        on_done: Told of each request: its method, `ok` or the code of the error, and how many
            seconds it took.

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
        ca_file: str | Path | None = None,
    ) -> None:
        self.root = _root(base_url)
        self._tls: ssl.SSLContext | bool = True
        if self.root.startswith("https:"):
            self._tls = trusting(ca_file, "ARI_CA_FILE")
        elif not is_loopback(URL(self.root).host or ""):
            log.warning("ari_password_unencrypted", url=self.root)
        try:
            self.authorization = aiohttp.encode_basic_auth(username, password, encoding="utf-8")
        except ValueError:
            raise ConfigError("ARI_USERNAME must not hold a colon.") from None
        url = URL(self.root, encoded=True)
        self._base_path = url.raw_path
        self._headers = (
            f" HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\nAccept: */*\r\n"
            f"Authorization: {self.authorization}\r\n"
        )
        assert url.raw_host is not None and url.port is not None, "see `_root`"
        self._address = url.raw_host, url.port
        self._max_connections = max_connections
        self._connections: Connections | None = None
        self._session: aiohttp.ClientSession | None = None
        self.closed = False
        self.on_done: Callable[[str, str, float], None] = lambda method, result, seconds: None

    @property
    def connections(self) -> Connections:
        """The pool.

        Raises:
            AriUnavailable: `close` was called.
        """
        self._require_open()
        if self._connections is None:
            tls = self._tls if isinstance(self._tls, ssl.SSLContext) else None
            self._connections = Connections(
                *self._address, tls, limit=self._max_connections, keep_seconds=KEEPALIVE_SECONDS
            )
        return self._connections

    def _require_open(self) -> None:
        if self.closed:
            raise AriUnavailable("the client is closed", code="ari_closed")

    @property
    def session(self) -> aiohttp.ClientSession:
        """What opens the event socket, with the credentials in its header.

        Raises:
            AriUnavailable: `close` was called.
        """
        self._require_open()
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"Authorization": self.authorization},
                connector=aiohttp.TCPConnector(ssl=self._tls),
                # The deadline is asyncio's.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                middlewares=[without_redirects(_redirected)],
            )
        return self._session

    @property
    def base(self) -> URL:
        """Where Asterisk's HTTP server is, without `/ari`."""
        return URL(self.root.removesuffix("/ari"), encoded=True)

    @property
    def tls(self) -> ssl.SSLContext | bool:
        """The SSL context of connections; False: none, over http."""
        return self._tls if self.root.startswith("https:") else False

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        self.closed = True
        if self._connections is not None:
            self._connections.close()
        if self._session is not None:
            await self._session.close()

    def url(self, path: str) -> URL:
        """Return the address of a path whose segments are quoted already."""
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
        clock = asyncio.get_running_loop().time
        began, result = clock(), "cancelled"
        try:
            answer = await self._in_time(operation, path, parameters, deadline)
            result = "ok"
            return answer
        except AriError as error:
            result = error.code
            raise
        finally:
            self.on_done(operation.method, result, clock() - began)

    async def _in_time(
        self,
        operation: Operation[T],
        path: str,
        parameters: dict[str, Parameter],
        deadline: float,
    ) -> T:
        try:
            async with asyncio.timeout(deadline):
                return operation.read(await self._exchange(operation, path, parameters))
        except TimeoutError:
            raise AriTimeout(
                # What has been seen to hold up a healthy Asterisk, and shows nowhere in its log.
                f"no answer within {deadline:g} s (does it know its own name? docs/asterisk.md)",
                method=operation.method,
                path=path,
            ) from None

    async def _exchange(
        self, operation: Operation[T], path: str, parameters: dict[str, Parameter]
    ) -> bytes:
        request = self._request(operation, path, parameters)
        may_be_done = False
        try:
            try:
                answer = await self.connections.exchange(request)
            except Lost as error:
                # Asterisk closed a pooled connection as we wrote to it.
                if error.began or not operation.repeatable:
                    raise
                may_be_done = True
                log.debug("ari_request_repeated", method=operation.method, path=operation.path)
                answer = await self.connections.exchange(request)
        except NotReached as error:
            why = error.__cause__
            assert why is not None, "it says why"
            if isinstance(why, ssl.SSLCertVerificationError):
                raise untrusted(why, method=operation.method, path=path) from None
            kind = AriUnavailable if may_be_done else AriUnreached
            text = f"{error}: {why_unreachable(why)}"
            raise kind(text, method=operation.method, path=path) from why
        except Lost as error:
            raise AriUnavailable(str(error), method=operation.method, path=path) from error
        if answer.status >= 300:
            reason = _reason(answer.body) or answer.reason
            raise error_for_status(answer.status, reason, method=operation.method, path=path)
        return answer.body

    def _request(
        self, operation: Operation[Any], path: str, parameters: dict[str, Parameter]
    ) -> bytes:
        # Asterisk takes every parameter from a JSON body as well as from the query, and a body is
        # not bound to the length of a request line.
        method, whole = operation.method, operation.whole_body
        head, body = f"{method} {self._base_path}{path}", b""
        has_body = method in ("POST", "PUT")
        if has_body:
            if parameters:
                body = orjson.dumps(parameters if whole is None else parameters[whole])
        elif parameters:
            query = {name: str(value) for name, value in parameters.items()}
            head += f"?{urlencode(query, quote_via=quote)}"
        head += self._headers
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        elif has_body:
            head += "Content-Length: 0\r\n\r\n"
        else:
            head += "\r\n"
        return head.encode() + body


def _redirected(response: aiohttp.ClientResponse) -> AriError:
    reason, path = response.reason or "", response.url.path
    return error_for_status(response.status, reason, method=response.method, path=path)


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
    """Return Asterisk's own words: `{"message": ...}`, or `{"error": ...}` from the HTTP server."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(answer, dict):
        return ""
    said = answer.get("message") or answer.get("error")
    return said[:_LONGEST_REASON] if isinstance(said, str) else ""
