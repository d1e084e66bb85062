from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from rich.console import Console

from ari_app.agent.elevenlabs.client import AgentClient
from ari_app.agent.interface import Briefing
from ari_app.errors import ConfigError
from lab.practice_agent.command import PostCall, run_practice_agent
from tests.unit.agent.elevenlabs.told import Told
from tests.waiting import PATIENCE_SECONDS, until


@asynccontextmanager
async def running(
    bind: str = "127.0.0.1:0", *, dialogue: Path | None = None, key: str | None = None
) -> AsyncIterator[tuple[str, io.StringIO]]:
    """A practice agent: its URL, and what is shown in the terminal."""
    screen = io.StringIO()
    task = asyncio.create_task(
        run_practice_agent(bind, dialogue, key, Console(file=screen, width=200))
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (found := re.search(r"ELEVENLABS_BASE_URL=(\S+)", screen.getvalue())):
                assert not task.done(), task.exception()
                await asyncio.sleep(0.01)
        yield found[1], screen
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await task


async def test_it_says_where_it_listens_and_ends_on_a_signal() -> None:
    async with running() as (url, screen):
        assert url.startswith("http://127.0.0.1:")
        assert f"The practice agent listens at {url}. Ctrl-C stops it." in screen.getvalue()
    with pytest.raises(aiohttp.ClientConnectionError):
        async with aiohttp.ClientSession() as session, session.get(url):
            pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_what_is_said_is_shown(tmp_path: Path) -> None:
    dialogue = tmp_path / "dialogue.yaml"
    dialogue.write_text("default:\n  dialogue:\n    first_message: 'Hello [you].'\n    turns: []\n")
    async with (
        running(dialogue=dialogue) as (url, screen),
        AgentClient(url, "any key") as client,
    ):
        connection = await client.connect(Briefing("agent_default"), Told())
        await until(lambda: "Hello" in screen.getvalue())
        await connection.close()
        assert re.search(r"^\w{6} +\d+\.\d\d  agent  Hello \[you\]\.$", screen.getvalue(), re.M)


async def test_it_asks_for_the_key_that_it_was_given() -> None:
    async with running(key="the-key") as (url, _):
        path = f"{url}/v1/convai/conversation/get-signed-url?agent_id=agent_default"
        async with aiohttp.ClientSession() as session:
            for key, status in (("wrong", 401), ("wröng", 401), ("the-key", 200)):
                async with session.get(path, headers={"xi-api-key": key}) as response:
                    assert response.status == status


async def test_a_webhook_needs_a_secret_and_that_is_not_looked_for_in_a_file() -> None:
    with pytest.raises(ConfigError, match=r"WEBHOOK_SECRET in the environment \(\.env is not read"):
        await run_practice_agent("127.0.0.1:0", None, None, Console(), PostCall("http://h/"))


@pytest.mark.parametrize(
    ("bind", "sentence"),
    [
        ("8765", "The practice agent cannot start: --bind must be host:port"),
        ("127.0.0.1:99999", "The practice agent cannot start: --bind must be host:port"),
        ("192.0.2.1:8765", r"^192.0.2.1:8765 cannot be used: Cannot assign requested address\."),
    ],
)
async def test_an_address_that_cannot_be_used(bind: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        await run_practice_agent(bind, None, None, Console(file=io.StringIO()))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_host_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConfigError, match=r"^nowhere:1 cannot be used: Name or service not known"):
        await run_practice_agent("nowhere:1", None, None, Console(file=io.StringIO()))


async def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"^{bind} cannot be used: Address already in use"):
            await run_practice_agent(bind, None, None, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    "content", [None, b"\xff\xfe", b"default: [", b"default:\n  dialogue: 5\n"], ids=repr
)
async def test_a_dialogue_that_cannot_be_used(tmp_path: Path, content: bytes | None) -> None:
    dialogue = tmp_path / "dialogue.yaml"
    if content is not None:
        dialogue.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^The practice agent cannot start: .*dialogue\.yaml"):
        await run_practice_agent("127.0.0.1:0", dialogue, None, Console(file=io.StringIO()))


async def test_nothing_is_left_when_it_is_cancelled() -> None:
    before = asyncio.all_tasks()
    screen = io.StringIO()
    task = asyncio.create_task(run_practice_agent("127.0.0.1:0", None, None, Console(file=screen)))
    await until(lambda: "listens" in screen.getvalue())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
