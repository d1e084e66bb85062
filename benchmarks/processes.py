"""The programs of a benchmark, each a process of its own, and what the kernel says of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import trustme

from ari_app.errors import AppError

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_CALLS_PER_SECOND = 10.0
_JOIN_SECONDS = 30.0
_LOOK_SECONDS = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkError(AppError):
    """A benchmark cannot be run here."""

    default_code: ClassVar[str] = "benchmark"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for loopback, and the authority that it is trusted by."""

    authority: Path
    chain: Path


def make_certificate(folder: Path) -> Certificate:
    """Write a fresh certificate into a folder."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    certificate = Certificate(folder / "authority.pem", folder / "server.pem")
    authority.cert_pem.write_to_path(str(certificate.authority))
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate.chain))
    return certificate


class Process:
    """A program that runs; it ends with the `running` that started it."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.returncode

    async def first_line(self) -> dict[str, Any]:
        """The first line of its output, in JSON. Raises BenchmarkError where none comes in 20 s."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = await self.next_line()
        except TimeoutError:
            raise BenchmarkError(f"{self.log.stem} says nothing; see {self.log}") from None
        if not line:
            text = self.log.read_text(errors="replace").strip()
            raise BenchmarkError(f"{self.log.stem} has ended: {text[-500:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    @property
    def children(self) -> list[int]:
        """The processes that it has started: the worker of `ari-app serve`."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    async def next_line(self) -> bytes:
        """The next line of its output, however long it takes; empty at the end."""
        assert self._process.stdout is not None
        return await self._process.stdout.readline()

    async def write_line(self, line: str) -> None:
        """Give it a line of input. Raises OSError when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    def cpu_seconds(self) -> float:
        """CPU time that it and its children have used, user and system, over all threads; with what
        children had used that have ended."""
        return _cpu_seconds(self.pid, ended=True) + sum(map(_cpu_seconds, self.children))

    def memory_mb(self) -> float:
        """Memory of it and its children in MB (10^6 bytes); what they share counts once.

        What is shared with other programs counts in proportion (Pss in proc(5)).
        """
        return sum(map(_memory_mb, (self.pid, *self.children)))

    async def stop(self) -> None:
        """End it: SIGTERM twice, which ends running calls too, and SIGKILL if it takes too long."""
        for _ in range(2):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            await asyncio.sleep(_POLL_SECONDS)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            for pid in (self.pid, *self.children):  # workers outlive `ari-app serve`
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await self._process.wait()


def _is_front(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "ari-app-front\n"


def _cpu_seconds(pid: int, *, ended: bool = False) -> float:
    """CPU time of a process; with that of its children that have ended, if asked for.

    Its own is told to the nanosecond: /proc tells it in ticks of 10 ms, and one call takes six of
    them in five seconds.
    """
    # The kernel's number for the CPU clock of another process (`clock_getcpuclockid`).
    seconds = time.clock_gettime((~pid << 3) | 2)
    if ended:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += sum(map(int, fields[13:15])) / _TICKS
    return seconds


def _memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise BenchmarkError("the kernel does not tell what memory a process has")


@asynccontextmanager
async def running(
    name: str,
    command: Sequence[str],
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    cores: set[int] | None = None,
    errors: int | None = None,
    at: Path | None = None,
) -> AsyncIterator[Process]:
    """Run a program on some of the cores, in the folder `at`; what it complains of goes to a file
    in `folder`, or to the descriptor `errors`.

    Should this process die, the kernel ends the program too, where util-linux is there to ask it.
    """
    log = folder / f"{name}.log"
    setpriv = shutil.which("setpriv")
    prefix = () if setpriv is None else (setpriv, "--pdeathsig", "KILL")
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *prefix,
            *command,
            env={**_plain_environment(), **(env or {})},
            cwd=at,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=file if errors is None else errors,
            limit=1 << 20,
        )
    running_process = Process(process, log)
    if cores is not None:
        os.sched_setaffinity(process.pid, cores)
    try:
        yield running_process
    finally:
        await running_process.stop()


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores the measured process may use, and which the others."""

    measured: set[int]
    others: set[int]

    @staticmethod
    def split() -> Cores:
        """One core for what is measured, the rest for what drives it; all for both on one core."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) == 1:
            return Cores(set(cores), set(cores))
        return Cores({cores[0]}, set(cores[1:]))


@dataclass(frozen=True, slots=True)
class Agent:
    """A practice agent's process."""

    process: Process
    url: str
    authority: Path
    session: aiohttp.ClientSession
    tls: ssl.SSLContext

    async def conversations(self) -> list[dict[str, Any]]:
        """Summaries of all conversations so far."""
        url = f"{self.url}/practice/conversations"
        async with self.session.get(url, ssl=self.tls) as response:
            found: list[dict[str, Any]] = (await response.json())["conversations"]
            return found


