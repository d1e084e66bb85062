"""The example in the package's docstring works as it stands there."""

from __future__ import annotations

import asyncio
import re
from uuid import UUID

import audiosocket
from audiosocket.frames import SLIN
from audiosocket.server import AudioSocketServer
from lab.load.audiosocket_client import AudioSocketClient, Heard, pcm_source
from tests.waiting import PATIENCE_SECONDS


async def test_the_echo_server() -> None:
    assert audiosocket.__doc__ is not None
    example = re.search(r"```python\n(.*?)```", audiosocket.__doc__, re.DOTALL)
    assert example is not None
    names: dict[str, object] = {}
    exec(example.group(1), names)
    serve = names["serve"]
    assert callable(serve)
    server = await serve("127.0.0.1", 0)
    assert isinstance(server, AudioSocketServer)
    assert server.address is not None
    host, port = server.address

    spoken = b"".join(i.to_bytes(2, "little") for i in range(1, 161))
    echoed = asyncio.Event()
    heard: list[bytes] = []

    def listen(frame: Heard) -> None:
        if any(frame.payload):
            heard.append(frame.payload)
            echoed.set()

    client = AudioSocketClient(
        UUID("40325ec2-5efd-4bd3-805f-53576e581d13"),
        source=pcm_source(SLIN, spoken),
        on_audio=listen,
    )
    await client.connect(host, port)
    await asyncio.wait_for(echoed.wait(), PATIENCE_SECONDS)
    assert heard[0] == spoken
    client.send_digit("#")
    assert await asyncio.wait_for(client.wait_closed(), PATIENCE_SECONDS) == "hangup"
    await server.close()


def test_everything_public_is_there() -> None:
    assert all(hasattr(audiosocket, name) for name in audiosocket.__all__)
