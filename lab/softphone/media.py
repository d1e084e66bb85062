"""The RTP socket of one call: a thin shell around its mouth and its ear."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable

from lab.softphone.datagrams import bind_udp, received
from lab.softphone.ear import Arrival, Ear
from lab.softphone.fields import Address
from lab.softphone.impairment import ImpairedLine, Impairment
from lab.softphone.mouth import Mouth
from lab.softphone.rtp import RtpPacket
from lab.softphone.sdp import Agreement

_MAX_CATCH_UP = 10
"""Packets sent at once after the loop stood still; more than that are missed."""
_EARLY_S = 0.001
"""Loops round timers to the millisecond."""


class PacedStream:
    """A mouth with a clock, and an ear; on what the packets travel is for others to say."""

    def __init__(self) -> None:
        self.mouth = Mouth(
            ssrc=random.getrandbits(32),
            sequence=random.getrandbits(16),
            timestamp=random.getrandbits(32),
        )
        self.ear = Ear()
        self.on_packet: Callable[[Arrival | None], None] | None = None
        """Called after each packet; with None when it held no voice."""
        self._ptime_s = 0.02
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def start_sending(self) -> None:
        """Start the clock, once."""
        if self._timer is None:
            self._deadline = time.monotonic()
            self._tick()

    def stop_sending(self) -> None:
        """Stop the clock. What is queued stays so until it is dropped."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.mouth.paused = True

    def send(self, packet: RtpPacket) -> None:
        """Let a packet travel."""
        raise NotImplementedError

    def take(self, data: bytes, at: float) -> None:
        """Take a packet that has come."""
        arrival = self.ear.hear(data, at)
        if self.on_packet is not None:
            self.on_packet(arrival)

    def _tick(self) -> None:
        now = time.monotonic()
        due = 0
        while self._deadline <= now + _EARLY_S:
            self._deadline += self._ptime_s
            due += 1
        if due > _MAX_CATCH_UP:
            self.mouth.skip(due - _MAX_CATCH_UP)
        for late in reversed(range(min(due, _MAX_CATCH_UP))):
            # What is made up for was said when it was due: the far end plays it by its timestamps.
            packet = self.mouth.tick(now - late * self._ptime_s)
            if packet is not None:
                self.send(packet)
        self._timer = self._loop.call_later(max(0.0, self._deadline - now), self._tick)


class MediaStream(PacedStream):
    """Sends what the mouth says, one packet each ptime, and gives the ear what comes in."""

    def __init__(self, host: str, *, impairment: Impairment | None = None) -> None:
        """Bind an even UDP port (RFC 3550, section 11) and start to listen.

        Raises:
            OSError: no port could be bound.
        """
        super().__init__()
        self.strangers = 0
        """Datagrams from addresses that nobody agreed on."""
        self.send_errors = 0
        self._line = ImpairedLine(impairment) if impairment is not None else None
        self._remotes: set[Address] = set()
        self._remote: Address | None = None
        self._socket: socket.socket | None = _bind(host)
        self.address = Address(*self._socket.getsockname()[:2])
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def agree(self, agreement: Agreement) -> None:
        """Take over what was agreed, for both directions."""
        event_payload_type = agreement.event_payload_type
        self.ear.expect(agreement.codec, agreement.payload_type, event_payload_type)
        self.mouth.configure(
            agreement.codec, agreement.payload_type, agreement.ptime_ms, event_payload_type
        )
        self._ptime_s = agreement.ptime_ms / 1000
        self._remote = agreement.remote
        self._remotes.add(agreement.remote)

    def start_sending(self) -> None:
        """Start the clock, once."""
        if self._socket is not None:
            super().start_sending()

    def close(self) -> None:
        """Stop and let go of the port. What was heard stays. May be called again."""
        self.stop_sending()
        self.mouth.clear(time.monotonic())
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self.ear.finish()

    def send(self, packet: RtpPacket) -> None:
        data = packet.encode()
        if self._line is None:
            self._send_now(data)
            return
        for delay_ms in self._line.delays_ms():
            self._loop.call_later(delay_ms / 1000, self._send_now, data)

    def _send_now(self, data: bytes) -> None:
        if self._socket is None or self._remote is None:
            return
        try:
            self._socket.sendto(data, self._remote)
        except OSError:
            self.send_errors += 1

    def _readable(self) -> None:
        if self._socket is None:
            return
        for data, source, at in received(self._socket):
            self._take(data, source, at)

    def _take(self, data: bytes, source: Address, at: float) -> None:
        if self._remotes and source not in self._remotes:
            self.strangers += 1
            return
        self.take(data, at)


def _bind(host: str) -> socket.socket:
    for _ in range(64):
        sock = bind_udp(host, 0)
        if sock.getsockname()[1] % 2 == 0:
            return sock
        sock.close()
    raise OSError("no even port was free")
