"""A Valkey, or Redis, of the tests' own: on a port of loopback, with nothing on the disk."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lab.asterisk.ports import free_port
from tests.unpacked import command_of, env_of

_NAMES = ("valkey-server", "redis-server")
_START_SECONDS = 10.0


class NoValkey(Exception):
    """There is none on this machine; the text says how to get it."""


@dataclass(slots=True)
class Valkey:
    """A server that runs."""

    command: list[str]
    env: dict[str, str]
    port: int
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"valkey://{self.host}:{self.port}"

    def start(self) -> None:
        where = ["--port", str(self.port), "--bind", self.host, "--protected-mode", "no"]
        self.process = subprocess.Popen(
            [*self.command, *where, "--save", "", "--appendonly", "no"],
            env=self.env,
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port)):
                return
            time.sleep(0.02)
        raise NoValkey(f"{self.command[0]} does not start")

    def stop(self) -> None:
        """End it; what it held is gone."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def valkey_command() -> str:
    """Return where the server is.

    Raises:
        NoValkey: It is not installed.
    """
    command = command_of(*_NAMES)
    if command is None:
        raise NoValkey("Neither valkey-server nor redis-server is here: apt-get install one")
    return command


@contextlib.contextmanager
def valkey_server(host: str = "127.0.0.1", within: Sequence[str] = ()) -> Iterator[Valkey]:
    """Run one; behind the command `within`, in another network namespace with the address `host`.

    Raises:
        NoValkey: It is not installed.
    """
    command = valkey_command()
    server = Valkey([*within, command], env_of(command), free_port(), host)
    server.start()
    try:
        yield server
    finally:
        server.stop()
