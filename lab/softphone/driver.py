"""The SIP socket: a thin shell that drives a `UserAgent` with datagrams, time and timers."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable
from math import inf

import structlog

from lab.softphone.agent import Event, UserAgent
from lab.softphone.datagrams import received
from lab.softphone.fields import Address

log = structlog.get_logger(__name__)


class SipDriver:
    """Owns the socket and the timer of one user agent. Call `pump` after each command to it.

    `on_event` is given an event and when it came, in monotonic seconds.
    """

    def __init__(self, agent: UserAgent, on_event: Callable[[Event, float], None]) -> None:
        self.agent = agent
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self, sock: socket.socket) -> None:
        """Take over a bound socket and start to listen."""
        self._socket = sock
        self._loop.add_reader(sock.fileno(), self._readable)

    def pump(self, at: float | None = None) -> None:
        """Act on the agent's events, send what it wants sent and set its timer.

        `at` is when what led to the events came; None: now.
        """
        while events := self.agent.events():
            for event in events:
                self._on_event(event, time.monotonic() if at is None else at)
        datagrams = self.agent.datagrams()
        self._stop_timer()
        if self._socket is None:
            return
        for data, destination in datagrams:
            try:
                self._socket.sendto(data, destination)
            except OSError as error:
                log.debug("sip datagram not sent", error=str(error))
        if self.agent.deadline < inf:
            delay = max(0.0, self.agent.deadline - time.monotonic())
            self._timer = self._loop.call_later(delay, self._on_timer)

    def close(self) -> None:
        """Let go of the socket and the timer. May be called again."""
        self._stop_timer()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        if self._socket is None:
            return
        for data, source, at in received(self._socket):
            self.agent.receive_datagram(data, source, time.monotonic())
            self.pump(at)

    def _on_timer(self) -> None:
        self.agent.handle_timer(time.monotonic())
        self.pump()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def resolve(address: Address) -> Address:
    """Look a host name up. Raise OSError when it is not known."""
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.host, address.port, family=socket.AF_INET)
        return Address(str(found[0][4][0]), address.port)
    return address
