"""Opening a conversation: the signed URL, the socket, the initiation, the metadata."""

from __future__ import annotations

import asyncio
import importlib.metadata
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp
import structlog
from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed
from yarl import URL

from ari_app.agent.elevenlabs.account import AccountWatch
from ari_app.agent.elevenlabs.client_messages import (
    Initiation,
    SourceInfo,
)
from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.agent.elevenlabs.codec import MAX_MESSAGE_BYTES, encode
from ari_app.agent.elevenlabs.connection import AgentConnection
from ari_app.agent.elevenlabs.errors import (
    AgentNotFound,
    AgentQuotaUsedUp,
    AgentRateLimited,
    AgentRefused,
    AgentRejected,
    AgentTimeout,
    AgentUnauthorized,
    AgentUnavailable,
    ConnectError,
)
from ari_app.agent.elevenlabs.protocol import AgentProtocol, ProtocolEvent
from ari_app.agent.elevenlabs.rest import ask, json_or_none
from ari_app.agent.elevenlabs.signed_url import (
    _is_loopback_url,
    conversation_in,
    fetch_signed_url,
    parse_base_url,
    public_url,
)
from ari_app.agent.elevenlabs.socket import AgentSocket, how_it_ended, open_socket
from ari_app.agent.interface import Briefing, TellAgentEvent
from ari_app.audio.formats import DEFAULT_AGENT_FORMATS, AgentFormats
from ari_app.errors import ConfigError
from ari_app.process.loop import compute
from ari_app.process.network import OwnThreadResolver, trusting

_CONVERSATIONS_PATH: Final = "v1/convai/conversations"
_USER_PATH: Final = "v1/user"
_REPORT_SECONDS: Final = 20.0
_MAX_REPORT_BYTES: Final = 4 * 1024 * 1024
_AT_ONCE_SECONDS: Final = 0.2
_RATE_LIMITED_SECONDS: Final = 1.0
_ATTEMPT_SECONDS: Final = 0.5
"""What is left for less than this is no attempt."""


def wait_before_retry(error: ConnectError, seconds_left: float) -> float | None:
    """Return the seconds to wait before the second attempt; None when there is to be none.

    A wait that the service asked for is kept to, or the attempt is left out where that does not
    fit into what is left of the deadline: asking earlier would only be refused again, and the
    caller rings on for nothing.

    Args:
        error: Why the first attempt failed.
        seconds_left: Until the deadline.
    """
    if not error.retryable:
        return None
    if error.retry_after is not None:
        wait = error.retry_after
    elif isinstance(error, AgentRateLimited):
        wait = _RATE_LIMITED_SECONDS
    else:
        wait = _AT_ONCE_SECONDS
    return wait if wait + _ATTEMPT_SECONDS <= seconds_left else None


log = structlog.get_logger(__name__)


class KeyStatus:
    """Whether the service takes our key, and can be reached, by its answers.

    The key is refused from the first 401 on until an answer shows that it is taken. An answer that
    says nothing of the key (429, 5xx, none at all) leaves that as it was, and so does 403, which
    may be about one agent. The service is out of reach from the first failed connection on until
    there is any answer.

    Attributes:
        agent_id: The agent of the last conversation that failed so.
        unreachable: Why the service cannot be reached; empty when it can.
        refused: The key is refused.
    """

    def __init__(self) -> None:
        self.agent_id = ""
        self.unreachable = ""
        self.refused = False
        self._failing = asyncio.Event()

    @property
    def problem(self) -> str:
        """Why every new call would fail; empty when none would."""
        return "ElevenLabs refuses the key" if self.refused else self.unreachable

    def accepted(self) -> None:
        """Note that a signed URL was given, or the socket opened without one."""
        if self.refused:
            log.info("agent_key_accepted")
        self._now(refused=False)

    def failed(self, agent_id: str, error: ConnectError) -> None:
        """Note that no signed URL was given."""
        match error:
            case AgentUnauthorized(http_status=401):
                if not self.refused:
                    log.error("agent_key_refused", error=str(error))
                self.agent_id = agent_id
                self._now(refused=True)
            case AgentNotFound() | AgentRejected() | AgentQuotaUsedUp():
                self.accepted()
            case AgentUnavailable(http_status=None):
                self.agent_id = agent_id
                self._now(refused=self.refused, unreachable=str(error))
            case ConnectError(http_status=int()):
                self._now(refused=self.refused)

    def _now(self, *, refused: bool, unreachable: str = "") -> None:
        if bool(unreachable) is not bool(self.unreachable):
            if unreachable:
                log.error("agent_unreachable", error=unreachable)
            else:
                log.info("agent_reached")
        self.refused, self.unreachable = refused, unreachable
        if self.problem:
            self._failing.set()
        else:
            self._failing.clear()

    async def until_failing(self) -> None:
        """Wait until there is a problem."""
        await self._failing.wait()