def agent_settings(url: str, authority: Path) -> dict[str, str]:
    """What a service must be told to reach its agents here."""
    return {
        "ELEVENLABS_BASE_URL": url,
        "ELEVENLABS_CA_FILE": str(authority),
        "ELEVENLABS_API_KEY": "practice-key",
    }


@asynccontextmanager
async def running_agent(
    folder: Path, profile: Mapping[str, Any], *, cores: set[int] | None = None
) -> AsyncIterator[Agent]:
    """A practice agent over TLS that plays one profile (`benchmarks.agent_process`)."""
    certificate = make_certificate(folder)
    command = [
        sys.executable, "-m", "benchmarks.agent_process",
        "--certificate", str(certificate.chain), "--profile", json.dumps(profile),
    ]  # fmt: skip
    async with running("agent", command, folder, cores=cores) as process:
        url = (await process.first_line())["url"]
        tls = _trusting(certificate.authority)
        async with aiohttp.ClientSession() as session:
            yield Agent(process, url, certificate.authority, session, tls)


@dataclass(frozen=True, slots=True)
class Load:
    """A load generator's process."""

    process: Process
    url: str
    username: str
    password: str
    session: aiohttp.ClientSession

    @property
    def settings(self) -> dict[str, str]:
        """What a service must be told to take it for its Asterisk."""
        return {"ARI_URL": self.url, "ARI_USERNAME": self.username, "ARI_PASSWORD": self.password}

    async def begin(self, count: int) -> None:
        """Let so many more callers call, one after the other."""
        await self.post("calls", count=count, per_second=_CALLS_PER_SECOND)

    async def joined(self, count: int) -> bool:
        """Wait until so many callers talk with their agents; whether they do in time."""
        for _ in range(round((_JOIN_SECONDS + count / _CALLS_PER_SECOND) / _LOOK_SECONDS)):
            await asyncio.sleep(_LOOK_SECONDS)
            if (await self.report())["talking"] >= count:
                return True
        return False

    async def post(self, path: str, **parameters: str | float) -> None:
        """Tell it something."""
        query = {name: str(value) for name, value in parameters.items()}
        async with self.session.post(f"{self.url}/load/{path}", params=query) as response:
            response.raise_for_status()

    async def end_calls(self) -> None:
        """Let every caller hang up."""
        async with self.session.delete(f"{self.url}/load/calls") as response:
            response.raise_for_status()

    async def report(self) -> dict[str, Any]:
        """What its callers have heard."""
        async with self.session.get(f"{self.url}/load/report") as response:
            response.raise_for_status()
            found: dict[str, Any] = await response.json()
            return found


@asynccontextmanager
async def running_load(
    folder: Path, *, cores: set[int] | None = None, module: str = "lab.load"
) -> AsyncIterator[Load]:
    """A process that behaves like an Asterisk full of calls (`lab.load`), or like another far end
    that is steered in the same way."""
    username, password = "load", secrets.token_urlsafe(18)
    command = [sys.executable, "-m", module]
    if module == "lab.load":
        command += ["--username", username]
    environment = {"LOAD_PASSWORD": password}
    async with running("load", command, folder, env=environment, cores=cores) as process:
        url = (await process.first_line())["url"]
        async with aiohttp.ClientSession() as session:
            yield Load(process, url, username, password, session)


