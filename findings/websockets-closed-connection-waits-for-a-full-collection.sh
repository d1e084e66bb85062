#!/bin/bash
# websockets: 55 kB of each closed connection wait for a full garbage collection.
#
# Software: websockets 17.4, its asyncio client and server, no options.
# Expected: when a connection is closed and nobody refers to it, all of it is freed at once, as
#           reference counts do it in CPython.
# Happens:  the connection object goes, its ClientProtocol does not: the parser, a generator, waits at
#           its last `yield` for ever, holds the protocol and is held by it. With the protocol stay
#           its buffers and zlib's state for permessage-deflate, which is on by default. What was
#           open for a while is in the oldest generation by then, so only a full collection frees
#           it. That one comes when a quarter as many objects as there were have been added, so the
#           larger the service, the later; with gc.disable(), for even pauses, never. The process
#           grows with each call, which looks like a leak.
# Way out:  `connection.protocol.parser.close()` once it is closed; or `gc.collect()` at a quiet time.
#
# Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen:
#   websockets 17.4, Python 3.11.7
#   of the ClientProtocols of 200 closed connections are still there:
#                       at once    after gc.collect(1)    after gc.collect()     freed by it
#   as it comes             200                    191                     0       10,907 kB
#   parser.close()            0                      0                     0          365 kB
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check websockets==17.4 2>/dev/null ||
    { echo 'The packages cannot be had here.'; exit 2; }
cat >"$folder/client.py" <<'PYTHON'
import asyncio
import gc
import sys
import tracemalloc
import weakref

from websockets.asyncio.client import connect


async def calls(url: str, parser_closed: bool) -> list[weakref.ref]:
    """200 connections at the same time, each with some messages; watch what becomes of them."""
    connections = [await connect(url) for _ in range(200)]
    for _ in range(20):
        for connection in connections:
            await connection.send("Hello. " * 100)
            await connection.recv()
    for connection in connections:
        await connection.close()
        await connection.wait_closed()
        if parser_closed:
            connection.protocol.parser.close()
    return [weakref.ref(connection.protocol) for connection in connections]


async def main() -> None:
    # A service that has been up for a while: many objects that stay.
    state = [[number, [number]] for number in range(200_000)]
    gc.collect()
    tracemalloc.start()
    gone = await calls(sys.argv[1], sys.argv[2] == "closed")
    await asyncio.sleep(0.2)
    before, _ = tracemalloc.get_traced_memory()
    there = sum(each() is not None for each in gone)
    gc.collect(1)
    younger = sum(each() is not None for each in gone)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    left = sum(each() is not None for each in gone)
    del state
    print(there, younger, left, round((before - after) / 1000))


asyncio.run(main())
PYTHON
"$folder/venv/bin/python" - "$folder/client.py" <<'PYTHON'
import asyncio
import platform
import sys

import websockets
from websockets.asyncio.server import ServerConnection, serve


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def main() -> None:
    print(f"websockets {websockets.__version__}, Python {platform.python_version()}")
    print("of the ClientProtocols of 200 closed connections are still there:")
    row = "{:<18} {:>8} {:>22} {:>21} {:>15}"
    print(row.format("", "at once", "after gc.collect(1)", "after gc.collect()", "freed by it"))
    seen = {}
    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for parser, name in (("open", "as it comes"), ("closed", "parser.close()")):
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, sys.argv[1], f"ws://127.0.0.1:{port}", parser),
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await client.communicate()
            numbers = [int(word) for word in output.split()]
            seen[parser] = numbers
            print(row.format(name, *numbers[:3], f"{numbers[3]:,} kB"))
    waits = seen["open"][0] > 150 and seen["open"][1] > 150 and seen["open"][2] == 0
    at_once = seen["closed"][:3] == [0, 0, 0]
    if not (waits and at_once):
        sys.exit("It behaves differently now.")


asyncio.run(main())
PYTHON
