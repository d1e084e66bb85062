"""A front's hub and its workers, whose lines exist in memory only."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from ari_app.control.workers.hub import Hub
from ari_app.control.workers.membership import Membership
from ari_app.control.workers.roster import Roster
from ari_app.line.asterisk.names import worker_app
from ari_app.process.peers import Peer
from ari_app.records.record import CallRecord


class _End:
    """One end of a line: what is written arrives at the other in the next turn of the loop."""

    def __init__(self) -> None:
        self.peer: Peer
        self.other: _End
        self.closed = self.deaf = False

    def write(self, data: bytes) -> None:
        if not self.other.deaf:
            asyncio.get_running_loop().call_soon(self.other.take, data)

    def take(self, data: bytes) -> None:
        if not self.closed:
            self.peer.data_received(data)

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        for end in (self, self.other):
            if not end.closed:
                end.closed = True
                asyncio.get_running_loop().call_soon(end.peer.connection_lost, None)


def join(one: Peer, other: Peer) -> tuple[_End, _End]:
    """Lay a line between two."""
    ends = _End(), _End()
    ends[0].other, ends[1].other = ends[1], ends[0]
    for end, peer in zip(ends, (one, other), strict=True):
        end.peer = peer
        peer.connection_made(cast(asyncio.Transport, end))
    return ends


class FakeCalls:
    """As many calls as a test wants."""

    def __init__(self) -> None:
        self.draining = False
        self.running = 0
        self.records: dict[str, CallRecord] = {}

    def count(self) -> int:
        return self.running


class FakeWorker:
    """A worker that a test moves by hand.

    Attributes:
        takes: What it says of itself.
        frozen: It hears nothing.
    """

    def __init__(self, number: int) -> None:
        self.takes = True
        self.calls = FakeCalls()
        self.app = worker_app("voice-agent", number)
        self.membership = Membership(number, self.app, Path("nowhere"), lambda: self.takes)
        self.membership.serve(self.calls)
        self.line: _End

    def link(self, hub: Hub) -> None:
        """Come to a front."""
        self.line, _ = join(self.membership.new_peer(), hub.new_peer())

    def freeze(self) -> None:
        self.line.deaf = True

    def die(self) -> None:
        self.line.close()

    def take_in(self, channel: str) -> None:
        """Do what follows when a channel enters its application."""
        self.membership.entered(channel)
        self.calls.running += 1
        self.membership.taken_in(channel)

    def ends(self) -> None:
        """Let a call end."""
        self.calls.running -= 1
        self.membership.admission.changed()


async def settled() -> None:
    """Let everything arrive that is on its way."""
    for _ in range(10):
        await asyncio.sleep(0)


async def company(
    count: int = 2, *, max_calls: int = 10, per_second: float = 0.0
) -> tuple[Hub, list[FakeWorker]]:
    """A front with so many workers, which know each other."""
    hub = Hub(Roster(count), max_calls=max_calls, per_second=per_second, max_waiting=10)
    workers = [FakeWorker(number) for number in range(1, count + 1)]
    for worker in workers:
        worker.link(hub)
    await settled()
    return hub, workers
