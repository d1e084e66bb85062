from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from audiosocket.frames import SLIN, SLIN192, Audio, Dtmf, Error, Hangup, Identify, Kind, encode
from linekit.clock import FrameClock
from tests.unit.audiosocket.client import AudioSocketClient, Heard, pcm_source, tone_source
from tests.unit.audiosocket.doubles import Bench, Handler, Peer
from tests.unit.linekit.manual_loop import ManualLoop
from tests.waiting import PATIENCE_SECONDS, until

TONE = b"\x01\x02" * 160


async def call(bench: Bench, client: AudioSocketClient, handler: Handler) -> None:
    bench.server.expect(client.uuid, handler, client.format)
    await client.connect(bench.host, bench.port)
    await until(lambda: handler.line is not None)


async def test_a_call(bench: Bench) -> None:
    handler = Handler()
    client = AudioSocketClient(uuid4(), clock=bench.clock)
    client.source = tone_source(SLIN)
    await call(bench, client, handler)
    for exchanged in range(1, 6):
        bench.tick()
        await until(lambda: len(handler.audio) == len(client.heard) == exchanged)  # noqa: B023
    source = tone_source(SLIN)
    assert handler.audio == [(Kind.SLIN8, source()) for _ in range(5)]
    assert client.heard == [Heard(Kind.SLIN8, bytes(320))] * 5

    client.close()
    client.close()
    assert await client.wait_closed() == "closed"
    assert client.close_reason == "closed"
    await until(lambda: bool(handler.lost))
    assert handler.lost == ["peer_closed"]
    bench.tick()
    client.send_digit("1")
    assert len(handler.audio) == 5


async def test_gaps_and_digits(bench: Bench) -> None:
    handler = Handler()
    client = AudioSocketClient(uuid4(), clock=bench.clock)
    client.source = pcm_source(SLIN, TONE * 2)
    await call(bench, client, handler)
    bench.tick()
    client.sending = False
    bench.tick(2)
    client.sending = True
    bench.tick(3)
    client.send_digit("5")
    with pytest.raises(ValueError, match="no DTMF digit"):
        client.send_digit("x")
    await until(lambda: handler.digits == ["5"])
    assert handler.audio == [(Kind.SLIN8, TONE)] * 2


async def test_the_server_hangs_up(bench: Bench) -> None:
    handler = Handler()
    client = AudioSocketClient(uuid4(), clock=bench.clock)
    await call(bench, client, handler)
    assert handler.line is not None
    handler.line.hang_up()
    assert await client.wait_closed() == "hangup"


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
        client = await connect(AudioSocketClient(uuid4(), clock=FrameClock(loop=manual)))
        peer = await peers.get()
        await peer.messages(1)
        peer.send(encode(Audio(Kind.SLIN16, TONE)) + data)
        if not data:
            await peer.close()
        assert await client.wait_closed() == reason
        assert client.heard == [Heard(Kind.SLIN16, TONE)]


async def test_a_reset(manual: ManualLoop) -> None:
    async with raw_server() as (connect, peers):
        client = await connect(AudioSocketClient(uuid4(), clock=FrameClock(loop=manual)))
        peer = await peers.get()
        await peer.messages(1)
        peer.reset()
        assert await client.wait_closed() == "reset"


async def test_a_server_that_does_not_read(manual: ManualLoop) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    clock = FrameClock(loop=manual)
    clock.start()
    client = AudioSocketClient(uuid4(), SLIN192, clock=clock)
    await client.connect(*listener.getsockname())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while client.close_reason is None:
            manual.advance(0.02)
            await asyncio.sleep(0)
    assert await client.wait_closed() == "not_reading"
    listener.close()


async def test_nobody_listens(manual: ManualLoop) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    listener.close()
    client = AudioSocketClient(uuid4(), clock=FrameClock(loop=manual))
    client.close()
    client.send_raw(b"unheard")
    with pytest.raises(OSError, match=r".+"):
        await client.connect(*address)
    assert client.close_reason is None
