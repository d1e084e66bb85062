"""What stands in the network: two Asterisks, three machines of ours, stores, a balancer, phones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
from pydantic import SecretStr

from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook, AgentProfile, PracticeAgent, PracticeConfig
from lab.practice_agent.formats import Samples
from lab.softphone import Phone
from tests.cluster.network import HERE, Network
from tests.e2e.harness import KEY
from tests.unit.control.cluster.valkey import Valkey, valkey_server
from tests.unit.haproxy import config_with, haproxy
from tests.unit.records.store.postgres import Cluster, cluster
from tests.unpacked import env_of
from tests.waiting import until

AGENT_HZ: Final = 1000
MACHINES: Final = {"m1": "a1", "m2": "a1", "m3": "a2"}
"""Which machine has which Asterisk."""
_KEY: Final = "a-key-of-all-machines"
_BALANCER: Final = "balancer"


class Hum:
    """A voice that hums for two minutes and a half a letter."""

    def speak(self, text: str, rate_hz: int) -> Samples:
        at = np.arange(150 * len(text) * rate_hz) / rate_hz
        samples: Samples = (8000 * np.sin(2 * np.pi * AGENT_HZ * at)).astype("<i2")
        return samples


HUMMING: Final = AgentProfile.model_validate(
    {
        "dialogue": {"first_message": "oo", "turns": [{"say": "o"}]},
        "formats": {"user_input": "pcm_8000", "agent_output": "pcm_8000"},
        "delivery": {"speed": 1.2},
    }
)


@dataclass(slots=True)
class Machine:
    """One machine of ours; what it keeps outlives its processes."""

    name: str
    command: list[str]
    env: dict[str, str]
    folder: Path
    output: list[str] = field(default_factory=list)
    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None

    @property
    def api(self) -> str:
        return f"http://{self.env['API_BIND']}"

    async def start(self) -> None:
        """Start it, and wait until it takes calls."""
        self.output.clear()
        process = self._process = await asyncio.create_subprocess_exec(
            *self.command,
            env=self.env,
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        self._reading = asyncio.create_task(self._read(process.stdout))
        async with asyncio.timeout(30):
            while not await self.is_ready():
                if process.returncode is not None:
                    raise RuntimeError(f"{self.name} does not start: {''.join(self.output)}")
                await asyncio.sleep(0.05)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        with (self.folder / "log").open("a") as log:
            while line := await stream.readline():
                self.output.append(line.decode())
                log.write(line.decode())
                log.flush()

    async def is_ready(self) -> bool:
        try:
            return (await self.ask("GET", "/health/ready"))[0] == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def ask(self, method: str, path: str) -> tuple[int, str]:
        return await ask(method, self.api + path)

    def said(self, event: str) -> list[dict[str, Any]]:
        """What was logged under this name."""
        lines = [line for line in self.output if f'"event": "{event}"' in line]
        return [json.loads(line) for line in lines]

    @property
    def is_front(self) -> bool:
        # One that was killed does not say that it is the front no more; the next begins anew.
        said = r'"event": "front(_no_more)?"|"place": "front".*"event": "worker_started"'
        lines = [line for line in self.output if re.search(said, line)]
        return bool(lines) and '"event": "front"' in lines[-1]

    def pids(self) -> dict[str, int]:
        """Return its processes by their places, `front`, `worker 1`: those started last."""
        return {each["place"]: each["pid"] for each in self.said("worker_started")}

    def kill(self, place: str) -> None:
        """Kill one of its processes: `front`, `worker 1`."""
        inside = ["nsenter", "--target", str(self._init), "--pid", "--mount"]
        subprocess.run([*inside, "kill", "-KILL", str(self.pids()[place])], check=True)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process that a person would send it to."""
        os.kill(self._init, number)

    async def lose_power(self) -> None:
        """End all of its processes at once; may be called again."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    @property
    def _init(self) -> int:
        """The first of its processes, as it is numbered here."""
        assert self._process is not None
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


async def ask(method: str, url: str) -> tuple[int, str]:
    """Send a request with the key of all machines."""
    headers = {"Authorization": f"Bearer {_KEY}"}
    timeout = aiohttp.ClientTimeout(total=5)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
        session.request(method, url) as response,
    ):
        return response.status, await response.text()


@dataclass(slots=True)
class World:
    """All of it, running."""

    network: Network
    asterisks: dict[str, LabAsterisk]
    machines: dict[str, Machine]
    valkey: Valkey
    postgres: Cluster
    phone: Phone
    balancer: str

    def front(self, asterisk: str) -> Machine | None:
        """Return which machine is the front of an Asterisk."""
        of = [self.machines[name] for name, its in MACHINES.items() if its == asterisk]
        return next((each for each in of if not each.has_ended and each.is_front), None)

    def other(self, machine: Machine) -> Machine:
        """Return another machine of the same Asterisk."""
        its = MACHINES[machine.name]
        [name] = [name for name, at in MACHINES.items() if at == its and name != machine.name]
        return self.machines[name]

    def rows(self, where: str = "true") -> int:
        """Return how many calls the database has."""
        return int(self.postgres.sql(f"SELECT count(*) FROM calls WHERE {where}", "calls_1"))


@contextlib.asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """Have all of it run; `folder` keeps what the machines log."""
    network = Network()
    async with contextlib.AsyncExitStack() as stack:
        valkey = stack.enter_context(
            valkey_server(network.add("valkey", 5), network.within("valkey"))
        )
        postgres = stack.enter_context(
            cluster(network.add("postgres", 6), network.within("postgres"))
        )
        database = postgres.new_database()
        config = PracticeConfig(host=HERE, api_key=SecretStr(KEY), book=AgentBook(default=HUMMING))
        agent = await stack.enter_async_context(PracticeAgent(config, voice=Hum()))
        asterisks = {}
        for number, name in enumerate(("a1", "a2"), 21):
            host = network.add(name, number)
            asterisk = LabAsterisk(host=host, within=network.within(name))
            asterisks[name] = await stack.enter_async_context(asterisk)
        phone = await stack.enter_async_context(Phone(HERE, username="lab"))
        machines = {}
        for number, name in enumerate(MACHINES, 11):
            home = folder / name
            home.mkdir()
            host = network.add(name, number)
            asterisk = asterisks[MACHINES[name]]
            env = {
                "PATH": os.environ["PATH"],
                **asterisk.settings,
                "AUDIOSOCKET_BIND": f"{host}:9092",
                "API_BIND": f"{host}:8080",
                "API_KEY": _KEY,
                "ELEVENLABS_BASE_URL": agent.base_url,
                "ELEVENLABS_API_KEY": KEY,
                "ELEVENLABS_AGENT_ID": "agent_default",
                "DATABASE_URL": database,
                "RECORDS_JOURNAL_DIR": str(home / "journal"),
                "RECORDINGS_DIR": str(home / "recordings"),
                "RECORD_CALLS": "asked",
                "WORKERS": "2",
                "MAX_CONCURRENT_CALLS": "50",
                "CLUSTER_URL": valkey.url,
                "CLUSTER_SECRET": "a-secret-of-all-machines",
                "LOG_FORMAT": "json",
            }
            for each in ("journal", "recordings"):
                (home / each).mkdir()
            command = [*network.alone(name), sys.executable, "-m", "ari_app", "serve"]
            machine = Machine(name, [*command, "--env-file", "/dev/null"], env, home)
            machines[name] = machine
            stack.push_async_callback(machine.lose_power)
        program = [sys.executable, "-m", "ari_app", "db", "upgrade", "--env-file", "/dev/null"]
        subprocess.run(  # noqa: ASYNC221
            program, env=machines["m1"].env, check=True, cwd=folder, stdout=subprocess.DEVNULL
        )
        await asyncio.gather(*(each.start() for each in machines.values()))
        balancer = await stack.enter_async_context(_balancer(network, machines, folder))
        made = World(network, asterisks, machines, valkey, postgres, phone, balancer)
        await until(lambda: made.front("a1") and made.front("a2"))
        yield made


@contextlib.asynccontextmanager
async def _balancer(
    network: Network, machines: dict[str, Machine], folder: Path
) -> AsyncIterator[str]:
    """Run HAProxy as deploy/haproxy has it; where it answers."""
    host = network.add(_BALANCER, 8)
    program = haproxy()
    assert program is not None
    text = config_with({name: machine.env["API_BIND"] for name, machine in machines.items()})
    config = folder / "haproxy.cfg"
    config.write_text(text.replace("maxconn 20000", "maxconn 2000"))
    with (folder / "haproxy.log").open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220
            [*network.within(_BALANCER), program, "-db", "-f", str(config)],
            env=env_of(program),
            stdout=output,
            stderr=output,
        )
        try:
            url = f"http://{host}:8080"
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        if (await ask("GET", f"{url}/sessions"))[0] == 200:
                            break
                    await asyncio.sleep(0.1)
            yield url
        finally:
            process.kill()
            process.wait()
