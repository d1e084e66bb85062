"""Doubles of the things around a line: a handler, a raw peer, a server to try."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from audiosocket.connection import AudioSocketConnection
from audiosocket.frames import SLIN, Decoder, Identify, Kind, Message, SlinFormat, encode
from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock
from tests.unit.linekit.manual_loop import ManualLoop
from tests.waiting import PATIENCE_SECONDS, until


class Handler:
    """A LineHandler that writes down what happens, and fails where it is told to."""

    def __init__(self, *, fails_in: str = "") -> None:
        self.line: AudioSocketConnection | None = None
        self.audio: list[tuple[Kind, bytes]] = []
        self.digits: list[str] = []
        self.ticks: list[int] = []
        self.lost: list[str] = []
        self.calls: list[str] = []
        self._fails_in = fails_in

    def line_connected(self, line: AudioSocketConnection) -> None:
        self.line = line
        self._called("line_connected")

    def audio_received(self, payload: bytes, kind: Kind) -> None:
        self.audio.append((kind, payload))
        self._called("audio_received")

    def digit_received(self, digit: str) -> None:
        self.digits.append(digit)
        self._called("digit_received")

    def tick(self, frames_due: int) -> None:
        self.ticks.append(frames_due)
        self._called("tick")

    def line_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self._called("line_lost")

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self._fails_in:
            raise RuntimeError(f"{name} fails")


class Peer:
    """A TCP client without manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = Decoder(expect_identify=False)
        self._ahead: list[Message] = []

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def messages(self, number: int) -> list[Message]:
        """The next `number` messages; what came with them is left for the next time."""
        found = self._ahead
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found) < number:
                data = await self.reader.read(65536)
                assert data, f"end of stream after {found}"
                found += self.decoder.feed(data)
        self._ahead = found[number:]
        return found[:number]

    async def rest(self) -> list[Message]:
        """All messages until the server closes; then this end closes too, as Asterisk does."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            messages = self._ahead + self.decoder.feed(await self.reader.read(-1))
        self._ahead = []
        self.writer.close()
        return messages

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


@dataclass
class Bench:
    server: AudioSocketServer
    clock: FrameClock
    manual: ManualLoop
    host: str
    port: int
    refused: list[str]
    peers: list[Peer] = field(default_factory=list)

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.manual.advance(0.02)

    async def dial(self) -> Peer:
        peer = Peer(*await asyncio.open_connection(self.host, self.port))
        self.peers.append(peer)
        return peer

    async def connect(
        self, handler: Handler, fmt: SlinFormat = SLIN, uuid: UUID | None = None
    ) -> tuple[Peer, AudioSocketConnection]:
        """A peer that is known to the server, and its line."""
        uuid = uuid or uuid4()
        self.server.expect(uuid, handler, fmt)
        peer = await self.dial()
        peer.send(encode(Identify(uuid)))
        await until(lambda: handler.line is not None)
        assert handler.line is not None
        return peer, handler.line

    async def close(self) -> None:
        for peer in self.peers:
            await peer.close()
        await self.server.close()
