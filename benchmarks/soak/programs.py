"""The processes of a soak that are ended, stopped and started again while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.processes import BenchmarkError, Process, make_certificate, running
from benchmarks.soak.plan import CallPlan
from benchmarks.soak.world import book
from lab.asterisk.ports import free_port

_F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", None)
_PIPE_BYTES = 4096
_READY_SECONDS = 30.0
_POLL_SECONDS = 0.05


class AgentProgram:
    """The practice agent, which can be killed and comes back at the same address."""

    def __init__(self, folder: Path, http: aiohttp.ClientSession) -> None:
        self._folder = folder
        self._http = http
        self._port = free_port()
        self._certificate = make_certificate(folder)
        self._tls = ssl.create_default_context(cafile=str(self._certificate.authority))
        self._exit = contextlib.AsyncExitStack()
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """For `ELEVENLABS_BASE_URL`."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def authority(self) -> Path:
        """For `ELEVENLABS_CA_FILE`."""
        return self._certificate.authority

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [
            sys.executable, "-m", "benchmarks.agent_process",
            "--certificate", str(self._certificate.chain),
            "--port", str(self._port), "--book", json.dumps(book()),
        ]  # fmt: skip
        self._process = await self._exit.enter_async_context(
            running("agent", command, self._folder)
        )
        await self._process.first_line()

    async def kill(self) -> None:
        """End it at once, with all its conversations."""
        os.kill(self.pid, signal.SIGKILL)
        await self.close()

    async def close(self) -> None:
        """End it. May be called again."""
        await self._exit.aclose()

    async def set_profile(self, agent_id: str, profile: Mapping[str, Any]) -> None:
        """Replace an agent, for conversations to come."""
        url = f"{self.url}/practice/agents/{agent_id}"
        async with self._http.put(url, json=profile, ssl=self._tls) as response:
            if response.status >= 400:
                raise BenchmarkError(f"the agent takes no profile: {await response.text()}")

    async def open_conversations(self) -> int:
        """How many are under way, among the last thousand."""
        url = f"{self.url}/practice/conversations"
        async with self._http.get(url, ssl=self._tls) as response:
            conversations = (await response.json())["conversations"]
        return sum(conversation["close_code"] is None for conversation in conversations)


class ServiceProgram:
    """An `ari-app serve`, at ports that it keeps, whose log somebody has to read."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self._folder = folder
        self.api_url = f"http://127.0.0.1:{free_port()}"
        self.line_port = free_port()
        self._settings = {
            "API_BIND": self.api_url.removeprefix("http://"),
            "AUDIOSOCKET_BIND": f"127.0.0.1:{self.line_port}",
            "LOG_FORMAT": "json",
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder.absolute()}/calls.db",
            **settings,
        }
        self._process: Process | None = None
        self._log = LogPipe(folder / "service.log")

    @property
    def pid(self) -> int:
        """The process that was started: the parent, where there is one."""
        assert self._process is not None
        return self._process.pid

    @property
    def worker_pid(self) -> int:
        """The process that serves: the child, or the process itself where it has none."""
        assert self._process is not None
        return next(iter(self._process.children), self._process.pid)

    @property
    def is_supervised(self) -> bool:
        """Whether the process that serves is somebody's child, and will be replaced."""
        return self.worker_pid != self.pid

    @property
    def log(self) -> LogPipe:
        """What it says."""
        return self._log

    @asynccontextmanager
    async def running(self, http: aiohttp.ClientSession) -> AsyncIterator[None]:
        """Run it; ready when it takes calls."""
        command = [sys.executable, "-m", "ari_app", "serve", "--env-file", os.devnull]
        with self._log.open() as errors:
            async with running(
                "serve", command, self._folder, env=self._settings, errors=errors
            ) as process:
                self._process = process
                self._log.close_writer()
                await self.ready(http)
                yield

    async def ready(self, http: aiohttp.ClientSession) -> None:
        """Wait until it takes calls. Raises BenchmarkError."""
        for _ in range(round(_READY_SECONDS / _POLL_SECONDS)):
            if self._process is not None and self._process.returncode is not None:
                raise BenchmarkError(f"ari-app serve has ended: {self._log.tail()}")
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with http.get(f"{self.api_url}/health/ready") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(_POLL_SECONDS)
        raise BenchmarkError(f"ari-app serve does not become ready: {self._log.tail()}")


class LogPipe:
    """The reading end of a program's log, which can stop reading for a while.

    The pipe is as small as the kernel makes it, so that a reader who stops is soon felt.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._reader = self._writer = -1

    @contextlib.contextmanager
    def open(self) -> Iterator[int]:
        """Make the pipe and begin to read; gives the end to write to."""
        self._reader, self._writer = os.pipe()
        if _F_SETPIPE_SZ is not None:
            fcntl.fcntl(self._reader, _F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(self._reader, False)
        self.resume()
        try:
            yield self._writer
        finally:
            self.stall()
            self._copy()
            self.close_writer()
            os.close(self._reader)

    def close_writer(self) -> None:
        """Leave the writing end to the program."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def stall(self) -> None:
        """Stop reading."""
        asyncio.get_running_loop().remove_reader(self._reader)

    def resume(self) -> None:
        """Read on."""
        asyncio.get_running_loop().add_reader(self._reader, self._copy)

    def tail(self) -> str:
        """The last that was said."""
        self._copy()
        return self.path.read_text(errors="replace")[-500:].strip() if self.path.exists() else ""

    def _copy(self) -> None:
        with contextlib.suppress(BlockingIOError), self.path.open("ab") as file:
            while data := os.read(self._reader, 65536):
                self.bytes += file.write(data)
            # The program has closed its end, all of it.
            asyncio.get_running_loop().remove_reader(self._reader)


class CallersProgram:
    """The phones' process (`benchmarks.soak.callers`)."""

    def __init__(self, process: Process, callee_port: int) -> None:
        self.process = process
        self.callee_port = callee_port

    async def begin(self, sip: str, api: str, key: str, dead_air_seconds: float) -> None:
        """Say where Asterisk and the service are, and its key."""
        await self._tell(sip=sip, api=api, key=key, dead_air_seconds=dead_air_seconds)

    async def call(self, plan: CallPlan) -> None:
        """Make a call."""
        await self._tell(do="call", plan=plan.to_json())

    async def end_calls(self) -> None:
        """Let all phones hang up."""
        await self._tell(do="end")

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What happens, until the process ends."""
        while line := await self.process.next_line():
            event: dict[str, Any] = json.loads(line)
            yield event

    async def _tell(self, **order: Any) -> None:
        await self.process.write_line(json.dumps(order))


@asynccontextmanager
async def running_callers(folder: Path) -> AsyncIterator[CallersProgram]:
    """Start the phones; they know nobody yet."""
    command = [sys.executable, "-m", "benchmarks.soak.callers"]
    async with running("callers", command, folder) as process:
        yield CallersProgram(process, (await process.first_line())["port"])
