"""A worker's end of the line to its front: tells what it has, and does what the front says."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from ari_app.call.admission import NoRoom
from ari_app.control.workers.messages import (
    Answered,
    Deleted,
    DeletionTold,
    Entered,
    Forget,
    FromWorker,
    Granted,
    Has,
    HasNot,
    Hello,
    Offer,
    Places,
    Refused,
    Spending,
    TakenIn,
    as_message,
    read,
)
from ari_app.control.workers.messages import Room as RoomTold
from ari_app.control.workers.roster import token_of
from ari_app.control.workers.shared_admission import SharedAdmission
from ari_app.process.loop import Soon
from ari_app.process.peers import Message, Peer
from ari_app.records.events import CallEvent
from ari_app.records.record import CallRecord
from ari_app.records.spend.guard import SpendGuard

log = structlog.get_logger(__name__)

_CALL_AGAIN_SECONDS: Final = 0.05
_MOST_PAUSE_SECONDS: Final = 0.2
_ON_THE_WAY_SECONDS: Final = 2.0
"""More than a move takes, and the word that it was done."""


_TOLD_SECONDS: Final = 5.0
"""Longer than the front asks the store before it says that it is away."""


class _Calls(Protocol):
    draining: bool

    def count(self) -> int: ...

    @property
    def records(self) -> dict[str, CallRecord]: ...


class Membership:
    """One worker of several.

    Args:
        number: Which one; from 1.
        app: Its application in Asterisk.
        front: Where the front listens.
        takes: Says whether calls can be taken in now.

    Attributes:
        on_forget: Called with a call that another has deleted, and the paths of its recordings.
    """

    def __init__(self, number: int, app: str, front: Path, takes: Callable[[], bool]) -> None:
        self.number = number
        self.on_forget: Callable[[str, list[str]], None] = lambda session_id, recordings: None
        self._hello = Hello(number, os.getpid(), app)
        self._front = front
        self._takes = takes
        self._calls: _Calls | None = None
        self._peer: Peer | None = None
        self._lost = asyncio.Event()
        self._told_room: RoomTold | None = None
        self._leaving = False
        self._promised: dict[str, float] = {}
        self._arrived = asyncio.Event()
        self._deletions: dict[str, asyncio.Future[bool]] = {}
        self._telling_room = Soon(self.tell_room)
        self._spend: SpendGuard | None = None
        self._telling_spent = Soon(self._tell_spent)
        self._loop = asyncio.get_running_loop()
        self.admission = SharedAdmission(self._tell, self.tell_room, self.room_changed)

    def serve(self, calls: _Calls) -> None:
        """Tell of these calls."""
        self._calls = calls

    def count(self, spend: SpendGuard) -> None:
        """Count what is spent together with the others."""
        self._spend = spend

    async def run(self) -> None:
        """Stay linked with the front, whichever it is, until cancelled."""
        pause = _CALL_AGAIN_SECONDS
        while True:
            try:
                await self._loop.create_unix_connection(self.new_peer, str(self._front))
            except OSError:
                # Seldom: it is back within a second, or we end as well.
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MOST_PAUSE_SECONDS)
                continue
            pause = _CALL_AGAIN_SECONDS
            await self._lost.wait()
            log.warning("front_lost")

    def close(self) -> None:
        """Hang up."""
        self._telling_room.cancel()
        self._telling_spent.cancel()
        if self._peer is not None:
            self._peer.close()

    # --- what is told

    def known(self, session_id: str, record: CallRecord | None) -> None:
        """Tell that there is a call of this name, or no longer."""
        if record is None:
            self._tell(HasNot(session_id))
        else:
            self._tell(Has(session_id, record.line_id))

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        """Tell of room that may have changed; a listener of the journal."""
        self.room_changed()

    def room_changed(self) -> None:
        """Tell how many places are used, once all of what happens now has happened."""
        if self._peer is not None:
            self._telling_room.ask()

    def tell_room(self) -> None:
        """Tell at once how many places are used, if that has changed."""
        calls = self._calls
        if calls is None:
            return
        draining = self._draining
        room = RoomTold(calls.count(), self._takes() and not draining, draining)
        if room != self._told_room and self._tell(room):
            self._told_room = room

    def spent(self) -> None:
        """Tell what is spent here, once all of what happens now has happened."""
        if self._peer is not None:
            self._telling_spent.ask()

    def _tell_spent(self, *, anew: bool = False) -> None:
        if self._spend is not None and self._peer is not None:
            for change in self._spend.news(anew=anew):
                self._peer.send_at_leisure(as_message(Spending.of(self.number, change)))

    def mark(self, token: str) -> str:
        """Return a token by which the front finds this worker."""
        return token_of(self.number, token)

    def entered(self, channel: str) -> None:
        """Tell that a channel that was moved here has arrived."""
        self._tell(Entered(channel))

    def taken_in(self, channel: str) -> None:
        """Tell that it has become a call, or has been refused."""
        self.tell_room()
        self._tell(TakenIn(channel))
        self._promised.pop(channel, None)
        self._arrived.set()

    async def deleted(self, session_id: str, document: Mapping[str, Any]) -> None:
        """Tell that a call is being deleted; a hook of the call log's.

        Raises:
            ConnectionError: Others cannot be told just now, so they would keep what they have.
        """
        paths = [str(part["path"]) for part in document.get("recordings") or ()]
        told = self._deletions.setdefault(session_id, self._loop.create_future())
        try:
            if not self._tell(Deleted(session_id, paths)):
                raise ConnectionError("the front is not there")
            async with asyncio.timeout(_TOLD_SECONDS):
                if not await asyncio.shield(told):
                    raise ConnectionError("the other machines cannot be told")
        except TimeoutError:
            raise ConnectionError("the front does not answer") from None
        finally:
            self._deletions.pop(session_id, None)

    async def leave(self) -> None:
        """Take no more calls, and wait for those that are on the way: the front was told that they
        are taken."""
        self._leaving = True
        self.tell_room()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ON_THE_WAY_SECONDS):
                while self._promised:
                    self._arrived.clear()
                    await self._arrived.wait()

    @property
    def _draining(self) -> bool:
        return self._leaving or (self._calls is not None and self._calls.draining)

    def _promise(self, channel: str) -> None:
        now = self._loop.time()
        # Whoever hung up on the way never comes.
        self._promised = {
            each: since
            for each, since in self._promised.items()
            if now - since < _ON_THE_WAY_SECONDS
        }
        self._promised[channel] = now

    def _tell(self, told: FromWorker) -> bool:
        return self._peer is not None and self._peer.send(as_message(told))

    # --- the line

    def new_peer(self) -> Peer:
        """Return our end of a line to a front."""
        return Peer(self._heard, on_open=self._opened, on_closed=self._closed)

    def _opened(self, peer: Peer) -> None:
        self._peer, self._told_room = peer, None
        self._lost.clear()
        log.info("front_found")
        self._tell(self._hello)
        if self._calls is not None:
            for session_id, record in self._calls.records.items():
                self._tell(Has(session_id, record.line_id))
        self.tell_room()
        self._telling_spent.cancel()
        self._tell_spent(anew=True)
        self.admission.linked()

    def _deletion_told(self, session_id: str, *, told: bool) -> None:
        waiting = self._deletions.get(session_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(told)

    def _closed(self, peer: Peer) -> None:
        self._peer = None
        for session_id in tuple(self._deletions):
            self._deletion_told(session_id, told=False)
        self._lost.set()
        self.admission.unlinked()

    def _heard(self, peer: Peer, message: Message) -> None:
        match read(message):
            case Offer(offer, channel, anyhow):
                draining = self._draining
                takes = self._takes() and (anyhow or not draining)
                if takes and not draining:
                    self._promise(channel)
                self._tell(Answered(offer, takes))
            case Granted(wish):
                self.admission.granted(wish)
            case Refused(wish, code, retry_after):
                self.admission.refused(wish, NoRoom(code, retry_after))
            case Places(full):
                self.admission.full = full
            case Spending() as told if self._spend is not None:
                self._spend.elsewhere(told.worker, told)
            case Forget(session_id, recordings):
                self.on_forget(session_id, recordings)
            case DeletionTold(session_id, told):
                self._deletion_told(session_id, told=told)
            case _:
                pass
