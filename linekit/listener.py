"""Accepts connections, a few at a time, so that a flood of them holds up nothing else.

asyncio and uvloop accept all that waits at once: hundreds of connections in one turn of the loop,
each some 0.1 ms of work, while the frames of running calls are due.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, Generic, Literal, TypeVar

Key = TypeVar("Key", bound=Hashable)
OverLimit = Literal["limit", "address_limit"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of connections at once.

    Attributes:
        connections: In all.
        connections_per_address: From one address, or one IPv6 network (`counted_as`). Asterisk is
            usually one, so it has to hold all calls.
        half_open: Those that have not said who they are.
    """

    connections: int = 2000
    connections_per_address: int = 2000
    half_open: int = 400
    half_open_per_address: int = 200


@dataclass(frozen=True, slots=True)
class Arrival(Generic[Key]):
    """What becomes of a new connection.

    Attributes:
        refused: Why it is refused; None when it is let in.
        made_room: A half-open connection that has to go instead, and why.
    """

    refused: OverLimit | None = None
    made_room: tuple[Key, OverLimit] | None = None


class Census(Generic[Key]):
    """Counts connections, in all and by address.

    Args:
        limits: How many there may be.
        identify_seconds: How long a connection may be half-open.
    """

    def __init__(self, limits: ConnectionLimits, *, identify_seconds: float) -> None:
        self._limits = limits
        self._identify_seconds = identify_seconds
        self._addresses: dict[Key, str] = {}
        self._per_address: Counter[str] = Counter()
        # By age, and each with the time at which it has been half-open for too long.
        self._half_open: OrderedDict[Key, float] = OrderedDict()
        self._half_open_by_address: dict[str, OrderedDict[Key, None]] = {}

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(self._addresses)

    @property
    def half_open(self) -> int:
        """How many have not said who they are."""
        return len(self._half_open)

    @property
    def next_deadline(self) -> float | None:
        """When the oldest half-open connection has been so for too long."""
        return next(iter(self._half_open.values()), None)

    def arrive(self, key: Key, address: str, *, now: float) -> Arrival[Key]:
        """Note that a connection has come. What `made_room` names has left."""
        limits, address = self._limits, counted_as(address)
        here = self._half_open_by_address.get(address, OrderedDict())
        over: OverLimit | None = None
        oldest: Key | None = None
        if (
            self._per_address[address] >= limits.connections_per_address
            or len(here) >= limits.half_open_per_address
        ):
            over, oldest = "address_limit", next(iter(here), None)
        elif len(self) >= limits.connections or self.half_open >= limits.half_open:
            over, oldest = "limit", next(iter(self._half_open), None)
        if over is None:
            made_room = None
        elif oldest is None:
            return Arrival(refused=over)
        else:
            self.leave(oldest)
            made_room = (oldest, over)
        self._addresses[key] = address
        self._per_address[address] += 1
        self._half_open[key] = now + self._identify_seconds
        self._half_open_by_address.setdefault(address, OrderedDict())[key] = None
        return Arrival(made_room=made_room)

    def identify(self, key: Key) -> None:
        """Note that a connection has said who it is, and stays. Has no effect on one that has
        left."""
        if self._half_open.pop(key, None) is not None:
            address = self._addresses[key]
            here = self._half_open_by_address[address]
            del here[key]
            if not here:
                del self._half_open_by_address[address]

    def leave(self, key: Key) -> None:
        """Note that a connection is gone. May be told twice."""
        self.identify(key)
        address = self._addresses.pop(key, None)
        if address is not None:
            self._per_address[address] -= 1
            if not self._per_address[address]:
                del self._per_address[address]

    def take_late(self, now: float) -> list[Key]:
        """Return the connections that have been half-open for too long; they have left."""
        late = []
        for key, deadline in self._half_open.items():
            if deadline > now:
                break
            late.append(key)
        for key in late:
            self.leave(key)
        return late


@lru_cache(maxsize=1024)
def counted_as(host: str) -> str:
    """Return what an address counts as where each has a limit: itself; of IPv6 its /64.

    Whoever has one address of a /64 usually has all of them (RFC 6177), and could come from another
    each time. What is no address counts as itself.

    >>> counted_as("2001:db8::7:1")
    '2001:db8::/64'
    """
    try:
        address = plain_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    return str(IPv6Network((int(address), _IPV6_PREFIX), strict=False))


_IPV6_PREFIX: Final = 64
_SEPARATORS: Final = re.compile(r"[,\s]+")
_IPV4_MAPPED: Final = IPv6Network("::ffff:0:0/96")


