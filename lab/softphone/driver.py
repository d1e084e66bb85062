"""The SIP socket: a thin shell that drives a `UserAgent` with datagrams, time and timers."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable
from math import inf

import structlog

from lab.softphone.agent import UserAgent
from lab.softphone.events import Event
from lab.softphone.fields import Address

log = structlog.get_logger(__name__)


class SipDriver(asyncio.DatagramProtocol):
    """Owns the socket and the timer of one user agent. Call `pump` after each command to it."""

    def __init__(self, agent: UserAgent, on_event: Callable[[Event], None]) -> None:
        self.agent = agent
        self._on_event = on_event
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = asyncio.get_running_loop().create_future()

    async def open(self, sock: socket.socket) -> None:
        """Take over a bound socket and start to listen."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=sock)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set_result(None)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.agent.receive_datagram(data, Address(*addr[:2]), time.monotonic())
        self.pump()

    def error_received(self, exc: Exception) -> None:
        log.debug("sip datagram not delivered", error=str(exc))

    def pump(self) -> None:
        """Act on the agent's events, send what it wants sent and set its timer."""
        while events := self.agent.events():
            for event in events:
                self._on_event(event)
        datagrams = self.agent.datagrams()
        self._stop_timer()
        if self._transport is None:
            return
        for data, destination in datagrams:
            self._transport.sendto(data, destination)
        if self.agent.deadline < inf:
            delay = max(0.0, self.agent.deadline - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    async def close(self) -> None:
        """Let go of the socket and the timer. May be called again."""
        self._stop_timer()
        if self._transport is not None:
            self._transport.close()
            self._transport = None
            await self._closed

    def _on_timer(self) -> None:
        self.agent.handle_timer(time.monotonic())
        self.pump()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def bind_udp(host: str, port: int) -> socket.socket:
    """A UDP socket for SIP. Raise OSError when the port is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


async def resolve(address: Address) -> Address:
    """Look a host name up. Raise OSError when it is not known."""
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.host, address.port, family=socket.AF_INET)
        return Address(str(found[0][4][0]), address.port)
    return address
