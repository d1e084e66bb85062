"""The server that Asterisk's AudioSocket channels connect to."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Literal, Protocol, TypeVar
from uuid import UUID

import structlog

from audiosocket.connection import AudioSocketConnection, ConnectionHandler
from audiosocket.frames import Decoder, Hangup, Identify, ProtocolError, SlinFormat, encode
from linekit.clock import FrameClock
from linekit.listener import Census, ConnectionLimits, Listener, Networks, turn_away
from linekit.transport import Receiver, SocketTransport

log = structlog.get_logger(__name__)

_READ_BYTES: Final = 8192
"""How much a line reads at once: 0.02 s at the highest rate, 0.5 s at that of telephones."""

Admit = Callable[[UUID, Callable[[], None]], Receiver | str]
"""Given a UUID and what to call when its connection is gone: who carries it on, or the slug of why
it is refused."""
Refused = Callable[[str, str], None]
"""Called with a slug and with the other end, as `host:port`. The slug is `not_allowed`, `limit`,
`address_limit`, `no_uuid_in_time`, `unknown_uuid`, `expired`, `reused`, `malformed`, `too_fast` or
`no_descriptors`."""

_HANGUP: Final = encode(Hangup())
_GREETING_BYTES: Final = len(encode(Identify(UUID(int=0))))


class Entrance(Protocol):
    """The place where connections come in, as a server needs it."""

    @property
    def half_open(self) -> int:
        """How many connections have not said who they are."""
        ...

    @property
    def listening(self) -> bool:
        """Whether new ones are accepted."""
        ...

    async def open(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address.

        Raises:
            OSError: It cannot be had.
            RuntimeError: It listens already.
        """
        ...

    def stop_listening(self) -> None:
        """Accept no more. May be called twice."""
        ...

    async def close(self) -> None:
        """Accept no more, and close half-open connections; those that were admitted go on."""
        ...