class Networks:
    """A list of networks, IPv4 and IPv6; an empty one holds every address.

    An IPv4 address counts as itself also where it comes written as IPv6 (`::ffff:192.0.2.1`,
    RFC 4291), as it does from a socket that takes both.

    Args:
        text: Networks (`10.0.0.0/8`) and addresses, separated by commas or spaces.

    Raises:
        ValueError: A sentence that names what is none.
    """

    def __init__(self, text: str = "") -> None:
        self.text = text
        self._networks = [_network(word) for word in _SEPARATORS.split(text.strip()) if word]
        # A flood asks for the same few addresses again and again.
        self._holds = lru_cache(maxsize=1024)(self._look_up)

    def __contains__(self, host: str) -> bool:
        """Return whether an address, as a socket gives it, is in one of the networks."""
        return not self._networks or self._holds(host)

    def _look_up(self, host: str) -> bool:
        try:
            address = plain_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def plain_address(host: str) -> IPv4Address | IPv6Address:
    """Read an address, without the IPv6 around an IPv4 one.

    Raises:
        ValueError: It is none.
    """
    address = ip_address(host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _network(word: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(word)
    except ValueError:
        raise ValueError(
            f"{word!r} is no network such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7"
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return IPv4Network(f"{mapped}/{network.prefixlen - 96}")
    return network


Accepted = Callable[[socket.socket, str, int], None]
"""Called with a new connection, which is non-blocking and the callee's to close, and with address
and port of its other end."""

_BACKLOG: Final = 1024
"""How many the kernel holds until we accept them: at our pace all of them within 0.3 s."""
_BATCH: Final = 16
_PAUSE_SECONDS: Final = 0.004
"""After a full batch: at most 4000 connections a second are accepted."""
_EXHAUSTED_PAUSE_SECONDS: Final = 1.0
_DRAIN_BYTES: Final = 65536
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """Listens on one address, which may be a name with several.

    Args:
        accepted: Takes each connection.
        exhausted: Called when this process or machine has no descriptor or memory left for another
            connection, at most once a second; those that come meanwhile wait in the kernel.
        batch: How many are accepted in one turn of the loop.
    """

    def __init__(
        self,
        accepted: Accepted,
        *,
        exhausted: Callable[[OSError], None],
        batch: int = _BATCH,
    ) -> None:
        self._accepted = accepted
        self._exhausted = exhausted
        self._batch = batch
        self._sockets: list[socket.socket] = []
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._sockets)

    async def start(self, host: str, port: int, *, shared: bool = False) -> tuple[str, int]:
        """Listen, and return the first address, with the port that port 0 turned into.

        Args:
            host, port: The address.
            shared: Another process of ours may listen there at the same time.

        Raises:
            OSError: An address cannot be had.
            RuntimeError: It listens already.
        """
        self._must_be_closed()
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return self.serve(_listening(found, port, shared=shared))

    def serve(self, sockets: Sequence[socket.socket]) -> tuple[str, int]:
        """Accept from sockets that listen already, which are closed with this; the first address.

        Raises:
            RuntimeError: It listens already.
        """
        self._must_be_closed()
        self._sockets = list(sockets)
        for sock in self._sockets:
            self._resume(sock)
        bound: tuple[str, int] = self._sockets[0].getsockname()[:2]
        return bound

    def close(self) -> None:
        """Accept no more. May be called twice."""
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            if (pause := self._pauses.pop(sock, None)) is not None:
                pause.cancel()
            else:
                asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()

    def _must_be_closed(self) -> None:
        if self._sockets:
            raise RuntimeError("it listens already")

    def _resume(self, sock: socket.socket) -> None:
        self._pauses.pop(sock, None)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept, sock)

    def _pause(self, sock: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock.fileno())
        self._pauses[sock] = loop.call_later(seconds, self._resume, sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(self._batch):
            try:
                connection, (host, port, *_) = sock.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(error)
                    self._pause(sock, _EXHAUSTED_PAUSE_SECONDS)
                # Otherwise none waits, or one has gone away while it waited (accept(2)).
                return
            connection.setblocking(False)
            self._accepted(connection, host, port)
            if not self._sockets:
                return
        self._pause(sock, _PAUSE_SECONDS)


def listening(host: str, port: int) -> list[socket.socket]:
    """Listen on an address without an event loop; `Listener.serve` accepts from the sockets.

    Raises:
        OSError: It cannot be had.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return _listening(found, port)


def _listening(found: Sequence[Any], port: int, *, shared: bool = False) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(_bound(family, (address[0], port, *address[2:]), shared=shared))
            port = sockets[-1].getsockname()[1]
            sockets[-1].listen(_BACKLOG)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bound(family: int, address: tuple[str | int, ...], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # A name may have an address of each kind; each gets a socket of its own.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def turn_away(sock: socket.socket, last_words: bytes) -> None:
    """Send something short, and close. What has arrived is read before: otherwise closing would
    reset the connection, and the reset could overtake what was sent."""
    with contextlib.suppress(OSError):
        sock.recv(_DRAIN_BYTES)
    with contextlib.suppress(OSError):
        sock.send(last_words)
    sock.close()
