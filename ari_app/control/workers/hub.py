"""The front's end of the lines to its workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog

from ari_app.call.admission import RETRY_SECONDS, Admission, NoRoom
from ari_app.control.workers.messages import (
    Answered,
    Deleted,
    DeletionTold,
    Enter,
    Entered,
    Forget,
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
    Spending,
    TakenIn,
    as_message,
    read,
)
from ari_app.control.workers.roster import Roster, Worker
from ari_app.process.peers import Message, Peer, listen
from ari_app.records.spend.shares import Change, Share

log = structlog.get_logger(__name__)

OFFER_SECONDS: Final = 0.15
"""A worker's loop that turns answers within a tick; what is late is tried elsewhere."""
ENTERED_SECONDS: Final = 0.5
_TOUCH_SECONDS: Final = 3600.0
"""What clears old files away (systemd-tmpfiles) spares sockets that somebody listens at, and knows
ours by the name that it had before `listen` gave it its own: to it this one is days old."""
_COMMON_SECONDS: Final = 0.5
"""So often somebody who waits asks again for a place that all machines have in common."""


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


class Promise:
    """A channel that a worker is to get.

    Args:
        worker: Who gets it.
        place: Its place.
        arrived: Whether it is there, once the worker has said so, or has gone.

    Attributes:
        kept: It stays the worker's until that has told what has become of it.
    """

    def __init__(self, worker: Worker, place: Place | None, arrived: asyncio.Future[bool]) -> None:
        self.worker = worker
        self.place = place
        self.arrived = arrived
        self.kept = False

    def keep(self) -> None:
        """Let it stay the worker's."""
        self.kept = True

    async def is_there(self) -> bool:
        """Wait for the word of the worker; False: it does not come."""
        try:
            async with asyncio.timeout(ENTERED_SECONDS):
                await asyncio.shield(self.arrived)
        except TimeoutError:
            return False
        return self.arrived.result()

    def told(self, *, there: bool) -> None:
        """Note whether it is there."""
        if not self.arrived.done():
            self.arrived.set_result(there)


