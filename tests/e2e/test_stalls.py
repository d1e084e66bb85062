"""What stalls beside a call: whoever reads the log, the disk of the recordings, a tool, a service
before the call, the server of a name. The phone does not notice."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import re
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lab.asterisk import LabAsterisk
from lab.practice_agent import PracticeAgent
from lab.softphone import Phone
from lab.softphone.call import Call
from lab.softphone.sounds import babble
from lab.web import serving
from tests.e2e.harness import bench, book, practice_config
from tests.e2e.test_serve import environment
from tests.recordings import sides_of
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.e2e

LOUD = -35.0
LONG = " ".join(["This is a long story that the caller listens to with patience."] * 12)
STORY = {"dialogue": {"first_message": LONG, "turns": [{"say": LONG}]}}


def assert_unbroken(call: Call, seconds: float) -> None:
    """Packets came all the time. The bounds are for a busy machine: a loop that is held up sends
    nothing for as long as the stall lasts."""
    stats = call.stats()
    assert stats.packets > seconds * 50 * 0.8
    assert stats.gap_max_ms < 2000


def _client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))


def unread_bytes(pipe: int) -> int:
    waiting = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0]


@contextlib.asynccontextmanager
async def served_unread(
    env: dict[str, str],
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A service whose output goes into a small pipe that nobody reads; and that pipe."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ari_app", "serve", "--env-file", "/dev/null"),
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=writing,
        stderr=writing,
    )
    os.close(writing)
    try:
        yield process, reading
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(reading)


async def test_a_log_that_nobody_reads(asterisk: LabAsterisk) -> None:
    async with PracticeAgent(practice_config(book(**STORY))) as agent, Phone() as phone:
        env = environment(asterisk, agent.base_url)
        api = f"http://{env['API_BIND']}"
        async with served_unread(env) as (process, pipe), _client() as http:

            async def get(path: str) -> str:
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(api + path) as response:
                        return await response.text()
                return ""

            for _ in range(400):
                if '"ready"' in await get("/health/ready"):
                    break
                await asyncio.sleep(0.05)
            # Each of these writes a line, more than the pipe holds.
            for _ in range(60):
                await get("/health/live")
            # What comes together is written together, some hundredths of a second later, or not at
            # all where there is no room for all of it.
            await asyncio.sleep(0.2)
            stuck = unread_bytes(pipe)
            assert stuck > 0
            call = await phone.call(f"sip:100@{asterisk.sip_host}:{asterisk.sip_port}")
            await call.wait_for_sound(LOUD, since=0)
            await asyncio.sleep(10)
            assert_unbroken(call, 10)
            assert unread_bytes(pipe) == stuck, "nothing more was written, all that time"
            assert re.search(r"^ari_app_log_lines_dropped_total 0\.0$", await get("/metrics"), re.M)
            await call.hang_up()
            await asterisk.wait_until_empty(2)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0
            assert time.monotonic() - began < 10


@pytest.fixture
def stalled_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Writing a recording waits until the event is set."""
    turns = threading.Event()
    really_write = os.pwrite

    def write(descriptor: int, data: bytes, offset: int) -> int:
        turns.wait()
        return really_write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", write)
    yield turns
    turns.set()


def recorded(folder: Path) -> list[Path]:
    """The finished recordings."""
    return list(folder.glob("*/*.wav"))


async def test_a_disk_that_stalls_under_a_recording(
    asterisk: LabAsterisk, tmp_path: Path, stalled_disk: threading.Event
) -> None:
    async with bench(asterisk, book(**STORY), recordings_dir=tmp_path) as b:
        call = await b.call()
        await call.wait_for_sound(LOUD, since=0)
        await asyncio.sleep(4)
        assert_unbroken(call, 4)
        await call.hang_up()
        await b.all_gone()
        session = await b.session()
        assert b.bridge.recordings is not None
        writer = b.bridge.recordings.writer
        assert writer.unfinished == 1
        assert recorded(tmp_path) == []
        stalled_disk.set()
        await until(lambda: writer.unfinished == 0)
        assert writer.stats.saved == 1
        (path,) = recorded(tmp_path)
        assert path.name.endswith(f"-{session.session_id}.wav")
        assert len(sides_of(path)) / 8000 > 4


@contextlib.asynccontextmanager
async def slow_service() -> AsyncIterator[tuple[str, list[str]]]:
    """It answers the first question about a call, and after that none; its address, and what it
    was asked for."""
    asked: list[str] = []
    over = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if asked != ["/precall"]:
            await over.wait()
        return web.json_response({"type": "conversation_initiation_client_data"})

    app = web.Application()
    app.router.add_route("*", "/{path}", answer)
    async with serving(app) as url:
        try:
            yield url, asked
        finally:
            over.set()


async def test_a_slow_tool_and_a_slow_service_before_a_call_beside_one_that_talks(
    asterisk: LabAsterisk, tmp_path: Path
) -> None:
    tool = {"name": "slow", "say_on_error": LONG}
    agents = book(dialogue={"first_message": "Hello.", "turns": [{"tool": tool}]})
    async with slow_service() as (url, asked):
        tools_file = tmp_path / "tools.yaml"
        tools_file.write_text(
            f"tools:\n- {{name: slow, description: Takes its time., url: {url}/slow, "
            "timeout_seconds: 3}\n"
        )
        changes: dict[str, Any] = {"tools_file": tools_file, "precall_url": f"{url}/precall"}
        async with bench(asterisk, agents, precall_timeout_seconds=2, **changes) as b:
            call = await b.call()
            began = time.monotonic()
            await call.wait_for_sound(LOUD, since=0)
            await call.wait_for_silence(500)
            await call.play(babble(1000, -20))
            await until(lambda: asked == ["/precall", "/slow"])
            record = await b.conversation()
            late = await b.dial()
            await until(lambda: asked == ["/precall", "/slow", "/precall"])
            await asyncio.wait_for(late.answered(), PATIENCE_SECONDS)
            await late.wait_for_sound(LOUD, since=0)
            await until(lambda: record.tools[0].answered_at is not None)
            assert record.tools[0].is_error is True
            assert_unbroken(call, time.monotonic() - began - 0.5)
            await call.hang_up()
            await late.hang_up()
            await b.all_gone()


async def test_names_whose_server_is_silent_hold_up_neither_calls_nor_other_names(
    asterisk: LabAsterisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    really_look_up = socket.getaddrinfo

    def look_up(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "silent.example":
            answers.wait()
        return really_look_up("localhost" if host == "silent.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    changes: dict[str, Any] = {
        "precall_url": "http://silent.example:1",
        "precall_timeout_seconds": 1,
    }
    try:
        async with bench(asterisk, **changes) as b:
            calls = await asyncio.gather(*(b.call() for _ in range(8)))
            for call in calls:
                await call.wait_for_sound(LOUD, since=0)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.get_running_loop().getaddrinfo("localhost", 80)
            await asyncio.gather(*(call.hang_up() for call in calls))
            await b.all_gone(5)
    finally:
        answers.set()
