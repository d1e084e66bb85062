"""The front's end of the lines to its workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from ari_app.call.admission import Admission, NoRoom
from ari_app.control.workers.messages import (
    Answered,
    Enter,
    Entered,
    FromFront,
    Granted,
    Has,
    HasNot,
    Hello,
    Leave,
    Offer,
    Places,
    Refused,
    Room,
    TakenIn,
    as_message,
    read,
)
from ari_app.control.workers.roster import Roster, Worker
from ari_app.process.peers import Message, Peer, listen

log = structlog.get_logger(__name__)

OFFER_SECONDS: Final = 0.15
"""A worker's loop that turns answers within a tick; what is late is tried elsewhere."""
ENTERED_SECONDS: Final = 0.5


class Place:
    """A place that is kept for a call until its worker counts it.

    Args:
        admission: Whose place it is.
    """

    def __init__(self, admission: Admission) -> None:
        self._kept = contextlib.ExitStack()
        self._kept.enter_context(admission.reserved())

    def give_back(self) -> None:
        """Keep it no longer. May be called twice."""
        self._kept.close()


class Hub:
    """All workers, and the places for all of their calls.

    Args:
        roster: What is known of them; kept up to date here.
        max_calls: How many calls there may be in all.
        per_second: How many may be placed in a second; 0: any number.
        max_waiting: How many wishes may wait for a place.
    """

    def __init__(
        self, roster: Roster, *, max_calls: int, per_second: float, max_waiting: int
    ) -> None:
        self.roster = roster
        self.max_calls = max_calls
        self.admission = Admission(
            max_calls,
            lambda: self.roster.used,
            per_second=per_second,
            max_waiting=max_waiting,
        )
        self._told_full: bool | None = None
        self._peers: dict[Peer, Worker | None] = {}
        self._of: dict[Worker, Peer] = {}
        self._offers: dict[int, asyncio.Future[bool]] = {}
        self._last_offer = 0
        self._awaited: dict[str, asyncio.Future[None]] = {}
        self._wishes: dict[tuple[Worker, int], asyncio.Task[None] | Place] = {}
        self._arriving: dict[str, tuple[Worker, Place | None]] = {}
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Let workers come."""
        self._server = await listen(
            path, lambda: Peer(self._told, on_open=self._came, on_closed=self._closed)
        )

    async def close(self) -> None:
        """Hang up. The workers call again, or another front."""
        if self._server is not None:
            self._server.close()
        for peer in tuple(self._peers):
            peer.close()
        for wish in tuple(self._wishes.values()):
            if isinstance(wish, asyncio.Task):
                wish.cancel()

    async def changed(self) -> None:
        """Wait until something is new of any worker."""
        await self._changed.wait()

    async def all_there(self, seconds: float) -> None:
        """Wait for all workers that there should be, so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self.roster) < self.roster.expected:
                    await self.changed()

    # --- arrivals

    async def place(self) -> Place | None:
        """Take a place for somebody who has come; None: all are taken."""
        try:
            await self.admission.enter(paced=False, wait_seconds=0)
        except NoRoom:
            return None
        return Place(self.admission)

    async def offer(self, worker: Worker, channel: str) -> bool:
        """Ask a worker whether it can take a channel; False also when it does not answer."""
        self._last_offer += 1
        number = self._last_offer
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._offers[number] = answer
        try:
            if not self._tell(worker, Offer(number, channel)):
                return False
            async with asyncio.timeout(OFFER_SECONDS):
                await answer
        except TimeoutError:
            log.warning("worker_does_not_answer", worker=worker.number)
            return False
        finally:
            del self._offers[number]
        return answer.result()

    @contextlib.contextmanager
    def expecting(
        self, worker: Worker, channel: str, place: Place | None
    ) -> Iterator[asyncio.Future[None]]:
        """Promise a channel to a worker.

        Yields:
            Done when it has come; see `entered`.
        """
        worker.promised += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited[channel] = future
        self._arriving[channel] = worker, place
        try:
            yield future
        finally:
            worker.promised -= 1
            self._awaited.pop(channel, None)

    async def entered(self, arrival: asyncio.Future[None]) -> bool:
        """Wait for the word of a worker that a channel has come."""
        try:
            async with asyncio.timeout(ENTERED_SECONDS):
                await asyncio.shield(arrival)
        except TimeoutError:
            return False
        return True

    def not_taken(self, channel: str) -> None:
        """Forget that a channel was promised to a worker; its place stays."""
        self._arriving.pop(channel, None)

    # --- what workers tell

    def _came(self, peer: Peer) -> None:
        self._peers[peer] = None

    def _closed(self, peer: Peer) -> None:
        worker = self._peers.pop(peer, None)
        if worker is None:
            return
        if self._of.get(worker) is peer:
            del self._of[worker]
        self.roster.went(worker)
        log.warning("worker_unlinked", worker=worker.number, pid=worker.pid)
        for key in [key for key in self._wishes if key[0] is worker]:
            self._leave(key)
        for channel in [each for each, (whose, _) in self._arriving.items() if whose is worker]:
            self._taken_in(channel)
        self._news()

    def _told(self, peer: Peer, message: Message) -> None:
        told, worker = read(message), self._peers.get(peer)
        if isinstance(told, Hello):
            self._hello(peer, told)
            return
        if worker is None:
            return
        match told:
            case Room(used, takes, draining):
                worker.used, worker.takes, worker.draining = used, takes, draining
                self._news()
            case Has(session_id, line_id):
                self.roster.has(worker, session_id, line_id)
            case HasNot(session_id):
                self.roster.has_not(worker, session_id)
            case Answered(offer, takes):
                if (answer := self._offers.get(offer)) is not None and not answer.done():
                    answer.set_result(takes)
            case Entered(channel):
                if (arrival := self._awaited.get(channel)) is not None and not arrival.done():
                    arrival.set_result(None)
            case TakenIn(channel):
                if channel in self._arriving and self._arriving[channel][0] is worker:
                    self._taken_in(channel)
            case Enter(wish, paced, wait_seconds):
                self._wishes[worker, wish] = asyncio.create_task(
                    self._enter(worker, wish, paced, wait_seconds), name="place"
                )
            case Leave(wish):
                self._leave((worker, wish))
            case _:
                pass

    def _hello(self, peer: Peer, hello: Hello) -> None:
        worker = Worker(hello.number, hello.pid, hello.app)
        before = self.roster.numbered(hello.number)
        if before is not None and (old := self._of.get(before)) is not None:
            # It has gone, though its line has not said so yet.
            old.close()
            self._closed(old)
        self._peers[peer] = worker
        self._of[worker] = peer
        self.roster.came(worker)
        log.info("worker_linked", worker=worker.number, pid=worker.pid)
        self._tell(worker, Places(self.admission.full))
        self._news()

    def _news(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self.admission.changed()
        self._tell_places()

    def _tell_places(self) -> None:
        full = self.admission.full
        if full is not self._told_full:
            self._told_full = full
            for worker in self.roster:
                self._tell(worker, Places(full))

    def _taken_in(self, channel: str) -> None:
        _, place = self._arriving.pop(channel)
        if place is not None:
            place.give_back()
            self._tell_places()

    async def _enter(self, worker: Worker, wish: int, paced: bool, wait_seconds: float) -> None:
        key = worker, wish
        try:
            await self.admission.enter(paced=paced, wait_seconds=wait_seconds)
        except NoRoom as error:
            self._wishes.pop(key, None)
            self._tell(worker, Refused(wish, error.code, error.retry_after))
            return
        self._wishes[key] = Place(self.admission)
        self._tell_places()
        if not self._tell(worker, Granted(wish)):
            self._leave(key)

    def _leave(self, key: tuple[Worker, int]) -> None:
        match self._wishes.pop(key, None):
            case asyncio.Task() as task:
                task.cancel()
            case Place() as place:
                place.give_back()
                self._tell_places()

    def _tell(self, worker: Worker, told: FromFront) -> bool:
        peer = self._of.get(worker)
        return peer is not None and peer.send(as_message(told))
