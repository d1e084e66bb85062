from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed
from websockets.frames import CTRL_OPCODES, Frame, Opcode
from websockets.protocol import State
from websockets.streams import StreamReader
from websockets.utils import accept_key

from ari_app.agent.elevenlabs.codec import Masks, ServerFrames, ping_frame, text_frame
from ari_app.agent.elevenlabs.errors import AgentNotFound, ConnectError
from ari_app.agent.elevenlabs.socket import AgentSocket, how_it_ended, open_socket
from tests.tls import client_tls, server_tls
from tests.waiting import until


def parse(data: bytes) -> Frame:
    """The frame as `websockets` reads it on the server's side."""
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=True, max_size=None)
    with pytest.raises(StopIteration) as result:
        next(parser)
    reader.feed_eof()
    assert reader.at_eof(), "nothing is left over"
    frame: Frame = result.value.value
    return frame


def test_a_ping_is_what_a_server_reads() -> None:
    frame = parse(ping_frame())
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.PING, True, b"")


@given(size=st.sampled_from([0, 1, 125, 126, 127, 65535, 65536, 70000]) | st.integers(0, 2000))
def test_a_text_frame_is_what_a_server_reads(size: int) -> None:
    payload = (b"0123456789" * (size // 10 + 1))[:size]
    frame = parse(text_frame(payload))
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.TEXT, True, payload)
    assert not (frame.rsv1 or frame.rsv2 or frame.rsv3)


def test_no_mask_is_given_twice() -> None:
    masks = Masks()
    taken = [masks.take() for _ in range(3000)]
    assert {len(mask) for mask in taken} == {4}
    assert len(set(taken)) > 2990, "but for chance"


def from_server(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    if opcode in CTRL_OPCODES:
        payload, fin = payload[:125], True
    return Frame(opcode, payload, fin=fin).serialize(mask=False)


FRAMES = st.tuples(
    st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.CLOSE]),
    st.sampled_from([0, 1, 125, 126, 65535, 65536]) | st.integers(0, 300),
    st.booleans(),
)


@given(frames=st.lists(FRAMES, max_size=8), pieces=st.lists(st.integers(1, 70_000), max_size=20))
def test_a_stream_is_cut_into_its_frames_however_it_comes(
    frames: list[tuple[Opcode, int, bool]], pieces: list[int]
) -> None:
    made = [from_server(opcode, b"m" * size, fin=fin) for opcode, size, fin in frames]
    stream = b"".join(made)
    cuts = [0, *itertools.accumulate(pieces), len(stream)]
    cutter = ServerFrames(65536)
    came = [each for a, b in itertools.pairwise(cuts) for each in cutter.feed(stream[a:b])]
    assert [frame for frame, _ in came] == made
    for (frame, body), (opcode, size, fin) in zip(came, frames, strict=True):
        whole = fin and opcode in (Opcode.TEXT, Opcode.BINARY)
        assert (frame[body:] == b"m" * size and body > 0) if whole else not body


@pytest.mark.parametrize(
    "refused",
    [from_server(Opcode.TEXT, b"m" * 11), Frame(Opcode.TEXT, b"m").serialize(mask=True)],
    ids=["too long", "masked"],
)
def test_what_is_no_frame_of_a_servers_is_passed_on_as_it_comes(refused: bytes) -> None:
    cutter, first = ServerFrames(10), from_server(Opcode.TEXT, b"m" * 10)
    assert cutter.feed(first + refused[:10]) == [(first, 2), (refused[:10], 0)]
    assert cutter.feed(refused[10:] + first) == [(refused[10:] + first, 0)]


@asynccontextmanager
async def answering(
    answer: Callable[[str], list[bytes]],
) -> AsyncIterator[tuple[SecretStr, list[asyncio.StreamWriter]]]:
    """A server that answers a handshake in these pieces."""
    lines: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(writer)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        for piece in answer(key_of(head)):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield SecretStr(f"ws://127.0.0.1:{port}/"), lines
        for line in lines:
            line.close()


def key_of(head: str) -> str:
    start = head.lower().index("sec-websocket-key:")
    return head[start:].partition(":")[2].partition("\r\n")[0].strip()


