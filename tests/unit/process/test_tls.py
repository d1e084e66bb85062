from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

import pytest
import trustme
import uvloop

from ari_app.process.tls import resume_sessions


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\n")
    await writer.drain()
    await reader.read()
    writer.close()


async def _resumed(client: ssl.SSLContext, server: ssl.SSLContext, hosts: list[str]) -> list[bool]:
    found = []
    listening = await asyncio.start_server(_greet, "127.0.0.1", 0, ssl=server)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        for host in hosts:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client, server_hostname=host
            )
            assert await reader.readline() == b"hello\n"
            found.append(writer.get_extra_info("ssl_object").session_reused)
            writer.close()
            await writer.wait_closed()
    return found


def _contexts(*names: str) -> tuple[ssl.SSLContext, ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    servers = []
    for _ in range(2):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(server)
        servers.append(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return resume_sessions(client), servers[0], servers[1]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_second_connection_to_a_host_is_resumed(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    client, server, another = _contexts("one.example", "two.example")

    async def connect() -> None:
        hosts = ["one.example", "one.example", "two.example", "one.example"]
        assert await _resumed(client, server, hosts) == [False, True, False, True]
        # One that does not know the ticket, as after a restart, is met as if for the first time.
        assert await _resumed(client, another, hosts[:2]) == [False, True]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(connect())


async def test_many_hosts_are_not_all_remembered() -> None:
    names = [f"host{number}.example" for number in range(20)]
    client, server, _ = _contexts(*names)

    assert not any(await _resumed(client, server, names))
    assert await _resumed(client, server, [names[-1], names[0]]) == [True, False]


async def test_a_wrong_name_is_refused_all_the_same() -> None:
    client, server, _ = _contexts("one.example")

    assert await _resumed(client, server, ["one.example"] * 2) == [False, True]
    with pytest.raises(ssl.SSLCertVerificationError):
        await _resumed(client, server, ["two.example"])