class TcpEntrance:
    """The usual entrance.

    Until a connection has sent its UUID it is a bare socket, from which exactly these 19 bytes are
    read: no transport, no task, no timer of its own. What is refused gets 0x00 and is closed.

    Args:
        admit: Turns a connection with its UUID into a line, or says why not.
        refused: Told of each connection that is refused.
        allow: Who may connect.
        limits: How many connections there may be.
        identify_timeout: Seconds until the UUID has to be there.
    """

    def __init__(
        self,
        admit: Admit,
        refused: Refused,
        *,
        allow: Networks,
        limits: ConnectionLimits,
        identify_timeout: float,
    ) -> None:
        self._admit = admit
        self._refused = refused
        self._allow = allow
        self._census: Census[_Guest] = Census(limits, identify_seconds=identify_timeout)
        self._listener = Listener(self._accepted, exhausted=self._exhausted)
        self._guests: set[_Guest] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def half_open(self) -> int:
        """How many connections have not said who they are."""
        return len(self._guests)

    @property
    def listening(self) -> bool:
        """Whether new ones are accepted."""
        return self._listener.listening

    async def open(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address.

        Raises:
            OSError: It cannot be had.
            RuntimeError: It listens already.
        """
        return await self._listener.start(host, port)

    def stop_listening(self) -> None:
        """Accept no more. May be called twice."""
        self._listener.close()

    async def close(self) -> None:
        """Accept no more, and close half-open connections; those that were admitted go on."""
        self._listener.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for guest in tuple(self._guests):
            self._let_go(guest)
            self._census.leave(guest)
            turn_away(guest.sock, _HANGUP)

    def _accepted(self, sock: socket.socket, host: str, port: int) -> None:
        if host not in self._allow:
            turn_away(sock, _HANGUP)
            self._refused("not_allowed", peer_address(host, port))
            return
        guest = _Guest(sock, host, port)
        loop = asyncio.get_running_loop()
        arrival = self._census.arrive(guest, host, now=loop.time())
        if arrival.made_room is not None:
            self._refuse(*arrival.made_room)
        if arrival.refused is not None:
            turn_away(sock, _HANGUP)
            self._refused(arrival.refused, guest.peer)
            return
        self._guests.add(guest)
        loop.add_reader(sock.fileno(), self._read, guest)
        self._set_timer()

    def _exhausted(self, error: OSError) -> None:
        log.error("no connections accepted", error=error.strerror, half_open=self.half_open)
        self._refused("no_descriptors", "unknown")

    def _read(self, guest: _Guest) -> None:
        try:
            data = guest.sock.recv(_GREETING_BYTES - guest.decoder.buffered)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._let_go(guest)
            self._census.leave(guest)
            guest.sock.close()
            return
        try:
            messages = guest.decoder.feed(data)
        except ProtocolError:
            self._refuse(guest, "malformed")
            return
        match messages:
            case [Identify(uuid)]:
                self._identified(guest, uuid)

    def _identified(self, guest: _Guest, uuid: UUID) -> None:
        admitted = self._admit(uuid, lambda: self._census.leave(guest))
        if isinstance(admitted, str):
            self._refuse(guest, admitted)
            return
        self._let_go(guest)
        self._census.identify(guest)
        SocketTransport(guest.sock, admitted, read_bytes=_READ_BYTES).start()

    def _refuse(self, guest: _Guest, reason: str) -> None:
        self._let_go(guest)
        self._census.leave(guest)
        turn_away(guest.sock, _HANGUP)
        self._refused(reason, guest.peer)

    def _let_go(self, guest: _Guest) -> None:
        """Read no more from it here."""
        self._guests.discard(guest)
        asyncio.get_running_loop().remove_reader(guest.sock.fileno())

    def _set_timer(self) -> None:
        deadline = self._census.next_deadline
        if self._timer is None and deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        for guest in self._census.take_late(asyncio.get_running_loop().time()):
            self._refuse(guest, "no_uuid_in_time")
        self._set_timer()


class _Guest:
    """A connection that has not said who it is."""

    __slots__ = ("decoder", "host", "port", "sock")

    def __init__(self, sock: socket.socket, host: str, port: int) -> None:
        self.sock = sock
        self.host = host
        self.port = port
        self.decoder = Decoder(expect_identify=True)

    @property
    def peer(self) -> str:
        return peer_address(self.host, self.port)


def peer_address(host: str, port: int) -> str:
    """Return `host:port` for logs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


T = TypeVar("T")

Refusal = Literal["unknown_uuid", "expired", "reused"]

_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class _Expected(Generic[T]):
    value: T
    expires_at: float


class Expectations(Generic[T]):
    """The UUIDs that Asterisk was told of and has not connected with yet.

    A UUID is all that a connection proves itself with, so it is good for one connection. The
    last 1024 that were used or have expired are remembered, only to name the refusal well.
    """

    def __init__(self) -> None:
        self._expected: dict[UUID, _Expected[T]] = {}
        self._past: OrderedDict[UUID, Refusal] = OrderedDict()

    def add(self, uuid: UUID, value: T, *, now: float, ttl: float) -> None:
        """Expect `uuid` for `ttl` seconds.

        Raises:
            ValueError: It is expected already.
        """
        self._sweep(now)
        if uuid in self._expected:
            raise ValueError("this UUID is expected already")
        self._past.pop(uuid, None)
        self._expected[uuid] = _Expected(value, now + ttl)

    def take(self, uuid: UUID, *, now: float) -> T | Refusal:
        """Return what was registered under `uuid`, which is used up now; or why not."""
        self._sweep(now)
        expected = self._expected.pop(uuid, None)
        if expected is None:
            return self._past.get(uuid, "unknown_uuid")
        self._remember(uuid, "reused")
        return expected.value

    def forget(self, uuid: UUID) -> bool:
        """Expect this UUID no more; return whether it was expected."""
        return self._expected.pop(uuid, None) is not None

    def count(self, *, now: float) -> int:
        """Return how many UUIDs are expected."""
        self._sweep(now)
        return len(self._expected)

    def clear(self) -> None:
        """Expect nothing."""
        self._expected.clear()

    def _sweep(self, now: float) -> None:
        expired = [uuid for uuid, entry in self._expected.items() if entry.expires_at <= now]
        for uuid in expired:
            del self._expected[uuid]
            self._remember(uuid, "expired")

    def _remember(self, uuid: UUID, refusal: Refusal) -> None:
        self._past[uuid] = refusal
        if len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)


WINDOW_SECONDS: Final = 1.0
_TOLD_ONE_BY_ONE: Final = 5


