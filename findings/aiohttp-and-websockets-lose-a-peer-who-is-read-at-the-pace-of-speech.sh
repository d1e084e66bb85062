#!/bin/bash
# aiohttp and websockets: who reads a peer's sound at the pace it is played loses the peer, who is alive.
#
# Software: aiohttp 3.14.5 with `heartbeat`, websockets 17.4 with its keepalive, both as clients; Python 3.11.
# Expected: pings find a peer who has gone. A voice agent sends a minute of speech in a second; a program
#           that takes it a message at a time, as it is played, lets the rest wait (that is what
#           flow control is for), and the pong, which came at once, keeps the connection.
# Happens:  the pong stands behind the sound that nobody has taken yet, and is not looked for there. aiohttp
#           reads a quarter of a megabyte at a time (24 s of mu-law) and takes nothing more off the network
#           until most of it has been read: with a heartbeat below that it closes in the middle, 1.5
#           heartbeats after the start, and throws away what had arrived. websockets (as it comes: a ping
#           every 20 s, 20 s for the answer) gives up after 40 s, while the caller still listens; what is
#           not read within 10 s after it is lost. A busy peer looks like a dead one.
# Way out:  a task that reads at once, whatever is played, into a queue of one's own; or heartbeat=None and
#           ping_interval=None, and data for a sign of life.
#
# Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen (60 messages of 1 s each, sent at once; the peer answers every ping and never closes):
#   aiohttp 3.14.5, websockets 17.4
#   client                                read of 60  closed after
#   aiohttp, heartbeat=10, mu-law                 16          16 s
#   aiohttp, the same, read at once               60             -
#   websockets, as it comes, linear               52          40 s
#   websockets, the same, read at once            60             -
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check aiohttp==3.14.5 websockets==17.4 2>pip ||
    { echo 'The packages cannot be had here.'; exit 2; }
cat >listen.py <<'PYTHON'
import asyncio
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import aiohttp
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

MESSAGES = 60
# A second of sound in base64: mu-law at 8 kHz, and linear at 16 kHz.
ULAW, PCM = "A" * 10_668, "A" * 42_668

Seen = tuple[int, int | None]
Read = Callable[[], Awaitable[object]]


async def agent(socket: ServerConnection) -> None:
    """Send all of it, then answer pings until the other side closes."""
    try:
        for _ in range(MESSAGES):
            await socket.send(ULAW if socket.request.path == "/ulaw" else PCM)
        await socket.wait_closed()
    except ConnectionClosed:
        pass


async def as_played(read: Read) -> int:
    """Read a message each second; return how many came."""
    came = 0
    while came < MESSAGES and await read() is not None:
        came += 1
        await asyncio.sleep(1)
    return came


async def at_once(read: Read) -> int:
    """Read into a queue, and play from that."""
    heard: asyncio.Queue[object] = asyncio.Queue()

    async def fill() -> None:
        while (message := await read()) is not None:
            heard.put_nowait(message)

    filling = asyncio.create_task(fill())
    came = await as_played(lambda: asyncio.wait_for(heard.get(), 5))
    filling.cancel()
    return came


async def with_aiohttp(url: str, play: Callable[[Read], Awaitable[int]]) -> Seen:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, heartbeat=10) as socket:

        async def read() -> object:
            message = await socket.receive()
            return message.data if message.type is aiohttp.WSMsgType.TEXT else None

        closed = asyncio.create_task(when(lambda: socket.closed))
        came = await play(read)
        return came, await told(closed, came)


async def with_websockets(url: str, play: Callable[[Read], Awaitable[int]]) -> Seen:
    async with connect(url, compression=None) as socket:

        async def read() -> object:
            try:
                return await socket.recv()
            except ConnectionClosed:
                return None

        closed = asyncio.create_task(when(lambda: socket.state is not State.OPEN))
        came = await play(read)
        return came, await told(closed, came)


async def told(closed: asyncio.Task[int], came: int) -> int | None:
    """Return after how many seconds it was closed; None: all came, and it is open."""
    if came == MESSAGES and not closed.done():
        closed.cancel()
        return None
    return await closed


async def when(over: Callable[[], bool]) -> int:
    """Wait; return after how many seconds it was over."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not over():
        await asyncio.sleep(0.1)
    return round(loop.time() - began)


async def main() -> int:
    async with serve(agent, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        names = (
            "aiohttp, heartbeat=10, mu-law",
            "aiohttp, the same, read at once",
            "websockets, as it comes, linear",
            "websockets, the same, read at once",
        )
        seen = await asyncio.gather(
            with_aiohttp(f"{url}/ulaw", as_played),
            with_aiohttp(f"{url}/ulaw", at_once),
            with_websockets(f"{url}/pcm", as_played),
            with_websockets(f"{url}/pcm", at_once),
        )
    print(f"aiohttp {version('aiohttp')}, websockets {version('websockets')}")
    row = "{:<37} {:>10}  {:>12}"
    print(row.format("client", "read of 60", "closed after"))
    for name, (came, after) in zip(names, seen, strict=True):
        print(row.format(name, came, "-" if after is None else f"{after} s"))
    aio, aio_once, plain, plain_once = seen
    same = aio[0] <= 18 and aio[1] is not None and 14 <= aio[1] <= 17
    same = same and plain[0] < MESSAGES and plain[1] is not None and 39 <= plain[1] <= 42
    same = same and aio_once == plain_once == (MESSAGES, None)
    return 0 if same else 1


if asyncio.run(main()):
    sys.exit("It behaves differently now.")
PYTHON
venv/bin/python listen.py
