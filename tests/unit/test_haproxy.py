"""deploy/haproxy before three small machines: who gets requests, and whose streams live.

A machine here is a process of its own, so that it can be killed and frozen.
"""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.asterisk.ports import free_port
from tests.unit.haproxy import config_with, haproxy
from tests.unpacked import env_of
from tests.waiting import PATIENCE_SECONDS, wait_until

MACHINE = """
import asyncio, sys
from aiohttp import web

status = 200

async def ready(request):
    return web.Response(status=status)

async def become(request):
    global status
    status = int(request.match_info["status"])
    return web.Response()

async def name(request):
    return web.Response(text=sys.argv[1])

async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b".\\n")
        await asyncio.sleep(0.1)

app = web.Application()
app.add_routes([
    web.get("/health/ready", ready), web.get("/become/{status}", become),
    web.get("/name", name), web.get("/stream", stream),
])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


class Balanced:
    """HAProxy, and the machines behind it."""

    def __init__(self, command: str, folder: Path) -> None:
        self.port, self.control = free_port(), folder / "control"
        self.machines = {f"m{n}": free_port() for n in (1, 2, 3)}
        self.exit = contextlib.ExitStack()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for each in self.machines:
            self.start(each)
        text = config_with({each: f"127.0.0.1:{port}" for each, port in self.machines.items()})
        text = text.replace("bind :8080", f"bind 127.0.0.1:{self.port}")
        text = text.replace("maxconn 20000", f"maxconn 200\n    stats socket {self.control}")
        config = folder / "haproxy.cfg"
        config.write_text(text)
        self.proxy = subprocess.Popen(
            [command, "-db", "-f", str(config)],
            env=env_of(command),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start(self, machine: str) -> None:
        command = [sys.executable, "-c", MACHINE, str(self.machines[machine])]
        self.processes[machine] = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def mend(self) -> None:
        """Have all machines up, whatever was done to them."""
        for machine, process in self.processes.items():
            if process.poll() is not None:
                self.start(machine)
        wait_until(lambda: all(self.answers(each) for each in self.machines))
        for machine in self.machines:
            self.become(machine, 200)
        wait_until(self.all_up)

    def answers(self, machine: str) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.ask("/name", self.machines[machine]).read())
        return False

    def close(self) -> None:
        for process in (self.proxy, *self.processes.values()):
            process.kill()
            process.wait()

    def kill(self, machine: str) -> None:
        self.processes[machine].kill()
        self.processes[machine].wait()

    def signal(self, machine: str, number: signal.Signals) -> None:
        self.processes[machine].send_signal(number)

    def become(self, machine: str, status: int) -> None:
        self.ask(f"/become/{status}", self.machines[machine]).read()

    def states(self) -> dict[str, str]:
        return {name: row[17] for name, row in self._rows().items()}

    def open_at(self, machine: str) -> int:
        """Return how many requests a machine is answering."""
        return int(self._rows()[machine][4])

    def _rows(self) -> dict[str, list[str]]:
        with socket.socket(socket.AF_UNIX) as control:
            try:
                control.connect(str(self.control))
            except OSError:
                return {}
            control.sendall(b"show stat\n")
            text = b"".join(iter(lambda: control.recv(65536), b"")).decode()
        rows = [line.split(",") for line in text.splitlines() if line.startswith("machines,m")]
        return {row[1]: row for row in rows}

    def all_up(self) -> bool:
        return set(self.states().values()) == {"UP"}

    def ask(self, path: str, port: int | None = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(
            "127.0.0.1", port or self.port, timeout=PATIENCE_SECONDS
        )
        self.exit.callback(connection.close)
        connection.request("GET", path)
        response = connection.getresponse()
        self.exit.callback(response.close)
        return response

    def names(self, times: int) -> Counter[str]:
        """Say which machines answer so many requests; what is no answer has its status."""
        by_port = {str(port): machine for machine, port in self.machines.items()}
        found: Counter[str] = Counter()
        for _ in range(times):
            response = self.ask("/name")
            text = response.read().decode()
            found[by_port.get(text, str(response.status))] += 1
        return found

    def stream_of(self, machine: str) -> http.client.HTTPResponse:
        """Open a stream at this machine, through the balancer."""
        others = [each for each in self.machines if each != machine]
        for each in others:
            self.become(each, 503)
        wait_until(lambda: [self.states()[each] for each in others] == ["NOLB", "NOLB"])
        stream = self.ask("/stream")
        assert stream.readline() == b".\n"
        for each in others:
            self.become(each, 200)
        wait_until(self.all_up)
        return stream


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    command = haproxy()
    if command is None:
        pytest.skip("HAProxy is not installed here: apt-get install haproxy")
    with contextlib.closing(Balanced(command, tmp_path_factory.mktemp("haproxy"))) as made:
        yield made


@pytest.fixture
def balanced(shared: Balanced) -> Iterator[Balanced]:
    shared.mend()
    with shared.exit:
        yield shared


def test_a_machine_that_drains_gets_nothing_new_and_keeps_its_streams(balanced: Balanced) -> None:
    stream = balanced.stream_of("m1")
    balanced.become("m1", 503)
    wait_until(lambda: balanced.states()["m1"] == "NOLB")
    assert set(balanced.names(8)) == {"m2", "m3"}
    # Also past what lay on its way.
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert stream.readline() == b".\n"


def test_a_dead_machine_costs_no_request(balanced: Balanced) -> None:
    balanced.kill("m1")
    # At once, before any check has found out.
    found = balanced.names(20)
    assert set(found) == {"m2", "m3"}


def test_a_frozen_machine_is_found_and_its_streams_end(balanced: Balanced) -> None:
    stream = balanced.stream_of("m1")
    balanced.signal("m1", signal.SIGSTOP)
    wait_until(lambda: balanced.states()["m1"] == "DOWN")
    while stream.readline():
        pass
    assert set(balanced.names(8)) == {"m2", "m3"}
    balanced.signal("m1", signal.SIGCONT)


def test_a_machine_that_comes_back_is_not_flooded(balanced: Balanced) -> None:
    balanced.kill("m1")
    wait_until(lambda: balanced.states()["m1"] == "DOWN")
    streams = [balanced.ask("/stream") for _ in range(12)]
    balanced.start("m1")
    wait_until(balanced.all_up)
    streams += [balanced.ask("/stream") for _ in range(12)]
    # What is open at each, the checks apart: without slowstart it would have all of the last 12.
    got = balanced.open_at("m1")
    assert got <= 6
    assert all(stream.status == 200 for stream in streams)
