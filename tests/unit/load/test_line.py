"""A line against a bare peer: when it ends, what it counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from audiosocket.frames import SLIN, Audio, Dtmf, Hangup, Identify, Kind, encode
from lab.load.line import LoadLine
from tests.waiting import until

NAME = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
FRAME = encode(Audio(SLIN.kind, b"\x01\x00" * 160))
SILENCE = encode(Audio(SLIN.kind, bytes(320)))
SAID = (encode(Audio(SLIN.kind, b"\x02\x00" * 160)), encode(Audio(SLIN.kind, b"\x03\x00" * 160)))

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def a_line() -> AsyncIterator[tuple[LoadLine, Peer, list[str]]]:
    peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peers.put((reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    reasons: list[str] = []
    line = LoadLine(NAME, SLIN, SAID, on_closed=reasons.append)
    await line.connect(*server.sockets[0].getsockname()[:2])
    reader, writer = await peers.get()
    try:
        yield line, (reader, writer), reasons
    finally:
        line.close()
        writer.close()
        server.close()
        await server.wait_closed()


async def test_it_says_its_name_and_then_its_messages_in_turn() -> None:
    async with a_line() as (line, (reader, _), _):
        assert await reader.readexactly(19) == encode(Identify(NAME))
        line.tick()
        assert line.frames_sent == 0, "nothing flows before the bridge"
        line.talk()
        for _ in range(3):
            line.tick()
        assert await reader.readexactly(3 * len(FRAME)) == SAID[0] + SAID[1] + SAID[0]
        line.be_quiet()
        line.tick()
        assert await reader.readexactly(len(FRAME)) == SAID[0]
        assert line.frames_sent == 4


async def test_it_notes_when_frames_come_and_whether_they_are_silent() -> None:
    async with a_line() as (line, (_, writer), _):
        for message in (FRAME, SILENCE, FRAME[:100]):
            writer.write(message)
            await asyncio.sleep(0.002)
        writer.write(FRAME[100:] + SILENCE)
        await until(lambda: len(line.arrivals) == 4 or line.close_reason is not None)

        if line.close_reason is None:  # a busy machine may take 5 ms between the pieces
            assert line.voiced_frames == 2
            assert list(line.arrivals) == sorted(line.arrivals)
            line.begin_window()
            assert len(line.arrivals) == 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (encode(Hangup()), "hangup"),
        (encode(Dtmf("1")), "unexpected_kind"),
        (b"\x77\x00\x00", "unknown_kind"),
        (bytes((Kind.SLIN8, 0, 3)) + b"abc", "wrong_length"),
    ],
)
async def test_it_ends_where_asterisk_would(said: bytes, reason: str) -> None:
    async with a_line() as (line, (_, writer), reasons):
        writer.write(said)
        await until(lambda: bool(reasons))
        assert reasons == [line.close_reason] == [reason]
        line.talk()
        line.tick()
        assert line.frames_sent == 0


async def test_a_message_in_pieces_ends_it() -> None:
    async with a_line() as (line, (_, writer), reasons):
        writer.write(FRAME[:100])
        await asyncio.sleep(0.03)
        writer.write(FRAME[100:])
        await until(lambda: bool(reasons))
        assert reasons == ["payload_gap"]
        assert len(line.arrivals) == 0


@pytest.mark.parametrize("abruptly", [False, True])
async def test_the_end_of_the_stream_ends_it(abruptly: bool) -> None:
    async with a_line() as (line, (reader, writer), reasons):
        await reader.readexactly(19)
        if abruptly:
            line.talk()
            line.tick()
            await asyncio.sleep(0.01)
            writer.transport.abort()
        else:
            writer.close()
        await until(lambda: bool(reasons))
        assert reasons[0] in (("reset", "eof") if abruptly else ("eof",))


async def test_a_peer_that_does_not_read_ends_it() -> None:
    async with a_line() as (line, (reader, _), reasons):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        line.talk()
        for _ in range(100_000):
            line.tick()
            if reasons:
                break
        assert reasons == ["not_reading"]


async def test_closing_twice_is_closing_once() -> None:
    async with a_line() as (line, (reader, _), reasons):
        line.close()
        line.close()
        assert reasons == ["closed"]
        assert await reader.read() == encode(Identify(NAME))


async def test_it_reads_frames_that_come_together() -> None:
    async with a_line() as (line, (_, writer), _):
        writer.write(FRAME + SILENCE + FRAME)
        await until(lambda: len(line.arrivals) == 3)
        assert line.voiced_frames == 2
        assert line.close_reason is None


async def test_nobody_there_is_an_error() -> None:
    async def nobody() -> int:
        server = await asyncio.start_server(_ignore, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return port

    line = LoadLine(NAME, SLIN, SAID, on_closed=lambda reason: None)
    with pytest.raises(OSError):
        await line.connect("127.0.0.1", await nobody())


async def _ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
