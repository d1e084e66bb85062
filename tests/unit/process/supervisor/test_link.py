from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from ari_app.process.beat import BEAT_SECONDS
from ari_app.process.supervisor.parent import ParentLink
from ari_app.process.supervisor.policy import Order, Standing
from tests.waiting import until


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    parent, worker = socket.socketpair()
    parent.setblocking(False)
    worker.setblocking(False)
    with parent, worker:
        yield parent, worker


class Heard:
    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.orphaned = 0

    def lose(self) -> None:
        self.orphaned += 1


def link_to(worker: socket.socket, heard: Heard) -> ParentLink:
    return ParentLink(worker, heard.orders.append, heard.lose)


async def test_it_beats_and_says_how_it_stands(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    parent, worker = ends
    with link_to(worker, Heard()) as link:
        assert parent.recv(64) == b"s"
        link.stand(Standing.SERVING)
        assert parent.recv(64) == b"u"
        await asyncio.sleep(2.5 * BEAT_SECONDS)
        beats = parent.recv(64)
        assert beats and set(beats) == set(b"u")
    assert parent.recv(64) == b"", "it hangs up"
    link.stand(Standing.REPLACED)


async def test_it_takes_orders(ends: tuple[socket.socket, socket.socket]) -> None:
    parent, worker = ends
    heard = Heard()
    with link_to(worker, heard):
        parent.send(Order.DRAIN.value + Order.END.value)
        await until(lambda: len(heard.orders) == 2)
    assert heard.orders == [Order.DRAIN, Order.END]
    assert heard.orphaned == 0


async def test_it_learns_that_the_parent_is_gone_once(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    parent, worker = ends
    heard = Heard()
    with link_to(worker, heard):
        parent.close()
        await until(lambda: heard.orphaned == 1)
        await asyncio.sleep(2 * BEAT_SECONDS)
    assert heard.orphaned == 1


async def test_a_parent_that_does_not_read_holds_nothing_up(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    parent, worker = ends
    with pytest.raises(BlockingIOError):
        while True:
            worker.send(b"s" * 1024)
    with link_to(worker, Heard()) as link:
        link.stand(Standing.SERVING)
        while True:
            try:
                parent.recv(1 << 20)
            except BlockingIOError:
                break
        link.stand(Standing.SERVING)
        assert parent.recv(64) == b"u"
