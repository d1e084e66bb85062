"""Where connections come in: each has to say whom it carries before anything is set up for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

import structlog

from audiosocket.census import Census, ConnectionLimits
from audiosocket.codec import Decoder, encode
from audiosocket.errors import ProtocolError
from audiosocket.frames import Hangup, Identify
from audiosocket.listener import Listener, turn_away
from audiosocket.networks import Networks

log = structlog.get_logger(__name__)

Admit = Callable[[UUID, Callable[[], None]], asyncio.Protocol | str]
"""Given a UUID and what to call when its connection is gone: who carries it on, or the slug of why
it is refused."""
Refused = Callable[[str, str], None]
"""Called with a slug and with the other end, as `host:port`."""

_HANGUP: Final = encode(Hangup())
_GREETING_BYTES: Final = len(encode(Identify(UUID(int=0))))


class Entrance(Protocol):
    """What a server needs of the place where connections come in."""

    @property
    def half_open(self) -> int:
        """How many connections have not said who they are."""
        ...

    @property
    def listening(self) -> bool:
        """Whether new ones are accepted."""
        ...

    async def open(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the address. Raises OSError or RuntimeError."""
        ...

    def stop_listening(self) -> None:
        """Accept no more. May be called twice."""
        ...

    async def close(self) -> None:
        """Accept no more; what is half-open is closed, what was admitted has been handed over."""
        ...


class TcpEntrance:
    """The usual entrance.

    Until a connection has sent its UUID it is a bare socket, from which exactly these 19 bytes are
    read: no transport, no task, no timer of its own. What is refused gets 0x00 and is closed.
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
        """`allow`: who may connect. `identify_timeout`: seconds until the UUID has to be there."""
        self._admit = admit
        self._refused = refused
        self._allow = allow
        self._census: Census[_Guest] = Census(limits, identify_seconds=identify_timeout)
        self._listener = Listener(self._accepted, exhausted=self._exhausted)
        self._guests: set[_Guest] = set()
        self._handing_over: set[asyncio.Task[None]] = set()
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
        """Listen; the address. Raises OSError or RuntimeError."""
        return await self._listener.start(host, port)

    def stop_listening(self) -> None:
        """Accept no more. May be called twice."""
        self._listener.close()

    async def close(self) -> None:
        """Accept no more; what is half-open is closed, what was admitted has been handed over."""
        self._listener.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for guest in tuple(self._guests):
            self._let_go(guest)
            self._census.leave(guest)
            turn_away(guest.sock, _HANGUP)
        if self._handing_over:
            await asyncio.wait(self._handing_over)

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
        task = asyncio.create_task(self._hand_over(guest, admitted), name="audiosocket-hand-over")
        self._handing_over.add(task)
        task.add_done_callback(self._handing_over.discard)

    async def _hand_over(self, guest: _Guest, protocol: asyncio.Protocol) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: protocol, guest.sock)
        except OSError as error:
            log.warning("connection lost at once", peer=guest.peer, error=error.strerror)
            guest.sock.close()
            self._census.leave(guest)

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
    """`host:port` for logs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
