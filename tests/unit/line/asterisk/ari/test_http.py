from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.line.asterisk.ari.http import Answer, AnswerReader, Connections, Lost, NotReached

OK = b"HTTP/1.1 200 OK\r\nServer: Asterisk/22\r\nContent-Length: 5\r\n\r\n12345"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n"
    b"3;name=value\r\n123\r\nA\r\n4567890abc\r\n0\r\n\r\n"
)
ANSWERS = [
    (OK, Answer(200, "OK", b"12345", True)),
    (CHUNKED, Answer(200, "OK", b"1234567890abc", True)),
    (CHUNKED[:-2] + b"Trailer: x\r\n\r\n", Answer(200, "OK", b"1234567890abc", True)),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Answer(204, "No Content", b"", True)),
    (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, "No Content", b"", True)),
    (b"HTTP/1.1 404 \r\ncontent-length:0\r\n\r\n", Answer(404, "", b"", True)),
    (b"HTTP/1.1 404\r\ncontent-length:0\r\n\r\n", Answer(404, "", b"", True)),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, Answer(200, "OK", b"12345", True)),
    (
        OK.replace(b"Server: Asterisk/22", b"Connection: foo, Close"),
        Answer(200, "OK", b"12345", False),
    ),
    (OK.replace(b"HTTP/1.1", b"HTTP/1.0"), Answer(200, "OK", b"12345", False)),
    (
        OK.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Server: ", b"Connection: keep-alive, "),
        Answer(200, "OK", b"12345", True),
    ),
]


@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 160), max_size=6))
def test_any_split_of_an_answer_is_the_same_answer(
    sample: tuple[bytes, Answer], cuts: list[int]
) -> None:
    data, expected = sample
    reader = AnswerReader()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(places)]
    found = [reader.feed(piece) for piece in pieces]
    assert found == [None] * (len(pieces) - 1) + [expected]


def test_an_answer_that_ends_with_its_connection() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\n123") is None
    assert reader.end() == Answer(200, "OK", b"123", False)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", OK[:-1], CHUNKED[:-4]])
def test_an_answer_that_is_cut_off_is_none(data: bytes) -> None:
    reader = AnswerReader()
    assert not reader.began
    assert reader.feed(data) is None
    assert reader.end() is None
    assert reader.began is bool(data)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"x" * 70_000,
        OK + b"6",
        OK.replace(b"5\r\n", b"-5\r\n"),
        OK.replace(b"5\r\n", b"99999999999\r\n"),
        OK.replace(b"5\r\n", b"5\r\nContent-Length: 6\r\n"),
        CHUNKED.replace(b"Chunked", b"gzip, chunked"),
        CHUNKED.replace(b"3;", b"x;"),
        CHUNKED.replace(b"3;", b"4;"),
        CHUNKED.replace(b"3;", b"fffffff;"),
        CHUNKED.split(b"3;")[0] + b"3;" + b"x" * 70_000,
    ],
)
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(Lost) as caught:
        AnswerReader().feed(data)
    assert caught.value.began


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def pool(serve: Serve, *, keep_seconds: float = 5.0) -> AsyncIterator[Connections]:
    serving: set[asyncio.Task[None]] = set()

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve_and_close, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made = Connections("127.0.0.1", port, None, limit=2, keep_seconds=keep_seconds)
    try:
        yield made
    finally:
        made.close()
        server.close()
        await asyncio.gather(*serving)


class Server:
    """Answers each request with the number of its connection."""

    def __init__(self, *, closes: bool = False, says_more: bool = False) -> None:
        self.connections = self.open = self.most_open = 0
        self.left = asyncio.Event()
        self._closes, self._says_more = closes, says_more

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        number = str(self.connections).encode()
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                how = b"Connection: close\r\n" if self._closes else b""
                writer.write(b"HTTP/1.1 200 OK\r\n" + how + b"Content-Length: 1\r\n\r\n" + number)
                if self._says_more:
                    await asyncio.sleep(0.01)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!")
        except (asyncio.IncompleteReadError, OSError):
            pass
        self.open -= 1
        self.left.set()


REQUEST = b"GET / HTTP/1.1\r\n\r\n"


async def test_a_connection_is_used_again() -> None:
    server = Server()
    async with pool(server) as connections:
        assert [(await connections.exchange(REQUEST)).body for _ in range(3)] == [b"1"] * 3


async def test_there_are_no_more_connections_than_may_be() -> None:
    server = Server()
    async with pool(server) as connections:
        await asyncio.gather(*(connections.exchange(REQUEST) for _ in range(10)))
        assert server.most_open == server.connections == connections.idle == 2


async def test_a_connection_that_the_server_closes_is_not_kept() -> None:
    async with pool(Server(closes=True)) as connections:
        assert (await connections.exchange(REQUEST)).body == b"1"
        assert connections.idle == 0
        assert (await connections.exchange(REQUEST)).body == b"2"


async def test_what_nobody_asked_for_is_no_answer() -> None:
    async with pool(Server(says_more=True)) as connections:
        assert (await connections.exchange(REQUEST)).body == b"1"
        await asyncio.sleep(0.1)
        assert (await connections.exchange(REQUEST)).body == b"2"


async def test_an_idle_connection_is_closed() -> None:
    server = Server()
    async with pool(server, keep_seconds=0.05) as connections:
        await connections.exchange(REQUEST)
        assert server.open == 1
        async with asyncio.timeout(5):
            await server.left.wait()
        assert connections.idle == 0
        assert (await connections.exchange(REQUEST)).body == b"2"


async def test_whoever_gives_up_takes_the_connection_along() -> None:
    asked = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        assert await reader.read() == b""
        gone.set()

    gone = asyncio.Event()
    async with pool(never) as connections:
        waiting = asyncio.create_task(connections.exchange(REQUEST))
        await asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await gone.wait()
        assert connections.idle == 0


async def test_closing_ends_what_waits() -> None:
    asked = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()

    async with pool(never) as connections:
        waiting = asyncio.create_task(connections.exchange(REQUEST))
        await asked.wait()
        connections.close()
        connections.close()
        with pytest.raises(Lost):
            await waiting


async def test_nobody_is_there(closed_port: int) -> None:
    connections = Connections("127.0.0.1", closed_port, None, limit=2, keep_seconds=1.0)
    with pytest.raises(NotReached) as caught:
        await connections.exchange(REQUEST)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