class Hub:
    """All workers, and the places for all of their calls.

    Args:
        roster: What is known of them; kept up to date here.
        max_calls: How many calls there may be in all.
        per_second: How many may be placed in a second; 0: any number.
        max_waiting: How many wishes may wait for a place.

    Attributes:
        common: Takes one of the places that all machines have in common; None: there are none.
        on_calls: Called when the calls of the roster are others than before.
        on_deleted: Tells other machines of a call that a worker deletes, with the paths of its
            recordings; whether they hear it. None: there are no others.
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
        self.common: Callable[[], Awaitable[bool]] | None = None
        self._max_waiting = max_waiting
        self._wait_for_common = 0
        self.on_calls: Callable[[], None] = lambda: None
        self.on_deleted: Callable[[str, list[str]], Awaitable[bool]] | None = None
        self._deletions: set[asyncio.Task[None]] = set()
        self._told_full: bool | None = None
        self._peers: dict[Peer, Worker | None] = {}
        self._of: dict[Worker, Peer] = {}
        self._offers: dict[int, asyncio.Future[bool]] = {}
        self._last_offer = 0
        self._wishes: dict[tuple[Worker, int], asyncio.Task[None] | Place] = {}
        self._promises: dict[str, Promise] = {}
        # By number. Of one that has died it stays so until the next one has told.
        self._shares: dict[int, Share] = {}
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._touching: asyncio.TimerHandle | None = None

    async def start(self, path: Path) -> None:
        """Accept workers on a Unix socket."""
        self._server = await listen(path, self.new_peer)
        self._touch(path)

    def _touch(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            os.utime(path)
        loop = asyncio.get_running_loop()
        self._touching = loop.call_later(_TOUCH_SECONDS, self._touch, path)

    def new_peer(self) -> Peer:
        """Return our end of a line to somebody who comes."""
        return Peer(self._told, on_open=self._came, on_closed=self._closed)

    async def close(self) -> None:
        """Hang up. The workers call again, or another front."""
        # They have their calls still.
        self.on_calls = lambda: None
        if self._server is not None:
            self._server.close()
        if self._touching is not None:
            self._touching.cancel()
        for peer in tuple(self._peers):
            peer.close()
        for wish in tuple(self._wishes.values()):
            if isinstance(wish, asyncio.Task):
                wish.cancel()
        for deletion in self._deletions:
            deletion.cancel()

    async def changed(self) -> None:
        """Wait until something is new of any worker."""
        await self._changed.wait()

    async def all_there(self, seconds: float) -> None:
        """Wait until all workers that are expected have come, for `seconds` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self.roster) < self.roster.expected:
                    await self.changed()

    # --- arrivals

    async def place(self) -> Place | None:
        """Take a place for somebody who has come; None: all are taken."""
        try:
            return await self._take(paced=False, wait_seconds=0)
        except NoRoom:
            return None

    async def _take(self, *, paced: bool, wait_seconds: float) -> Place:
        """Take a place here, and one of those that all machines have in common.

        Raises:
            NoRoom: There is none.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_seconds
        if (place := await self._try(paced=paced, wait_seconds=wait_seconds)) is not None:
            return place
        waiting = self.admission.waiting + self._wait_for_common
        if wait_seconds <= 0 or waiting >= self._max_waiting:
            raise NoRoom("capacity", RETRY_SECONDS)
        self._wait_for_common += 1
        try:
            while (left := until - loop.time()) > 0:
                await asyncio.sleep(min(left, _COMMON_SECONDS))
                left = max(0.0, until - loop.time())
                if (place := await self._try(paced=paced, wait_seconds=left)) is not None:
                    return place
        finally:
            self._wait_for_common -= 1
        raise NoRoom("queue_timeout", RETRY_SECONDS)

    async def _try(self, *, paced: bool, wait_seconds: float) -> Place | None:
        """Take a place here, and a common one; None: there is none of those.

        Raises:
            NoRoom: There is none here.
        """
        await self.admission.enter(paced=paced, wait_seconds=wait_seconds)
        place = Place(self.admission)
        is_taken = False
        try:
            is_taken = self.common is None or await self.common()
        finally:
            if not is_taken:
                if paced:
                    self.admission.give_turn_back()
                place.give_back()
        return place if is_taken else None

    async def offer(self, worker: Worker, channel: str, *, anyhow: bool) -> bool:
        """Ask a worker whether it can take a channel; False also when it does not answer.

        Args:
            worker: Who is asked.
            channel: The channel's id.
            anyhow: It is to take it also where it takes no calls any more, and refuse it.
        """
        self._last_offer += 1
        number = self._last_offer
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._offers[number] = answer
        try:
            if not self._tell(worker, Offer(number, channel, anyhow)):
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
    def promised(self, worker: Worker, channel: str, place: Place | None) -> Iterator[Promise]:
        """Count a channel as a worker's; no longer after this, unless `Promise.keep` was called.

        Args:
            worker: Who gets it.
            channel: Its id.
            place: Its place, which is given back once the worker counts the call, or has gone.
        """
        promise = Promise(worker, place, asyncio.get_running_loop().create_future())
        self._promises[channel] = promise
        worker.promised += 1
        try:
            yield promise
        finally:
            if not promise.kept and self._promises.get(channel) is promise:
                del self._promises[channel]
                worker.promised -= 1

    def forget(self, session_id: str, recordings: list[str], *, but: Worker | None = None) -> bool:
        """Tell workers that a call was deleted, all but the one that has done so.

        Returns:
            Whether one of them hears it: each can remove all that there is on this machine.
        """
        told = [
            self._tell(worker, Forget(session_id, recordings))
            for worker in self.roster
            if worker is not but
        ]
        return any(told)

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
        self.on_calls()
        log.warning("worker_unlinked", worker=worker.number, pid=worker.pid)
        for key in [key for key in self._wishes if key[0] is worker]:
            self._leave(key)
        for channel, promise in tuple(self._promises.items()):
            if promise.worker is worker:
                promise.told(there=False)
                # One that has gone without a word has it no more: another gets it, and the place.
                self._settled(channel, gives_back=promise.kept)
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
                if self.roster.stands(worker, used, takes=takes, draining=draining):
                    self.on_calls()
                self._news()
            case Has(session_id, line_id):
                self.roster.has(worker, session_id, line_id)
                self.on_calls()
            case HasNot(session_id):
                self.roster.has_not(worker, session_id)
                self.on_calls()
            case Answered(offer, takes):
                if (answer := self._offers.get(offer)) is not None and not answer.done():
                    answer.set_result(takes)
            case Entered(channel):
                if (promise := self._promise(worker, channel)) is not None:
                    promise.told(there=True)
            case TakenIn(channel):
                if (promise := self._promise(worker, channel)) is not None:
                    promise.told(there=True)
                    self._settled(channel, gives_back=True)
            case Enter(wish, paced, wait_seconds):
                self._wishes[worker, wish] = asyncio.create_task(
                    self._enter(worker, wish, paced, wait_seconds), name="place"
                )
            case Leave(wish):
                self._leave((worker, wish))
            case Spending():
                self._spends(worker, told)
            case Deleted(session_id, recordings):
                self.forget(session_id, recordings, but=worker)
                telling = asyncio.create_task(
                    self._tell_others(worker, session_id, recordings), name="deletion"
                )
                self._deletions.add(telling)
                telling.add_done_callback(self._deletions.discard)
            case _:
                pass

    async def _tell_others(self, worker: Worker, session_id: str, recordings: list[str]) -> None:
        told = self.on_deleted is None or await self.on_deleted(session_id, recordings)
        self._tell(worker, DeletionTold(session_id, told))

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
        for number, share in self._shares.items():
            if number != worker.number:
                self._tell_at_leisure(worker, _spending(number, share.whole()))
        self._news()

    def _spends(self, worker: Worker, change: Change) -> None:
        share = self._shares.setdefault(worker.number, Share())
        # All pieces at once: whoever comes between two of them could do nothing with the second.
        if pieces := share.take(change):
            messages = _spending(worker.number, pieces)
            for other in self.roster:
                if other is not worker:
                    self._tell_at_leisure(other, messages)

    def _tell_at_leisure(self, to: Worker, messages: Sequence[Message]) -> None:
        if (peer := self._of.get(to)) is not None:
            for message in messages:
                peer.send_at_leisure(message)

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

    def _promise(self, worker: Worker, channel: str) -> Promise | None:
        promise = self._promises.get(channel)
        return promise if promise is not None and promise.worker is worker else None

    def _settled(self, channel: str, *, gives_back: bool) -> None:
        promise = self._promises.pop(channel)
        promise.worker.promised -= 1
        if promise.place is not None and gives_back:
            promise.place.give_back()
            self._tell_places()

    async def _enter(self, worker: Worker, wish: int, paced: bool, wait_seconds: float) -> None:
        key = worker, wish
        try:
            place = await self._take(paced=paced, wait_seconds=wait_seconds)
        except NoRoom as error:
            self._wishes.pop(key, None)
            self._tell(worker, Refused(wish, error.code, error.retry_after))
            return
        self._wishes[key] = place
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


def _spending(number: int, changes: Sequence[Change]) -> list[Message]:
    return [as_message(Spending.of(number, change)) for change in changes]
