"""The thread that keeps the spool: the event loop never waits for the disk."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from ari_app.process.files import is_of_the_disk, why_failed
from ari_app.records.webhooks.events import Event
from ari_app.records.webhooks.spool import Spool

log = structlog.get_logger(__name__)

_RETRY_SECONDS: Final = 1.0
_BATCH: Final = 200
_MAX_WAITING_BYTES: Final = 32 * 1024 * 1024
_MAX_JOBS: Final = 1000
_OVERHEAD: Final = 500
_CLOSE_SECONDS: Final = 5.0

Result = TypeVar("Result")
_Job = Callable[[], None]


class SpoolAway(Exception):
    """The spool did not do what was asked: the disk is full, slow or away."""


@dataclass(frozen=True, slots=True)
class _Put:
    event: Event


@dataclass(slots=True)
class KeeperStats:
    """Counters of a process. The thread writes some of them; read them from anywhere.

    Attributes:
        kept: Events on disk.
        lost: Events that could not be kept.
        failure: Why events cannot be written down at the moment; None: they can.
    """

    kept: int = 0
    lost: int = 0
    failure: str | None = None


class Keeper:
    """The spool, and the one thread that touches it.

    What cannot be written down is tried again every second. Meanwhile 32 MiB wait in memory; what
    comes beyond is lost, counted, and told in the log.

    Args:
        path: The file.
        receivers: How many each event is for.
        now: Unix time.
        on_kept: Called in the loop when there is something new to send.
    """

    def __init__(
        self,
        path: Path,
        receivers: int,
        now: Callable[[], float],
        on_kept: Callable[[], None] = lambda: None,
        *,
        max_waiting_bytes: int = _MAX_WAITING_BYTES,
        open_spool: Callable[[Path], Spool] = Spool,
    ) -> None:
        self.stats = KeeperStats()
        self._path = path
        self._receivers = receivers
        self._now = now
        self._on_kept = on_kept
        self._max_waiting_bytes = max_waiting_bytes
        self._open_spool = open_spool
        # Bounded: events by their bytes, jobs by their number.
        self._work: queue.SimpleQueue[_Put | _Job | None] = queue.SimpleQueue()
        # Each is counted by one side only, so that neither needs a lock.
        self._given_bytes = self._taken_bytes = 0
        self._jobs = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self, *, again: bool = False) -> None:
        """Open the file and begin. Where its disk is full, or fails, that is tried again.

        Args:
            again: It was used before: should it be away, that is tried again, too, and not raised.

        Raises:
            OSError, sqlite3.Error, SpoolUnusable: It cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        spool: Spool | None = None
        try:
            spool = await asyncio.to_thread(self._open_spool, self._path)
        except Exception as error:
            if not (again or is_of_the_disk(error)):
                raise
            self._away(error)
        self._thread = threading.Thread(
            target=self._run, args=(spool,), name="webhooks", daemon=True
        )
        self._thread.start()

    async def close(self, timeout_seconds: float = _CLOSE_SECONDS) -> None:
        """Write down what is left, for so long at most. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._work.put(None)
        await asyncio.to_thread(thread.join, timeout_seconds)
        if thread.is_alive():
            log.error("webhooks_unwritten", bytes=self._given_bytes - self._taken_bytes)

    def put(self, event: Event) -> None:
        """Keep an event; never waits, never raises."""
        size = _size([event])
        if (
            self._thread is None
            or self._given_bytes - self._taken_bytes + size > self._max_waiting_bytes
        ):
            self.stats.lost += 1
            log.error("webhook_lost", session=event.session_id, type=event.kind)
            return
        self._given_bytes += size
        self._work.put(_Put(event))

    async def ask(self, do: Callable[[Spool], Result], timeout_seconds: float = 10.0) -> Result:
        """Do something with the spool, in the thread.

        Raises:
            SpoolAway: It was not done, or not in time.
        """
        loop = asyncio.get_running_loop()
        if self._thread is None or self._jobs >= _MAX_JOBS:
            raise SpoolAway("it is closed" if self._thread is None else "too much is asked of it")
        done: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: Exception | None) -> None:
            self._jobs -= 1
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)

        def job() -> None:
            result: Any = None
            error: Exception | None = None
            try:
                # Nobody waits any more; who has asked again is not done twice.
                if not done.cancelled():
                    result = do(self._there)
            except (OSError, sqlite3.Error) as problem:
                error = SpoolAway(why_failed(problem))
            except Exception as problem:
                error = problem
            _tell(loop, settle, result, error)

        self._jobs += 1
        self._work.put(job)
        try:
            async with asyncio.timeout(timeout_seconds):
                found: Result = await done
                return found
        except TimeoutError:
            raise SpoolAway(f"the disk does not answer within {timeout_seconds:g} s") from None

    async def forget(self, session_id: str) -> None:
        """Delete everything of a call, also what could not be written down yet.

        Raises:
            SpoolAway: It was not done, or not in time.
        """
        await self.ask(lambda spool: self._forget(spool, session_id))

    # --- in the thread

    def _run(self, spool: Spool | None) -> None:
        self._spool = spool
        self._unsaved = unsaved = list[Event]()
        ending = False
        try:
            while not ending:
                jobs, ending = self._next(unsaved)
                self._follow()
                if unsaved:
                    self._save(unsaved)
                for job in jobs:
                    job()
            if unsaved:
                self.stats.lost += len(unsaved)
                log.error("webhooks_lost", events=len(unsaved), error=self.stats.failure)
        finally:
            if self._spool is not None:
                self._spool.close()

    def _forget(self, spool: Spool, session_id: str) -> None:
        spool.forget(session_id)
        gone = [event for event in self._unsaved if event.session_id == session_id]
        self._taken_bytes += _size(gone)
        self._unsaved[:] = [event for event in self._unsaved if event not in gone]

    @property
    def _there(self) -> Spool:
        if self._spool is None:
            raise sqlite3.OperationalError(self.stats.failure)
        return self._spool

    def _away(self, error: Exception) -> None:
        # What is told waits in memory, and this is tried again.
        if self.stats.failure is None:
            log.error("webhooks_file_gone", path=str(self._path), error=why_failed(error))
        self.stats.failure = why_failed(error)

    def _follow(self) -> None:
        """Take another file where somebody has removed, or moved, the one that there was."""
        was = self._spool
        if was is not None:
            if not was.is_gone:
                return
            # Before it is opened anew: SQLite removes the files beside it by their names.
            was.close()
        try:
            self._spool = self._open_spool(self._path)
        except Exception as error:
            self._away(error)
        else:
            self.stats.failure = None
            if was is not None:
                log.error("webhooks_file_gone", path=str(self._path))

    def _next(self, unsaved: list[Event]) -> tuple[list[_Job], bool]:
        """Wait for work, or until what failed may be tried again; take some of it."""
        jobs: list[_Job] = []
        try:
            work = self._work.get(timeout=_RETRY_SECONDS if unsaved else None)
            for left in reversed(range(_BATCH)):
                match work:
                    case None:
                        return jobs, True
                    case _Put(event):
                        unsaved.append(event)
                    case _:
                        jobs.append(work)
                if left:
                    work = self._work.get_nowait()
        except queue.Empty:
            pass
        return jobs, False

    def _save(self, unsaved: list[Event]) -> None:
        try:
            self._there.put(unsaved, self._receivers, self._now())
        except sqlite3.Error as error:
            if self.stats.failure is None:
                log.error("webhooks_not_written", error=str(error), waiting=len(unsaved))
            self.stats.failure = str(error)
            self._make_room(error)
            return
        except Exception:
            # It would fail again, and what comes after it is not to blame.
            log.exception("webhooks_lost", events=len(unsaved))
            self.stats.lost += len(unsaved)
        else:
            self.stats.failure = None
            self.stats.kept += len(unsaved)
        self._taken_bytes += _size(unsaved)
        unsaved.clear()
        assert self._loop is not None
        _tell(self._loop, self._on_kept)

    def _make_room(self, error: sqlite3.Error) -> None:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            with contextlib.suppress(sqlite3.Error):
                self._there.tidy(self._now())


def _size(events: Iterable[Event]) -> int:
    return sum(len(event.body) + _OVERHEAD for event in events)


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[..., None], *about: Any) -> None:
    # The loop may have ended: then nobody waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(what, *about)
