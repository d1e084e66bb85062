"""A dialer of one's own, as far as a test or a demonstration needs one: see docs/custom-dialer.md.

The mouth and the ear are the softphone's; each packet's sound is one message on the WebSocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import aiohttp

from lab.softphone.codec import PCMU, RATE_HZ, Codec
from lab.softphone.ending import Ending
from lab.softphone.errors import CallFailed
from lab.softphone.handset import Handset
from lab.softphone.media import PacedStream
from lab.softphone.rtp import RtpPacket

FORMAT = "ulaw_8000"
_FRAME_MS = 20
_BROKE = "the connection broke"


class Socket(Protocol):
    """A WebSocket with the service, whoever has opened it."""

    def __aiter__(self) -> AsyncIterator[aiohttp.WSMessage]: ...

    async def send_str(self, data: str) -> None: ...

    async def send_bytes(self, data: bytes) -> None: ...


class SocketStream(PacedStream):
    """Sends what the mouth says over a WebSocket, and gives the ear what comes there."""

    def __init__(self) -> None:
        super().__init__()
        self.mouth.configure(PCMU, PCMU.payload_type, _FRAME_MS, None)
        self.mouth.paused = False
        self.ear.expect(PCMU, PCMU.payload_type, None)
        self.unsent: asyncio.Queue[bytes] = asyncio.Queue()
        self._ssrc = random.getrandbits(32)
        self._came = 0

    def send(self, packet: RtpPacket) -> None:
        self.unsent.put_nowait(packet.payload)

    def came(self, payload: bytes) -> None:
        """Take a message of sound: they come in order and without a gap."""
        timestamp = self._came * RATE_HZ * _FRAME_MS // 1000
        packet = RtpPacket(PCMU.payload_type, self._came & 0xFFFF, timestamp, self._ssrc, payload)
        self._came += 1
        self.take(packet.encode(), time.monotonic())


class DialerCall(Handset):
    """A call that the dialer holds. All sound is 16-bit PCM, mono, 8 kHz.

    Attributes:
        told: The messages that came, in order.
    """

    rung_at = None
    codec: Codec = PCMU

    def __init__(self) -> None:
        stream = self._stream = SocketStream()
        super().__init__(stream.ear, stream.mouth)
        stream.on_packet = self.packet_heard
        self.told: list[Mapping[str, str]] = []
        self._is_ready = asyncio.Event()
        self._we_hang_up = False
        self._socket: Socket | None = None
        self._task: asyncio.Task[None] | None = None

    async def answered(self) -> None:
        """Wait until caller and agent are together.

        Raises:
            CallFailed: It ended first.
        """
        await self._is_ready.wait()
        if self.answered_at is None and self.ending is not None:
            raise CallFailed(self.ending.status, self.ending.reason)

    async def hang_up(self) -> Ending:
        """Tell the service that the caller has gone."""
        self._we_hang_up = True
        if self._socket is not None and self.ending is None:
            with contextlib.suppress(ConnectionError):
                await self.say("hang_up")
        return await self.ended

    def ask(self, session: aiohttp.ClientSession, body: Mapping[str, object]) -> None:
        """Ask the service for an agent, and go there with the sound."""
        self._task = asyncio.create_task(self._go(session, body), name="dialer")

    def take(self, socket: Socket) -> None:
        """Hold the call over a WebSocket to which the service has come."""
        self._task = asyncio.create_task(self._hold(socket), name="dialer")

    async def say(self, kind: str, **parts: str) -> None:
        """Send a text message."""
        assert self._socket is not None, "there is no WebSocket yet"
        await self._socket.send_str(json.dumps({"type": kind, **parts}))

    async def close(self) -> None:
        """Stop, whatever the state of the call."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _go(self, session: aiohttp.ClientSession, body: Mapping[str, object]) -> None:
        try:
            async with session.post("/webhook/initiate-call", json=dict(body)) as response:
                answer = await response.json()
            if response.status != 200:
                self._over(response.status, answer["detail"])
                return
            async with session.ws_connect(answer["audio_url"]) as socket:
                await self._hold(socket)
        except aiohttp.ClientError as error:
            self._over(0, str(error))

    async def _hold(self, socket: Socket) -> None:
        self._socket = socket
        reason = _BROKE
        try:
            reason = await self._talk(socket)
        finally:
            self._over(200, reason)

    async def _talk(self, socket: Socket) -> str:
        reason = _BROKE
        sending: asyncio.Task[None] | None = None
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    self._stream.came(message.data)
                elif message.type is aiohttp.WSMsgType.TEXT:
                    told = json.loads(message.data)
                    self.told.append(told)
                    if told["type"] == "ready":
                        sending = asyncio.create_task(self._send(socket), name="dialer sends")
                        self.answered_at = time.monotonic()
                        self._stream.start_sending()
                        self._is_ready.set()
                    elif told["type"] == "hang_up":
                        reason = told["reason"]
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        return reason

    async def _send(self, socket: Socket) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await socket.send_bytes(await self._stream.unsent.get())

    def _over(self, status: int, reason: str) -> None:
        if self.ending is not None:
            return
        ending = Ending("us" if self._we_hang_up else "far", status, reason)
        self._stream.stop_sending()
        self.be_silent()
        self.over(ending)
        self._is_ready.set()