def accepted(key: str) -> bytes:
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
    ).encode()


async def opened(url: SecretStr, tls: ssl.SSLContext | None = None) -> AgentSocket:
    return await open_socket(
        url, user_agent="test", max_message_bytes=100, close_timeout=0.1, tls=tls
    )


async def test_a_redirection_is_not_followed() -> None:
    elsewhere = asyncio.Event()

    async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        elsewhere.set()
        writer.close()

    async def redirects(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n"
            b"Location: ws://127.0.0.1:%d/\r\n\r\n" % there.sockets[0].getsockname()[1]
        )
        writer.close()

    there = await asyncio.start_server(listens, "127.0.0.1", 0)
    here = await asyncio.start_server(redirects, "127.0.0.1", 0)
    async with there, here:
        with pytest.raises(ConnectError) as caught:
            await opened(SecretStr(f"ws://127.0.0.1:{here.sockets[0].getsockname()[1]}"))
    assert caught.value.http_status == 302
    assert not elsewhere.is_set()


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_messages_are_handed_over_from_the_first_on(size: int) -> None:
    messages = [b"first", b"second", b"in pieces", b"last"]
    frames = [from_server(Opcode.TEXT, messages[0]), from_server(Opcode.TEXT, messages[1])]
    late = (
        from_server(Opcode.TEXT, b"in ", fin=False)
        + from_server(Opcode.CONT, b"pieces")
        + from_server(Opcode.TEXT, messages[3])
    )

    def answer(key: str) -> list[bytes]:
        stream = accepted(key) + b"".join(frames)
        return [stream[at : at + size] for at in range(0, len(stream), size)]

    async with answering(answer) as (url, lines):
        agent = await opened(url)
        assert await agent.next_message() == messages[0]
        assert await agent.next_message() == messages[1]
        came: list[bytes] = []
        agent.on_message = came.append
        lines[0].write(from_server(Opcode.TEXT, b"now") + late)
        await until(lambda: bool(came))
        # What came in pieces waits, and so does what is behind it.
        assert came == [b"now"]
        assert await agent.next_message() == messages[2]
        assert await agent.next_message() == messages[3]
        lines[0].write(from_server(Opcode.TEXT, b"and on"))
        await until(lambda: len(came) == 2)
        lines[0].write(from_server(Opcode.TEXT, b"m" * 101))
        await until(lambda: agent.protocol.state is not State.OPEN)
        assert not agent.writable
        assert came == [b"now", b"and on"]
        await agent.abort()


@pytest.mark.parametrize(
    ("said", "told"),
    [(Frame(Opcode.CLOSE, b"\x03\xf0no quota"), (1008, "no quota")), (None, (1006, ""))],
    ids=["a close", "nothing"],
)
async def test_an_agent_that_closes_right_behind_its_answer_is_told(
    authority: trustme.CA, said: Frame | None, told: tuple[int, str]
) -> None:
    ours, theirs = client_tls(authority), server_tls(authority, "127.0.0.1")

    def serve(listener: socket.socket) -> None:
        # In a thread, so that all of it is there before anything is read.
        with listener.accept()[0] as line, theirs.wrap_socket(line, server_side=True) as tls:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += tls.recv(4096)
            goodbye = b"" if said is None else said.serialize(mask=False)
            tls.sendall(accepted(key_of(head.decode())) + goodbye)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(asyncio.to_thread(serve, listener))
        agent = await opened(SecretStr(f"wss://127.0.0.1:{listener.getsockname()[1]}/"), ours)
        with pytest.raises(ConnectionClosed) as closed:
            await agent.next_message()
        assert how_it_ended(closed.value) == told
        await agent.abort()
        await serving


@pytest.mark.parametrize("size", [1, 1000])
async def test_a_refusal_with_an_end_of_head_in_it_is_read_whole(size: int) -> None:
    body = b"no\r\n\r\nentry\r\n\r\n"
    head = f"HTTP/1.1 404 Not Found\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    stream = head + body
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    async with answering(lambda key: pieces) as (url, _):
        with pytest.raises(AgentNotFound):
            await opened(url)