@dataclass(frozen=True, slots=True)
class Service:
    """An `ari-app serve`: a parent and its worker."""

    process: Process
    api: str
    """`host:port` of its HTTP."""
    audiosocket: str
    """`host:port` of its AudioSocket server; empty where it has none."""

    @property
    def api_url(self) -> str:
        """Where its HTTP is."""
        return f"http://{self.api}"

    @property
    def worker(self) -> int:
        """The process that serves the calls."""
        (pid,) = self.process.children
        return pid

    @property
    def starts(self) -> int:
        """How many workers it has started so far; more than at first: one was replaced."""
        return self.process.log.read_bytes().count(b'"worker_started"')

    def front_cpu_seconds(self) -> float:
        """CPU time of the process that stands before several workers; 0 where there is none."""
        return sum(_cpu_seconds(pid) for pid in self.process.children if _is_front(pid))


@asynccontextmanager
async def running_service(
    folder: Path,
    settings: Mapping[str, str],
    *,
    cores: set[int] | None = None,
    build: Path | None = None,
) -> AsyncIterator[Service]:
    """`ari-app serve` with these settings, on free ports; ready when it serves.

    Args:
        build: The sources that it is run from; None: those that this runs from.
    """
    environment = {
        "AUDIOSOCKET_BIND": "127.0.0.1:0",
        "API_BIND": "127.0.0.1:0",
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/calls.db",
        "LOG_FORMAT": "json",
        **settings,
    }
    if build is not None:
        # Before what is installed.
        environment["PYTHONPATH"] = str(build)
    command = [sys.executable, "-m", "ari_app", "serve", "--env-file", os.devnull]
    async with running("serve", command, folder, env=environment, cores=cores, at=build) as process:
        serving = await _serving(process)
        service = Service(process, serving["api"], serving.get("audiosocket", ""))
        await _ready(service)
        yield service


async def compile_sources(folder: Path) -> None:
    """Compile what a service would be compiled with, where its sources know how: half a minute, the
    first time."""
    if (folder / "scripts" / "compiled.py").is_file():
        compiling = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "scripts.compiled", cwd=folder
        )
        await compiling.wait()


def busy_seconds(cores: set[int]) -> float:
    """Since the machine started: how long these cores have worked, whoever for."""
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            # user, nice, system, idle, iowait, irq, softirq, steal
            busy += sum(int(field) for field in (*fields[:3], *fields[5:8]))
    return busy / _TICKS


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for certificates, logs and the call log of one run."""
    with tempfile.TemporaryDirectory(prefix="ari-app-bench-") as name:
        yield Path(name)


async def _serving(process: Process) -> dict[str, Any]:
    """Wait for the log line that names the addresses."""
    while True:
        for line in process.log.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                entry: dict[str, Any] = json.loads(line)
                # Of several workers the front has the address.
                if entry.get("event") in ("serving", "front_serving") and "api" in entry:
                    return entry
        if process.returncode is not None:
            text = process.log.read_text(errors="replace").strip()
            raise BenchmarkError(f"ari-app serve has ended: {text[-500:]}")
        await asyncio.sleep(_POLL_SECONDS)


async def _ready(service: Service) -> None:
    """Wait until it has Asterisk's events: a call before that would go past it."""
    async with aiohttp.ClientSession() as session:
        for _ in range(round(_START_SECONDS / _POLL_SECONDS)):
            async with session.get(f"{service.api_url}/health/ready") as response:
                ready = await response.json()
                # A build of before there were several workers has no warnings.
                warnings = ready.get("warnings", ())
                missing = [text for text in warnings if text.startswith("worker ")]
                if response.status == 200 and not missing:
                    return
            await asyncio.sleep(_POLL_SECONDS)
    raise BenchmarkError("ari-app serve does not become ready")


def _trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))


def _plain_environment() -> dict[str, str]:
    """Our environment without what would change the settings of the service."""
    keep = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "SYSTEMROOT")
    return {name: os.environ[name] for name in keep if name in os.environ}
