from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from uuid import UUID, uuid4

import pytest

from audiosocket.frames import SLIN, SLIN192, Audio, Dtmf, Error, Hangup, Identify, Kind, encode
from lab.load.audiosocket_client import AudioSocketClient, Heard, pcm_source, tone_source
from linekit.clock import FrameClock
from tests.unit.audiosocket.doubles import Bench, Handler, ManualLoop, Peer
from tests.waiting import PATIENCE_SECONDS, until

TONE = b"\x01\x02" * 160


async def call(bench: Bench, client: AudioSocketClient, handler: Handler) -> None:
    bench.server.expect(client.uuid, handler, client.format)
    await client.connect(bench.host, bench.port)
    await until(lambda: handler.line is not None)


async def test_a_call(bench: Bench) -> None:
    heard: list[Heard] = []
    handler = Handler()
    client = AudioSocketClient(
        uuid4(), source=tone_source(SLIN), clock=bench.clock, on_audio=heard.append, record_frames=3
    )
    await call(bench, client, handler)
    assert client.connected
    for _ in range(5):
        exchanged = len(heard) + 1
        bench.tick()
        await until(lambda: len(handler.audio) == len(heard) == exchanged)  # noqa: B023
    source = tone_source(SLIN)
    assert handler.audio == [(Kind.SLIN8, source()) for _ in range(5)]
    assert list(client.heard) == heard[-3:]
    assert heard[0].payload == bytes(320)
    assert client.stats.frames_sent == client.stats.frames_heard == 5
    assert client.stats.bytes_sent == client.stats.bytes_heard == 1600
    assert client.stats.max_gap_ms >= max(
        (after.at - before.at) * 1000 for before, after in pairwise(heard)
    )

    client.close()
    client.close()
    assert await client.wait_closed() == "closed"
    assert client.close_reason == "closed"
    await until(lambda: bool(handler.lost))
    assert handler.lost == ["peer_closed"]
    bench.tick()
    client.send_digit("1")
    assert client.stats.frames_sent == 5


async def test_gaps_and_digits(bench: Bench) -> None:
    handler = Handler()
    client = AudioSocketClient(uuid4(), source=pcm_source(SLIN, TONE), clock=bench.clock)
    await call(bench, client, handler)
    bench.tick(3)
    client.sending = False
    bench.tick(2)
    client.send_digit("5")
    with pytest.raises(ValueError, match="no DTMF digit"):
        client.send_digit("x")
    await until(lambda: handler.digits == ["5"])
    assert handler.audio == [(Kind.SLIN8, TONE)]
    assert (client.stats.frames_sent, client.stats.gaps_sent) == (1, 4)
    assert client.stats.digits_sent == 1
    client.abort()
    await until(lambda: bool(handler.lost))
    assert handler.lost == ["peer_closed"]


async def test_the_server_hangs_up(bench: Bench) -> None:
    handler = Handler()
    client = AudioSocketClient(uuid4(), clock=bench.clock)
    await call(bench, client, handler)
    assert handler.line is not None
    handler.line.hang_up()
    assert await client.wait_closed() == "hangup"
    assert not client.connected


async def test_its_own_clock() -> None:
    async with raw_server() as (client_for, peers):
        client = await client_for(AudioSocketClient(uuid4(), ptime_ms=10))
        peer = await peers.get()
        assert await peer.messages(3) == [
            Identify(client.uuid),
            *[Audio(Kind.SLIN8, bytes(160))] * 2,
        ]
        client.close()
        assert await client.wait_closed() == "closed"


Connect = Callable[[AudioSocketClient], "asyncio.Future[AudioSocketClient]"]


@asynccontextmanager
async def raw_server() -> AsyncIterator[tuple[Connect, asyncio.Queue[Peer]]]:
    """A server that does what the test says: a way to connect to it, and its ends of the line."""
    peers: asyncio.Queue[Peer] = asyncio.Queue()
    accepted: list[Peer] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        accepted.append(peer)
        peers.put_nowait(peer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()

    async def connect(client: AudioSocketClient) -> AudioSocketClient:
        await client.connect(host, port)
        return client

    try:
        yield lambda client: asyncio.ensure_future(connect(client)), peers
    finally:
        for peer in accepted:
            await peer.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(Hangup()), "hangup"),
        (b"\x55", "unknown_kind"),
        (b"\x10\x00\x00", "wrong_length"),
        (encode(Dtmf("1")), "unexpected_kind"),
        (encode(Identify(UUID(int=1))), "unexpected_kind"),
        (encode(Error(1)), "unexpected_kind"),
        (b"", "eof"),
    ],
)
async def test_what_is_fatal_to_asterisk(manual: ManualLoop, data: bytes, reason: str) -> None:
    async with raw_server() as (connect, peers):
        client = await connect(
            AudioSocketClient(uuid4(), clock=FrameClock(loop=manual), record_frames=9)
        )
        peer = await peers.get()
        await peer.messages(1)
        peer.send(encode(Audio(Kind.SLIN16, TONE)) + data)
        if not data:
            await peer.close()
        assert await client.wait_closed() == reason
        assert [(heard.kind, heard.payload) for heard in client.heard] == [(Kind.SLIN16, TONE)]


async def test_a_reset(manual: ManualLoop) -> None:
    async with raw_server() as (connect, peers):
        client = await connect(AudioSocketClient(uuid4(), clock=FrameClock(loop=manual)))
        peer = await peers.get()
        await peer.messages(1)
        peer.reset()
        assert await client.wait_closed() == "reset"


async def test_pieces_that_come_apart_are_counted(manual: ManualLoop) -> None:
    async with raw_server() as (connect, peers):
        client = await connect(
            AudioSocketClient(uuid4(), clock=FrameClock(loop=manual), record_frames=9)
        )
        peer = await peers.get()
        data = encode(Audio(Kind.SLIN8, TONE))
        peer.send(data[:100])
        await until(lambda: client._decoder.buffered == 100)
        await asyncio.sleep(0.02)
        peer.send(data[100:] + data[:2])
        await until(lambda: client._decoder.buffered == 2)
        await asyncio.sleep(0.05)
        peer.send(data[2:])
        await until(lambda: client.stats.frames_heard == 2)
        assert client.stats.payload_gaps == 1
        assert client.stats.late_frames == 1
        assert client.stats.max_gap_ms >= 45
        client.close()


async def test_a_server_that_does_not_read(manual: ManualLoop) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    clock = FrameClock(loop=manual)
    clock.start()
    client = AudioSocketClient(uuid4(), SLIN192, clock=clock)
    await client.connect(*listener.getsockname())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while client.connected:
            manual.advance(0.02)
            await asyncio.sleep(0)
    assert await client.wait_closed() == "not_reading"
    listener.close()


async def test_nobody_listens() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    listener.close()
    client = AudioSocketClient(uuid4())
    client.close()
    client.abort()
    client.send_raw(b"unheard")
    with pytest.raises(OSError, match=r".+"):
        await client.connect(*address)
    assert not client.connected
    assert client.close_reason is None