_VERSION = importlib.metadata.version("ari-app")
_KEY_SECONDS = 30.0
_UNREACHABLE_SECONDS = 5.0
_MAX_KNOWN_AGENTS = 1000
_OF_IT_FOR_THE_NAME = 0.4


class AgentClient:
    """Opens conversations with agents of one ElevenLabs service.

    Close it after its last conversation.

    Args:
        base_url: `https://api.elevenlabs.io`, a residency host, or the practice agent's `http://`
            address.
        api_key: With one each conversation gets a signed URL; without, only public agents answer.
        connect_timeout: Seconds for everything up to the agent's metadata, a second attempt
            included.
        close_timeout: Seconds that an agent may take to close its side.
        dead_after: An agent that answers no ping for so many seconds counts as lost.
        ca_file: Certificates (PEM) in place of the system's; they are always checked.
        max_message_bytes: A larger message ends the conversation.

    Raises:
        ConfigError: An address or a file cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | SecretStr | None = None,
        *,
        connect_timeout: float = 8.0,
        close_timeout: float = 1.0,
        dead_after: float = 4.0,
        ca_file: str | Path | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._base_url = parse_base_url(base_url)
        # Wrapped so that no traceback with local variables can show it.
        if isinstance(api_key, str):
            api_key = SecretStr(api_key)
        self._api_key = api_key if api_key and api_key.get_secret_value() else None
        self._connect_timeout = connect_timeout
        self._close_timeout = close_timeout
        self._dead_after = dead_after
        self._max_message_bytes = max_message_bytes
        self._tls: ssl.SSLContext | None = None
        if self._base_url.scheme == "https":
            self._tls = trusting(ca_file, "ELEVENLABS_CA_FILE")
        elif self._api_key is not None and not _is_loopback_url(self._base_url):
            log.warning("agent_key_unencrypted", host=self._base_url.host)
        self._session: aiohttp.ClientSession | None = None
        self.key = KeyStatus()
        self.account = AccountWatch(self.user)
        self._formats: dict[str, AgentFormats] = {}

    def __repr__(self) -> str:
        return f"AgentClient({str(self._base_url)!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # --- ari_app.agent.interface.Agents

    async def connect(
        self,
        briefing: Briefing,
        tell: TellAgentEvent,
        named: Callable[[str], None] = lambda conversation_id: None,
    ) -> AgentConnection:
        """Begin a conversation and wait until the agent is there.

        A conversation that takes up a lost one says `Resumed.first_message`, or what the agent
        always says first where its settings allow no other.

        Args:
            briefing: Which agent, and what it is told.
            tell: Told what happens.
            named: Gets the id of each conversation that is tried, before its socket is opened; only
                signed URLs tell it.

        Raises:
            AgentError: There is none; then no socket is left and nothing was told.
            ConfigError: No agent is named.
        """
        if not briefing.agent_id:
            raise ConfigError("no agent is named")
        try:
            connection = await self._converse(briefing, initiation_for(briefing), tell, named)
        except AgentRefused as error:
            if briefing.resumed is None or error.close.kind is not CloseKind.OVERRIDE_ERROR:
                raise
            log.warning("agent_allows_no_first_message", agent=briefing.agent_id)
            plain = initiation_for(briefing, greets_as_always=True)
            return await self._converse(briefing, plain, tell, named)
        connection.waits = briefing.resumed is not None and not briefing.resumed.first_message
        return connection

    def formats_of(self, agent_id: str) -> AgentFormats:
        """Say what an agent's formats are likely to be: as it announced them last."""
        return self._formats.get(agent_id, DEFAULT_AGENT_FORMATS)

    async def conversation(self, conversation_id: str) -> object:
        """Ask for what the service knows of a conversation, after it.

        Raises:
            AgentError: It does not say, or there is no key to ask with.
        """
        return await self._fetch(self._base_url / _CONVERSATIONS_PATH / conversation_id)

    async def user(self) -> object:
        """Ask for the account of our key: its plan, and how much of that is used.

        Raises:
            AgentError: The service does not say: the key lacks the right to ask, or there is none.
        """
        return await self._fetch(self._base_url / _USER_PATH)

    async def _fetch(self, url: URL) -> object:
        if self._api_key is None:
            raise AgentUnauthorized("this is told only to whoever has a key")
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                body = await ask(
                    self._rest(), url, self._api_key, tls=self._tls, max_bytes=_MAX_REPORT_BYTES
                )
        except TimeoutError:
            raise AgentTimeout("the agent's service did not answer in time") from None
        return await compute(json_or_none, body)

    def problems(self) -> list[str]:
        """Say why no conversation can come about now; empty when all is well."""
        return [self.key.problem] if self.key.problem else []

    def warnings(self) -> list[str]:
        """Say what will soon keep conversations away, or keeps some away, in sentences."""
        return self.account.warnings()

    async def watch(self) -> None:
        """Look after the key, and after what its plan allows, until cancelled."""
        works = [self._watch_key()]
        if self._api_key is not None:
            works.append(self.account.run())
        await asyncio.gather(*works)

    async def _watch_key(self) -> None:
        """Ask again and again while the key is refused, or nobody is reached, until cancelled.

        Beside the next call that succeeds this is what ends `key.problem`: nobody may call for
        hours, and somebody may not send calls here before it has ended.
        """
        while True:
            await self.key.until_failing()
            await asyncio.sleep(_KEY_SECONDS if self.key.refused else _UNREACHABLE_SECONDS)
            if self.key.problem:
                with suppress(ConnectError):
                    await self.check(self.key.agent_id)

    async def _converse(
        self,
        briefing: Briefing,
        initiation: Initiation,
        tell: TellAgentEvent,
        named: Callable[[str], None],
    ) -> AgentConnection:
        began = asyncio.get_running_loop().time()
        async with self._deadline():
            connection = await self._connect_or_retry(
                briefing.agent_id, initiation, tell, named, began + self._connect_timeout
            )
        self._keep_formats(briefing.agent_id, connection)
        took_s = asyncio.get_running_loop().time() - began
        log.debug(
            "agent_connected",
            conversation_id=connection.id,
            input_format=connection.hears.name,
            output_format=connection.speaks.name,
            took_ms=round(took_s * 1000),
        )
        return connection

    def _keep_formats(self, agent_id: str, connection: AgentConnection) -> None:
        self._formats.pop(agent_id, None)
        self._formats[agent_id] = AgentFormats(connection.hears, connection.speaks)
        while len(self._formats) > _MAX_KNOWN_AGENTS:
            del self._formats[next(iter(self._formats))]

    async def check(self, agent_id: str) -> None:
        """Find out whether `agent_id` can be reached, without beginning a conversation.

        With a key: whether a signed URL is given. Without one: whether the socket opens, which
        says nothing about the agent.

        Raises:
            ConnectError: It cannot.
        """
        async with self._deadline():
            url = await self._url(agent_id, Initiation(), names_conversation=False)
            if self._api_key is None:
                socket = await self._open(url, agent_id)
                await socket.abort()

    async def close(self) -> None:
        """Free the HTTP connections. Running conversations are not touched."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _connect_or_retry(
        self,
        agent_id: str,
        initiation: Initiation,
        tell: TellAgentEvent,
        named: Callable[[str], None],
        deadline: float,
    ) -> AgentConnection:
        try:
            return await self._connect(agent_id, initiation, tell, named)
        except ConnectError as error:
            self.account.refused(error)
            left = deadline - asyncio.get_running_loop().time()
            wait = wait_before_retry(error, left)
            if wait is None:
                raise
            log.info("agent_connect_retried", code=error.code, error=str(error), wait_s=wait)
        await asyncio.sleep(wait)
        try:
            return await self._connect(agent_id, initiation, tell, named)
        except ConnectError as error:
            self.account.refused(error)
            raise

    async def _connect(
        self,
        agent_id: str,
        initiation: Initiation,
        tell: TellAgentEvent,
        named: Callable[[str], None],
    ) -> AgentConnection:
        first = encode(initiation)
        url = await self._url(agent_id, initiation, names_conversation=True)
        if conversation_id := conversation_in(url):
            named(conversation_id)
        socket = await self._open(url, agent_id)
        protocol = AgentProtocol()
        try:
            received = await _begin(socket, protocol, first)
        except BaseException:
            await socket.abort()
            raise
        assert protocol.started is not None
        return AgentConnection(
            socket,
            protocol,
            protocol.started,
            tell,
            received,
            close_timeout=self._close_timeout,
            dead_after=self._dead_after,
        )

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._connect_timeout):
                yield
        except TimeoutError:
            raise AgentTimeout(
                f"no answer from the agent within {self._connect_timeout:g} s"
            ) from None

    async def _open(self, url: SecretStr, agent_id: str) -> AgentSocket:
        try:
            socket = await open_socket(
                url,
                user_agent=f"ari-app/{_VERSION}",
                max_message_bytes=self._max_message_bytes,
                close_timeout=self._close_timeout,
                tls=self._tls,
            )
        except AgentUnavailable as error:
            # With a key the request for the URL has shown that the service is there.
            if self._api_key is None:
                self.key.failed(agent_id, error)
            raise
        if self._api_key is None:
            self.key.accepted()
        return socket

    async def _url(
        self, agent_id: str, initiation: Initiation, *, names_conversation: bool
    ) -> SecretStr:
        if self._api_key is None:
            return public_url(self._base_url, agent_id, environment=initiation.environment)
        try:
            url = await fetch_signed_url(
                self._rest(),
                self._base_url,
                self._api_key,
                agent_id,
                environment=initiation.environment,
                branch_id=initiation.branch_id,
                names_conversation=names_conversation,
                tls=self._tls,
            )
        except ConnectError as error:
            self.key.failed(agent_id, error)
            raise
        self.key.accepted()
        return url

    def _rest(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # So that a name server which does not answer is told from an agent which does not.
                connector=aiohttp.TCPConnector(
                    resolver=OwnThreadResolver(seconds=self._connect_timeout * _OF_IT_FOR_THE_NAME)
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"ari-app/{_VERSION}"},
                trust_env=not _is_loopback_url(self._base_url),
            )
        return self._session


async def _begin(socket: AgentSocket, protocol: AgentProtocol, first: bytes) -> list[ProtocolEvent]:
    """Send the initiation and read until the metadata; return what came with them."""
    socket.send_now(first)
    try:
        while True:
            received = protocol.receive(await socket.next_message())
            for owed in protocol.data_to_send():
                socket.send_now(owed)
            if protocol.started is not None:
                return received
    except ConnectionClosed as error:
        raise AgentRefused(protocol.closed(*how_it_ended(error))) from None


def initiation_for(briefing: Briefing, *, greets_as_always: bool = False) -> Initiation:
    """Return the first message of a conversation.

    Args:
        briefing: What the agent is to be told.
        greets_as_always: Leave the first message to the agent, also where a lost conversation is
            taken up.

    Raises:
        ValidationError: The options do not fit.
    """
    initiation = Initiation.model_validate(briefing.options)
    variables = {**(initiation.dynamic_variables or {}), **briefing.variables}
    overrides = initiation.conversation_config_override
    if (resumed := briefing.resumed) is not None:
        variables["resumed_from"] = resumed.conversation_id
        variables["transcript_so_far"] = resumed.transcript
        if not greets_as_always:
            agent = (overrides or {}).get("agent")
            said = {
                **(agent if isinstance(agent, dict) else {}),
                "first_message": resumed.first_message,
            }
            overrides = {**(overrides or {}), "agent": said}
    return initiation.model_copy(
        update={
            "dynamic_variables": variables or None,
            "conversation_config_override": overrides,
            "source_info": initiation.source_info or SourceInfo(version=f"ari-app {_VERSION}"[:50]),
        }
    )