class RefusalLog:
    """Decides which refusals are logged one by one: the first five of each second. All others are
    counted, and logged as one line when the second is over.

    So a person who looks for one mistake sees it, and a flood writes six lines a second.
    """

    def __init__(self, told_one_by_one: int = _TOLD_ONE_BY_ONE) -> None:
        self._told_one_by_one = told_one_by_one
        self._told = 0
        self._untold: Counter[str] = Counter()
        self._window_ends = float("-inf")

    def add(self, reason: str, *, now: float) -> bool:
        """Count a refusal; return whether to log it by itself, and not in the summary."""
        if now >= self._window_ends and not self._untold:
            self._window_ends, self._told = now + WINDOW_SECONDS, 0
        if self._told < self._told_one_by_one:
            self._told += 1
            return True
        self._untold[reason] += 1
        return False

    @property
    def summary_at(self) -> float | None:
        """When the summary is due; None while there is nothing in it."""
        return self._window_ends if self._untold else None

    def take_untold(self, *, now: float) -> dict[str, int]:
        """Return how many refusals the summary has, by reason, and begin a new one. In the second
        that begins now none is logged by itself."""
        untold, self._untold = dict(self._untold), Counter()
        self._window_ends, self._told = now + WINDOW_SECONDS, self._told_one_by_one
        return untold


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
    handler: ConnectionHandler
    format: SlinFormat


class AudioSocketServer:
    """Accepts the connections that it was told to expect, and refuses all others.

    There is no authentication in AudioSocket but the knowledge of a UUID, so each is good for
    one connection within a limited time. A refused connection gets 0x00 and is closed at once;
    even a flood of them does not disturb the lines that are up.

    Args:
        clock: Ticks for all lines; its owner starts and stops it.
        allow: Who may connect; everybody when None.
        limits: How many connections there may be.
        identify_timeout: Seconds that a connection has to send its UUID.
        stall_timeout: Seconds without reading after which a peer is given up.
        on_refused: Told of each connection that is refused.
        entrance: Makes the place where connections come in.

    Attributes:
        address: Where it listens; None before `start`.
        refusals: How many connections were refused, by reason.
    """

    def __init__(
        self,
        clock: FrameClock,
        *,
        allow: Networks | None = None,
        limits: ConnectionLimits | None = None,
        identify_timeout: float = 2.0,
        stall_timeout: float = 5.0,
        on_refused: Refused | None = None,
        entrance: MakeEntrance = TcpEntrance,
    ) -> None:
        self.address: tuple[str, int] | None = None
        self.refusals: Counter[str] = Counter()
        self._clock = clock
        self._stall_timeout = stall_timeout
        self._on_refused = on_refused
        self._refusal_log = RefusalLog()
        self._summary: asyncio.TimerHandle | None = None
        self._expectations: Expectations[_Registration] = Expectations()
        self._lines: dict[AudioSocketConnection, Callable[[], None]] = {}
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
        """Listen, and return the address, with the port that port 0 turned into.

        Raises:
            OSError: The address cannot be had.
            RuntimeError: It listens already.
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

    def expect(
        self, uuid: UUID, handler: ConnectionHandler, fmt: SlinFormat, ttl: float = 10.0
    ) -> None:
        """Accept one connection with this UUID within `ttl` seconds.

        Call this before Asterisk is asked for the channel: the connection can come before the
        answer does.

        Args:
            uuid: What the connection identifies itself by.
            handler: Takes what comes on the line.
            fmt: What the channel was created with; frames go out in it.
            ttl: Seconds that the connection is waited for.

        Raises:
            ValueError: The UUID is expected already.
        """
        now = asyncio.get_running_loop().time()
        self._expectations.add(uuid, _Registration(handler, fmt), now=now, ttl=ttl)

    def forget(self, uuid: UUID) -> bool:
        """Expect this UUID no more; return whether it still was expected."""
        return self._expectations.forget(uuid)

    def _admit(self, uuid: UUID, gone: Callable[[], None]) -> AudioSocketConnection | str:
        """Turn a connection into a line, or say why not."""
        found = self._expectations.take(uuid, now=asyncio.get_running_loop().time())
        if not isinstance(found, _Registration):
            return found

        def closed(line: AudioSocketConnection) -> None:
            gone()
            self._line_closed(line)

        return AudioSocketConnection(
            uuid=uuid,
            fmt=found.format,
            handler=found.handler,
            on_open=self._line_opened,
            on_refused=self._count_refusal,
            on_closed=closed,
            stall_timeout=self._stall_timeout,
        )

    def _line_opened(self, line: AudioSocketConnection) -> None:
        self._lines[line] = line.tick_with(self._clock)

    def _line_closed(self, line: AudioSocketConnection) -> None:
        self._lines.pop(line)()
        if not self._lines:
            self._all_gone.set()

    def _refused(self, reason: str, peer: str) -> None:
        self._count_refusal(reason, peer)
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

    def _count_refusal(self, reason: str, peer: str) -> None:
        self.refusals[reason] += 1
        if self._on_refused is not None:
            try:
                self._on_refused(reason, peer)
            except Exception:
                log.exception("refusal hook failed")
