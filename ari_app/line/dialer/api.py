"""A dialer's own HTTP service: where the sound of a call is, and that a call is over.

    GET  {DIALER_API_URL}/calls/{call_id}/audio   -> {"url", "format", "pacing"?, "abilities"?}
    POST {DIALER_API_URL}/calls/{call_id}/hangup  <- {status, reason, session_id, conversation_id}

Only hosts that the settings name are connected to, and no redirection is followed: where it leads
to is somebody else's choice. Hosts are compared as the library understands a URL that it will then
connect to, so that the two cannot understand it differently.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import quote

import aiohttp
import orjson
import structlog
from aiohttp import hdrs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from yarl import URL

from ari_app.errors import LineError
from ari_app.json_text import NotJson, read_json
from ari_app.line.dialer.protocol import MAX_MESSAGE_BYTES
from ari_app.line.interface import CallEnd, Outcome, OwnAudio, OwnAudioAbility, OwnAudioFormat
from ari_app.process.addresses import is_loopback, split_host
from ari_app.process.network import (
    let_go,
    read_bounded,
    session_for_others,
    why_unreachable,
    why_untrusted,
    without_redirects,
)

log = structlog.get_logger(__name__)

ANSWER_SECONDS: Final = 3.0
CONNECT_SECONDS: Final = 5.0
HEARTBEAT_SECONDS: Final = 4.0
_PAUSE_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 0.5
_MAX_ANSWER_BYTES: Final = 16 * 1024
_MAX_URL: Final = 2000
_PLAIN: Final = re.compile(
    r"wss?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?([/?][!-\"$-\[\]-~]*)?"
)
_NO_NAME_OF_A_CALL: Final = ("", ".", "..")
PROBE: Final = "ari-app-check"
"""A call that no dialer has."""


class DialerError(LineError):
    """A dialer's service or its WebSocket did not do what was asked.

    `code` is one of `unreachable`, `timeout`, `untrusted`, `key_refused`, `unknown_call`,
    `status`, `redirect`, `answer` and `audio_url`.
    """

    default_code = "dialer"

    @property
    def is_down(self) -> bool:
        """Whether it is as good as not there, for any call."""
        return self.code in ("unreachable", "timeout", "untrusted", "key_refused", "redirect")


@dataclass(frozen=True, slots=True)
class DialerOptions:
    """Where a dialer is.

    Attributes:
        url: Its service; None: it has none.
        key: What it knows us by.
        audio_hosts: Hosts beside that of `url` whose sound may be fetched, each with a port if no
            other is meant.
        tls: Whom we trust; None: whom the system does.
    """

    url: str | None = None
    key: SecretStr | None = None
    audio_hosts: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None


class _Answer(BaseModel):
    # Another's service may say more than we know of.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    url: Annotated[str, Field(min_length=1, max_length=_MAX_URL)]
    format: OwnAudioFormat
    pacing: Literal["ours", "theirs"] = "ours"
    abilities: list[OwnAudioAbility] = Field(default_factory=list, max_length=10)


class AudioSocket(aiohttp.ClientWebSocketResponse):
    """A dialer's WebSocket, to which we have connected.

    Attributes:
        transport: What it is written to.
    """

    def __init__(
        self, reader: Any, writer: Any, protocol: Any, response: Any, *rest: Any, **named: Any
    ) -> None:
        super().__init__(reader, writer, protocol, response, *rest, **named)
        self.transport: asyncio.Transport = response.connection.transport
        self._handler: Any = response.connection.protocol

    def let_go(self) -> None:
        """Have it freed as soon as nobody has it any more, now that it is over: for its heartbeat
        the connection knows it, and it the connection."""
        self._handler._data_received_cb = None
        let_go(self)


class DialerApi:
    """A dialer's service, over one session. Open it with `async with`.

    Args:
        options: Where it is.
        on_failure: Called with what was asked (`audio`, `connect` or `hangup`) and the code of
            each failure.

    Attributes:
        problem: Why it is not to be had just now, a sentence; None: nothing is known.
        ails: Set while there is a problem.
    """

    def __init__(
        self,
        options: DialerOptions,
        on_failure: Callable[[str, str], None] = lambda what, code: None,
    ) -> None:
        self._options = options
        self._on_failure = on_failure
        self._base = None if options.url is None else URL(options.url)
        self._session: aiohttp.ClientSession | None = None
        self.problem: str | None = None
        self.ails = asyncio.Event()

    async def __aenter__(self) -> Self:
        # Each call holds a connection for as long as it lasts.
        self._session = session_for_others(
            max_connections=0,
            middlewares=[without_redirects(_redirected)],
            ws_response_class=AudioSocket,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    @property
    def is_there(self) -> bool:
        """Whether the settings name a service."""
        return self._base is not None

    # --- where sound may be fetched

    def audio_url(self, text: str) -> URL:
        """Return where sound is to be fetched.

        Raises:
            DialerError: The settings do not name that host, or it is no such address.
        """
        url = None
        # Of the library's reading only what is plainly an address is relied on.
        if len(text) <= _MAX_URL and _PLAIN.fullmatch(text):
            with contextlib.suppress(ValueError):
                url = URL(text)
        if url is None:
            raise DialerError(
                "audio_url must be a WebSocket's, wss://..., in ASCII, without a user or a "
                "fragment.",
                code="audio_url",
            )
        host = (url.raw_host or "").lower()
        if not self._is_named(host, url.port):
            raise DialerError(
                "audio_url names a host that is neither DIALER_API_URL's nor one of "
                "DIALER_AUDIO_HOSTS.",
                code="audio_url",
            )
        if url.scheme == "ws" and not self._may_be_plain(host):
            raise DialerError(
                "audio_url must be wss://: without TLS only this machine is connected to, or a "
                "dialer whose DIALER_API_URL is http:// itself.",
                code="audio_url",
            )
        return url

    def _is_named(self, host: str, port: int | None) -> bool:
        if self._is_the_services(host):
            return True
        for named in self._options.audio_hosts:
            named_host, named_port = split_host(named)
            if named_host.lower() == host and named_port in (None, port):
                return True
        return False

    def _is_the_services(self, host: str) -> bool:
        return self._base is not None and (self._base.raw_host or "").lower() == host

    def _may_be_plain(self, host: str) -> bool:
        services = self._base is not None and self._base.scheme == "http"
        return is_loopback(host) or (services and self._is_the_services(host))

    # --- what is asked

    async def audio(self, call_id: str) -> OwnAudio:
        """Ask where the sound of a call is, and in which format; once more where that may help.

        Raises:
            DialerError: It was not told.
        """
        try:
            found = read_answer(await self._twice(hdrs.METH_GET, call_id, "audio"))
            self.audio_url(found.url or "")
        except DialerError as error:
            self._failed("audio", error)
            raise
        return found

    async def hung_up(self, call_id: str, outcome: Outcome, end: CallEnd) -> None:
        """Tell that a call is over, twice if need be; never raises.

        It says the same as `hang_up` on the WebSocket, for a dialer that has lost that.
        """
        if self._base is None:
            return
        body = {
            "status": outcome.status.value,
            "reason": outcome.reason,
            "session_id": end.session_id,
            "conversation_id": end.conversation_id,
        }
        try:
            await self._twice(hdrs.METH_POST, call_id, "hangup", body)
        except DialerError as error:
            if error.code != "unknown_call":
                self._failed("hangup", error)
                log.warning(
                    "dialer_not_told_of_end",
                    call=end.session_id,
                    code=error.code,
                    error=str(error),
                )

    async def connect(self, url: URL) -> AudioSocket:
        """Connect to a call's sound. Not tried again: its address may be good for one connection.

        Raises:
            DialerError: It did not come about.
        """
        assert self._session is not None, "open it with `async with`"
        try:
            async with _failures("the dialer's WebSocket"), asyncio.timeout(CONNECT_SECONDS):
                socket = await self._session.ws_connect(
                    url,
                    # To its own host alone; what else the settings name need not know the key.
                    headers=self._headers() if self._is_the_services(url.raw_host or "") else {},
                    ssl=self._options.tls or True,
                    heartbeat=HEARTBEAT_SECONDS,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
                    max_msg_size=MAX_MESSAGE_BYTES,
                )
        except DialerError as error:
            self._on_failure("connect", error.code)
            raise
        assert isinstance(socket, AudioSocket), "the session makes them"
        return socket

    async def probe(self) -> None:
        """Ask about a call that there is not; that it is not known is a good answer.

        Raises:
            DialerError: It cannot be reached, or does not know us.
        """
        try:
            await self._ask(hdrs.METH_GET, PROBE, "audio", None)
        except DialerError as error:
            if error.code == "unknown_call":
                self._is_well()
                return
            if error.is_down:
                self._ails(error)
            else:
                self._is_well()
            raise
        self._is_well()

    def _failed(self, what: str, error: DialerError) -> None:
        self._on_failure(what, error.code)
        if error.is_down:
            self._ails(error)

    def _ails(self, error: DialerError) -> None:
        self.problem = str(error)
        self.ails.set()

    def _is_well(self) -> None:
        self.problem = None
        self.ails.clear()

    async def _twice(
        self, method: str, call_id: str, what: str, body: dict[str, str] | None = None
    ) -> bytes:
        try:
            return await self._answered(method, call_id, what, body)
        except DialerError as error:
            if not error.retryable:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)
        return await self._answered(method, call_id, what, body)

    async def _answered(
        self, method: str, call_id: str, what: str, body: dict[str, str] | None
    ) -> bytes:
        answer = await self._ask(method, call_id, what, body)
        self._is_well()
        return answer

    async def _ask(
        self, method: str, call_id: str, what: str, body: dict[str, str] | None
    ) -> bytes:
        assert self._session is not None, "open it with `async with`"
        url = self._url(call_id, what)
        async with (
            _failures(f"DIALER_API_URL {self._options.url}"),
            asyncio.timeout(ANSWER_SECONDS),
            self._session.request(
                method,
                url,
                data=None if body is None else orjson.dumps(body),
                headers=self._headers() | {hdrs.CONTENT_TYPE: "application/json"},
                ssl=self._options.tls or True,
                allow_redirects=False,
            ) as response,
        ):
            _check_status(response.status, what)
            answer = await read_bounded(response, _MAX_ANSWER_BYTES)
            if answer is None:
                raise DialerError(
                    f"it answered with more than {_MAX_ANSWER_BYTES} bytes", code="answer"
                )
            return answer

    def _url(self, call_id: str, what: str) -> URL:
        if self._base is None:
            raise DialerError("DIALER_API_URL is not set.", code="unreachable")
        if call_id in _NO_NAME_OF_A_CALL:
            raise DialerError("A call_id of dots alone cannot be asked for.", code="unknown_call")
        path = f"{self._base.raw_path.rstrip('/')}/calls/{quote(call_id, safe='')}/{what}"
        return URL(f"{self._base.origin()}{path}", encoded=True)

    def _headers(self) -> dict[str, str]:
        key = self._options.key
        return {} if key is None else {hdrs.AUTHORIZATION: f"Bearer {key.get_secret_value()}"}


def _redirected(response: aiohttp.ClientResponse) -> DialerError:
    return DialerError("it redirects, which is not followed", code="redirect")


@asynccontextmanager
async def _failures(whom: str) -> AsyncIterator[None]:
    try:
        yield
    except DialerError as error:
        raise DialerError(f"{whom}: {error}", code=error.code, retryable=error.retryable) from None
    except TimeoutError:
        raise DialerError(
            f"{whom} did not answer in time", code="timeout", retryable=True
        ) from None
    except aiohttp.ClientConnectorCertificateError as error:
        why = why_untrusted(error.certificate_error)
        raise DialerError(f"{whom} is not trusted: {why}", code="untrusted") from None
    except aiohttp.WSServerHandshakeError as error:
        raise DialerError(
            f"{whom} answered the handshake with the HTTP status {error.status}", code="status"
        ) from None
    except ValueError:
        # A URL that the library will not have, which it would repeat.
        raise DialerError(f"{whom} has an address that cannot be used", code="answer") from None
    except (aiohttp.ClientError, OSError) as error:
        raise DialerError(
            f"{whom} cannot be reached: {why_unreachable(error)}",
            code="unreachable",
            retryable=True,
        ) from None


def _check_status(status: int, what: str) -> None:
    if 200 <= status < 300:
        return
    if status in (401, 403):
        raise DialerError(f"it refuses DIALER_API_KEY (HTTP {status})", code="key_refused")
    if status in (404, 410):
        raise DialerError(f"it does not know this call (HTTP {status})", code="unknown_call")
    if 300 <= status < 400:
        raise DialerError("it redirects, which is not followed", code="redirect")
    raise DialerError(
        f"it answered .../{what} with the HTTP status {status}",
        code="status",
        retryable=status >= 500 or status == 429,
    )


def read_answer(body: bytes) -> OwnAudio:
    """Read where the sound of a call is. Pure; whether it may be fetched there is another matter.

    Raises:
        DialerError: `answer`: it does not say so. What it says instead is not repeated.
    """
    try:
        found = _Answer.model_validate(read_json(body))
        return OwnAudio(
            found.format,
            theirs=found.pacing == "theirs",
            url=found.url,
            abilities=OwnAudio.abilities_of(found.abilities),
        )
    except NotJson as error:
        why = str(error)
    except ValidationError as error:
        # What stands in it is not repeated: the address is a secret.
        places = {".".join(map(str, item["loc"][:2])) or "body" for item in error.errors()}
        why = f"look at {', '.join(sorted(places))}"
    raise DialerError(f"the answer to .../audio cannot be used: {why}", code="answer")
