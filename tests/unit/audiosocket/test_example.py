"""The example in the package's docstring works as it stands there."""

from __future__ import annotations

import asyncio
import re
from uuid import UUID

import audiosocket
from audiosocket.frames import SLIN
from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock
from tests.unit.audiosocket.client import AudioSocketClient, pcm_source
from tests.waiting import PATIENCE_SECONDS, until


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
    clock = FrameClock()
    clock.start()
    client = AudioSocketClient(UUID("40325ec2-5efd-4bd3-805f-53576e581d13"), clock=clock)
    client.source = pcm_source(SLIN, spoken)
    await client.connect(host, port)
    await until(lambda: spoken in [heard.payload for heard in client.heard])
    client.send_digit("#")
    assert await asyncio.wait_for(client.wait_closed(), PATIENCE_SECONDS) == "hangup"
    await server.close()
    clock.stop()


def test_everything_public_is_there() -> None:
    assert all(hasattr(audiosocket, name) for name in audiosocket.__all__)
