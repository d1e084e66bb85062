from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from linekit.listener import Listener
from tests.waiting import PATIENCE_SECONDS, until


class Door:
    """A listener that keeps what it accepts."""

    def __init__(self, **options: Any) -> None:
        self.accepted: list[socket.socket] = []
        self.exhausted: list[int] = []
        self.clients: list[socket.socket] = []
        self.listener = Listener(
            self._accepted, exhausted=lambda e: self.exhausted.append(e.errno or 0), **options
        )

    async def open(self) -> None:
        self.address = await self.listener.start("127.0.0.1", 0)

    def _accepted(self, sock: socket.socket, host: str, port: int) -> None:
        assert (host, port) in [client.getsockname() for client in self.clients]
        assert not sock.getblocking()
        self.accepted.append(sock)

    def dial(self, number: int) -> None:
        self.clients += [socket.create_connection(self.address) for _ in range(number)]

    def close(self) -> None:
        self.listener.close()
        for sock in self.clients + self.accepted:
            sock.close()


async def test_a_crowd_is_let_in_a_few_at_a_time() -> None:
    door = Door(batch=4)
    await door.open()
    door.dial(10)
    numbers: list[int] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(door.accepted) < 10:
            await asyncio.sleep(0)
            if not numbers or numbers[-1] != len(door.accepted):
                numbers.append(len(door.accepted))
    assert [number for number in numbers if number] == [4, 8, 10]
    door.close()


async def test_out_of_descriptors_it_waits_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linekit.listener._EXHAUSTED_PAUSE_SECONDS", 0.01)
    door = Door()
    await door.open()
    accept = socket.socket.accept
    faults = [errno.EMFILE, errno.ECONNABORTED, errno.ENFILE]

    def fail(sock: socket.socket) -> object:
        if faults:
            raise OSError(faults.pop(0), "cannot")
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", fail)
    door.dial(1)
    await until(lambda: len(door.accepted) == 1)
    assert door.exhausted == [errno.EMFILE, errno.ENFILE]
    door.close()


async def test_closing_while_it_pauses_and_twice() -> None:
    door = Door(batch=1)
    await door.open()
    door.dial(2)
    await until(lambda: bool(door.accepted))
    door.listener.close()
    door.listener.close()
    with pytest.raises(ConnectionError):
        door.dial(1)
    await door.open()
    door.dial(1)
    await until(lambda: len(door.accepted) == 2)
    door.close()


async def test_a_callee_may_close_it() -> None:
    door = Door()

    def accepted(sock: socket.socket, host: str, port: int) -> None:
        sock.close()
        door.listener.close()

    door.listener = Listener(accepted, exhausted=lambda error: None)
    await door.open()
    door.dial(3)
    await until(lambda: not door.listener.listening)
    door.close()


async def test_every_address_of_a_name_on_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()

    async def both(host: str, port: int, **hints: object) -> list[object]:
        kind = socket.SOCK_STREAM
        return [
            (socket.AF_INET, kind, 6, "", ("127.0.0.1", port)),
            (socket.AF_INET, kind, 6, "", ("127.0.0.2", port)),
            (socket.AF_INET, kind, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(type(loop), "getaddrinfo", staticmethod(both), raising=False)
    door = Door()
    await door.open()
    door.clients += [
        socket.create_connection((host, door.address[1])) for host in ("127.0.0.1", "127.0.0.2")
    ]
    await until(lambda: len(door.accepted) == 2)
    with pytest.raises(RuntimeError, match="listens already"):
        await door.open()
    taken = Listener(lambda *new: None, exhausted=lambda error: None)
    with pytest.raises(OSError, match=r".+") as caught:
        await taken.start("127.0.0.2", door.address[1])
    assert caught.value.errno == errno.EADDRINUSE
    assert not taken.listening
    door.close()
