"""The server that Asterisk's AudioSocket channels connect to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast
from uuid import UUID

import structlog

from audiosocket.clock import FrameClock
from audiosocket.codec import Decoder
from audiosocket.errors import ProtocolError
from audiosocket.expectations import Expectations
from audiosocket.frames import Identify, LineFormat, Message
from audiosocket.line import ABORT_SECONDS, Line, LineHandler, peer_name, say_goodbye, set_no_delay

log = structlog.get_logger(__name__)

OnRefused = Callable[[str], None]
"""Called with a slug: `unknown_uuid`, `expired`, `reused`, `no_uuid_in_time`, `malformed` or
`limit`."""


@dataclass(frozen=True, slots=True)
class _Registration:
    handler: LineHandler
    format: LineFormat


class AudioSocketServer:
    """Accepts the connections that it was told to expect, and refuses all others.

    There is no authentication in AudioSocket but the knowledge of a UUID, so each is good for
    one connection within a limited time. What is refused gets 0x00 and is closed, within
    `identify_timeout` at most; the lines that are up notice nothing.
    """

    def __init__(
        self,
        clock: FrameClock,
        *,
        identify_timeout: float = 2.0,
        stall_timeout: float = 5.0,
        max_connections: int = 2000,
        max_half_open: int = 200,
        on_refused: OnRefused | None = None,
    ) -> None:
        """`clock`: gives the pace; its owner starts and stops it.

        `identify_timeout`: seconds that a connection has to send its UUID.
        `stall_timeout`: seconds without reading after which a peer is given up.
        `max_connections`, `max_half_open`: connections in all, and those without a UUID; one
        more is refused (`limit`).
        """
        self.refusals: Counter[str] = Counter()
        """How many connections were refused, by reason."""
        self._clock = clock
        self._identify_timeout = identify_timeout
        self._stall_timeout = stall_timeout
        self._max_connections = max_connections
        self._max_half_open = max_half_open
        self._on_refused = on_refused
        self._expectations: Expectations[_Registration] = Expectations()
        self._greetings: set[_Greeting] = set()
        self._lines: dict[Line, Callable[[], None]] = {}
        self._all_gone = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def lines(self) -> int:
        """How many lines are up."""
        return len(self._lines)

    @property
    def half_open(self) -> int:
        """How many connections have not identified themselves, or are being refused."""
        return len(self._greetings)

    @property
    def expected(self) -> int:
        """How many UUIDs are expected and have not come."""
        return self._expectations.count(now=asyncio.get_running_loop().time())

    @property
    def listening(self) -> bool:
        """Whether new connections are accepted."""
        return self._server is not None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the address, with the port that port 0 turned into.

        Raises OSError when the address cannot be had, RuntimeError when already started.
        """
        if self._server is not None:
            raise RuntimeError("the server listens already")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Greeting(self, self._identify_timeout), host, port
        )
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        log.info("audiosocket server listening", host=bound_host, port=bound_port)
        return bound_host, bound_port

    def stop_listening(self) -> None:
        """Accept no connection any more; the lines that are up stay. May be called twice."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Stop listening, hang up every line (`server_closed`) and wait until all are gone."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._expectations.clear()
        for line in tuple(self._lines):
            line.hang_up("server_closed")
        for greeting in tuple(self._greetings):
            greeting.close()
        while self._lines or self._greetings:
            self._all_gone.clear()
            await self._all_gone.wait()
        if server is not None:
            await server.wait_closed()

    def expect(self, uuid: UUID, handler: LineHandler, fmt: LineFormat, ttl: float = 10.0) -> None:
        """Accept one connection with this UUID within `ttl` seconds.

        `fmt` is what the channel was created with; frames go out in it. Call this before
        Asterisk is asked for the channel: the connection can come before the answer does.
        Raises ValueError when the UUID is expected already.
        """
        now = asyncio.get_running_loop().time()
        self._expectations.add(uuid, _Registration(handler, fmt), now=now, ttl=ttl)

    def forget(self, uuid: UUID) -> bool:
        """Expect it no more; whether it still was expected."""
        return self._expectations.forget(uuid)

    def _connected(self, greeting: _Greeting) -> bool:
        """Count a connection; whether there is room for it."""
        has_room = (
            len(self._greetings) < self._max_half_open
            and len(self._greetings) + len(self._lines) < self._max_connections
            and self._server is not None
        )
        self._greetings.add(greeting)
        return has_room

    def _identified(
        self,
        greeting: _Greeting,
        uuid: UUID,
        transport: asyncio.Transport,
        decoder: Decoder,
        messages: list[Message],
    ) -> Line | None:
        """Turn a connection into a line, or refuse it."""
        found = self._expectations.take(uuid, now=asyncio.get_running_loop().time())
        if not isinstance(found, _Registration):
            greeting.refuse(found)
            return None
        line = Line(
            uuid=uuid,
            fmt=found.format,
            handler=found.handler,
            transport=transport,
            decoder=decoder,
            on_malformed=lambda: self._count_refusal("malformed"),
            on_closed=self._line_closed,
            stall_timeout=self._stall_timeout,
        )
        transport.set_protocol(line)
        self._greetings.discard(greeting)
        self._lines[line] = self._clock.add(line.write_frames)
        line.begin(messages)
        return line

    def _line_closed(self, line: Line) -> None:
        self._lines.pop(line)()
        self._check_gone()

    def _greeting_closed(self, greeting: _Greeting) -> None:
        self._greetings.discard(greeting)
        self._check_gone()

    def _check_gone(self) -> None:
        if not self._lines and not self._greetings:
            self._all_gone.set()

    def _count_refusal(self, reason: str) -> None:
        self.refusals[reason] += 1
        if self._on_refused is not None:
            try:
                self._on_refused(reason)
            except Exception:
                log.exception("refusal hook failed")


class _Greeting(asyncio.Protocol):
    """A connection that has not said who it is. It becomes a `Line`, or is refused."""

    _transport: asyncio.Transport

    def __init__(self, server: AudioSocketServer, identify_timeout: float) -> None:
        self._server = server
        self._identify_timeout = identify_timeout
        self._decoder = Decoder(expect_identify=True)
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        set_no_delay(self._transport)
        if self._server._connected(self):
            self._set_timer(self._identify_timeout, lambda: self.refuse("no_uuid_in_time"))
        else:
            self.refuse("limit")
            # Nothing lingers when there are too many already.
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        fault: ProtocolError | None = None
        try:
            messages = self._decoder.feed(data)
        except ProtocolError as error:
            fault = error
            messages = list(error.before)
        match messages:
            case [Identify(uuid), *rest]:
                self._cancel_timer()
                line = self._server._identified(self, uuid, self._transport, self._decoder, rest)
                if line is not None and fault is not None:
                    line.malformed(fault)
            case _ if fault is not None:
                self.refuse("malformed")

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._server._greeting_closed(self)

    def refuse(self, reason: str) -> None:
        """Count it and close."""
        log.info("connection refused", reason=reason, peer=peer_name(self._transport))
        self._server._count_refusal(reason)
        self.close()

    def close(self) -> None:
        """Send 0x00 and close; abort when the peer does not take it. May be called twice."""
        if not self._closing:
            self._closing = True
            say_goodbye(self._transport)
            self._set_timer(ABORT_SECONDS, self._transport.abort)

    def _set_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
