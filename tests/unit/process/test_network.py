from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from ari_app.process.network import OwnThreadResolver, read_bounded, why_unreachable


@pytest.fixture
def silent_name(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The server of silent.example answers when the event is set."""
    answers = threading.Event()
    really_look_up = socket.getaddrinfo

    def look_up(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "silent.example":
            answers.wait()
            host = "127.0.0.1"
        return really_look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield answers
    answers.set()


async def test_an_address_is_found() -> None:
    found = await OwnThreadResolver().resolve("localhost", 8080, socket.AF_INET)
    assert [(entry["host"], entry["port"]) for entry in found] == [("127.0.0.1", 8080)]


async def test_a_name_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        with pytest.raises(OSError, match="not known"):
            await OwnThreadResolver().resolve("nobody.invalid")
    with pytest.raises(OSError, match="not the name of a host"):
        await OwnThreadResolver().resolve("x" * 70 + ".example")


async def test_a_silent_server_holds_up_only_its_own(silent_name: threading.Event) -> None:
    resolver = OwnThreadResolver(max_lookups=3)
    waiting = [asyncio.create_task(resolver.resolve("silent.example")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="too many"):
        await resolver.resolve("localhost")
    # Others, and the loop's own threads, are free.
    assert await OwnThreadResolver().resolve("localhost")
    assert await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    waiting[0].cancel()
    silent_name.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1][0]["host"] == "127.0.0.1"  # type: ignore[index]
    assert await resolver.resolve("localhost")


async def test_a_deadline_ends_the_wait(silent_name: threading.Event) -> None:
    connector = aiohttp.TCPConnector(resolver=OwnThreadResolver())
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await session.get("http://silent.example/")


async def test_a_name_that_nobody_tells_in_time_is_not_known(
    silent_name: threading.Event,
) -> None:
    resolver = OwnThreadResolver(seconds=0.01)
    with pytest.raises(socket.gaierror, match="no name server has answered within"):
        await resolver.resolve("silent.example")


async def test_an_answer_after_the_end_of_the_loop_disturbs_nobody(
    silent_name: threading.Event,
) -> None:
    def begin() -> threading.Thread:
        before = set(threading.enumerate())
        loop = asyncio.new_event_loop()
        task = loop.create_task(OwnThreadResolver().resolve("silent.example"))
        loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
        (thread,) = set(threading.enumerate()) - before - {threading.current_thread()}
        return thread

    thread = await asyncio.to_thread(begin)
    silent_name.set()
    await asyncio.to_thread(thread.join)


async def test_of_an_answer_so_much_is_read_and_no_more() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=bytes(100_000))

    app = web.Application()
    app.router.add_get("/", answer)
    async with TestClient(TestServer(app)) as client:
        for most, read in ((100_000, bytes(100_000)), (99_999, None), (0, None)):
            async with client.get("/") as response:
                assert await read_bounded(response, most) == read


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"+OK ready\r\n\r\n", "what answers speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "what answers speaks no HTTP"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "the answer is HTTP 403"),
    ],
)
async def test_why_nobody_was_reached_repeats_nothing_of_a_secret_path(
    answer: bytes, why: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError) as error:
            await session.ws_connect(f"http://127.0.0.1:{port}/hooks/hunter2?token=hunter3")
    assert why_unreachable(error.value) == why


async def test_an_address_that_cannot_be_used_is_not_repeated() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.InvalidURL) as error:
            await session.get("http:///hooks/hunter2")
    assert why_unreachable(error.value) == "its address cannot be used"
