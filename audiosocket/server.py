"""The server that Asterisk's AudioSocket channels connect to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import structlog

from audiosocket.census import ConnectionLimits
from audiosocket.clock import FrameClock
from audiosocket.entrance import Admit, Entrance, Refused, TcpEntrance
from audiosocket.expectations import Expectations
from audiosocket.frames import LineFormat
from audiosocket.line import Line, LineHandler
from audiosocket.networks import Networks
from audiosocket.refusals import RefusalLog

log = structlog.get_logger(__name__)

OnRefused = Callable[[str], None]
"""Called with a slug: `not_allowed`, `limit`, `address_limit`, `no_uuid_in_time`, `unknown_uuid`,
`expired`, `reused`, `malformed`, `too_fast` or `no_descriptors`."""


class MakeEntrance(Protocol):
    """Makes the place where connections come in."""

    def __call__(
        self,
        admit: Admit,
        refused: Refused,
        *,
        allow: Networks,
        limits: ConnectionLimits,
        identify_timeout: float,
    ) -> Entrance: ...


@dataclass(frozen=True, slots=True)
class _Registration:
    handler: LineHandler
    format: LineFormat


class AudioSocketServer:
    """Accepts the connections that it was told to expect, and refuses all others.

    There is no authentication in AudioSocket but the knowledge of a UUID, so each is good for
    one connection within a limited time. What is refused gets 0x00 and is closed at once; the
    lines that are up notice nothing, however many there are of it.
    """

    def __init__(
        self,
        clock: FrameClock,
        *,
        allow: Networks | None = None,
        limits: ConnectionLimits | None = None,
        identify_timeout: float = 2.0,
        stall_timeout: float = 5.0,
        on_refused: OnRefused | None = None,
        entrance: MakeEntrance = TcpEntrance,
    ) -> None:
        """`clock`: gives the pace; its owner starts and stops it.

        `allow`: who may connect; everybody when None. `limits`: how many connections.
        `identify_timeout`: seconds that a connection has to send its UUID.
        `stall_timeout`: seconds without reading after which a peer is given up.
        `entrance`: where connections come in.
        """
        self.address: tuple[str, int] | None = None
        """Where it listens; None before `start`."""
        self.refusals: Counter[str] = Counter()
        """How many connections were refused, by reason."""
        self._clock = clock
        self._stall_timeout = stall_timeout
        self._on_refused = on_refused
        self._refusal_log = RefusalLog()
        self._summary: asyncio.TimerHandle | None = None
        self._expectations: Expectations[_Registration] = Expectations()
        self._lines: dict[Line, Callable[[], None]] = {}
        self._all_gone = asyncio.Event()
        self._entrance = entrance(
            self._admit,
            self._refused,
            allow=allow or Networks(),
            limits=limits or ConnectionLimits(),
            identify_timeout=identify_timeout,
        )

    @property
    def lines(self) -> int:
        """How many lines are up."""
        return len(self._lines)

    @property
    def half_open(self) -> int:
        """How many connections have not identified themselves."""
        return self._entrance.half_open

    @property
    def expected(self) -> int:
        """How many UUIDs are expected and have not come."""
        return self._expectations.count(now=asyncio.get_running_loop().time())

    @property
    def listening(self) -> bool:
        """Whether new connections are accepted."""
        return self._entrance.listening

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the address, with the port that port 0 turned into.

        Raises OSError when the address cannot be had, RuntimeError when already started.
        """
        self.address = bound = await self._entrance.open(host, port)
        log.info("audiosocket server listening", host=bound[0], port=bound[1])
        return bound

    def stop_listening(self) -> None:
        """Accept no connection any more; the lines that are up stay. May be called twice."""
        self._entrance.stop_listening()

    async def close(self) -> None:
        """Stop listening, hang up every line (`server_closed`) and wait until all are gone."""
        self._expectations.clear()
        await self._entrance.close()
        for line in tuple(self._lines):
            line.hang_up("server_closed")
        while self._lines:
            self._all_gone.clear()
            await self._all_gone.wait()
        self._tell_summary()

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

    def _admit(self, uuid: UUID, gone: Callable[[], None]) -> Line | str:
        """Turn a connection into a line, or say why not."""
        found = self._expectations.take(uuid, now=asyncio.get_running_loop().time())
        if not isinstance(found, _Registration):
            return found

        def closed(line: Line) -> None:
            gone()
            self._line_closed(line)

        return Line(
            uuid=uuid,
            fmt=found.format,
            handler=found.handler,
            on_open=self._line_opened,
            on_refused=self._count_refusal,
            on_closed=closed,
            stall_timeout=self._stall_timeout,
        )

    def _line_opened(self, line: Line) -> None:
        self._lines[line] = self._clock.add(line.write_frames)

    def _line_closed(self, line: Line) -> None:
        self._lines.pop(line)()
        if not self._lines:
            self._all_gone.set()

    def _refused(self, reason: str, peer: str) -> None:
        self._count_refusal(reason)
        loop = asyncio.get_running_loop()
        if self._refusal_log.add(reason, now=loop.time()):
            log.info("connection refused", reason=reason, peer=peer)
        elif self._summary is None and (at := self._refusal_log.summary_at) is not None:
            self._summary = loop.call_at(at, self._tell_summary)

    def _tell_summary(self) -> None:
        if self._summary is not None:
            self._summary.cancel()
            self._summary = None
            untold = self._refusal_log.take_untold(now=asyncio.get_running_loop().time())
            log.warning("connections refused", number=sum(untold.values()), by_reason=untold)

    def _count_refusal(self, reason: str) -> None:
        self.refusals[reason] += 1
        if self._on_refused is not None:
            try:
                self._on_refused(reason)
            except Exception:
                log.exception("refusal hook failed")
