"""The call log as others hold it, on their event loop; what it does is done in other threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import sys
import threading
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    Sequence,
)
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from ari_app.errors import AppError
from ari_app.process.files import keep_database_from_others, why_failed
from ari_app.process.memory import load_for_good
from ari_app.records.store.address import read_address
from ari_app.records.store.query import CallFilter, CallPage, Place
from ari_app.records.store.spool import (
    AMEND,
    AMEND_CONVERSATION,
    BEGAN,
    KEEP,
    Counts,
    Share,
    Spool,
    is_left,
)
from ari_app.records.store.sqlite_probe import holds_old, is_current

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from ari_app.records.store.database import Database
    from ari_app.records.store.keeper import Keeper

log = structlog.get_logger(__name__)

_FIRST_LOOK_SECONDS: Final = 5.0
_ASK_SECONDS: Final = 30.0
_SETTLE_SECONDS: Final = 5.0
_MOMENT_SECONDS: Final = 0.25
_CLOSE_SECONDS: Final = 5.0
_MOST_AT_ONCE: Final = 1000
_PAGE_BYTES: Final = 16 * 1024 * 1024
_EXPORT_CALLS: Final = 200
_EXPORT_BYTES: Final = 2 * 1024 * 1024
_RETENTION_SECONDS: Final = 3600.0
_FIRST_RETENTION_SECONDS: Final = 60.0
_CLOCK_SET_SECONDS: Final = 3600.0
"""So long after its start a machine's clock has been set by a time server: one that is years ahead
until then would have all calls deleted, and nobody gets them back."""
_DELETE_AT_ONCE: Final = 50
_BREATH_SECONDS: Final = 0.1
_CLOCK_SECONDS: Final = 3600.0
_AGAIN_SECONDS: Final = 5.0
_TIDY_SECONDS: Final = 300.0
_TIDY_AGAIN_SECONDS: Final = 60.0
_FUTURE: Final = timedelta(days=1)
_LATELY: Final = timedelta(days=1)
_LOSS_SECONDS: Final = 300.0
_LOOK_AGAIN_SECONDS: Final = 15.0
_PAUSE_SECONDS: Final = 1.0
"""A process that goes on with calls has better to do at first than to load SQLAlchemy."""

_ON_ITS_WAY: Final = (
    "The call is not written into the database yet, so it cannot be deleted yet: ask again."
)
_STAYS: Final = (
    "The call's recording, its webhooks, or what others have of it, cannot be deleted just now, so "
    "the call stays: ask again."
)

T = TypeVar("T")
OnDelete = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""Called on the loop before a call is deleted, with its session and its document. Where it raises,
the call stays, and is deleted at the next try."""
OnLost = Callable[[Mapping[str, Any]], None]
"""Called on the loop with the document of a call whose process was lost, perhaps more than once."""


class CallLogUnavailable(AppError):
    """The call log cannot be read just now; the text says why."""

    default_code = "call_log_unavailable"
    default_retryable = True


class CallLog:
    """The call log: `async with CallLog(url) as call_log`.

    What is told by `began`, `keep`, `amend` and `amend_conversation` is plain data, which nobody
    changes any more; these neither wait nor raise.

    Args:
        url: The database, as in `DATABASE_URL`.
        journal: The folder of the journal; None: beside SQLite's file, or `calls.journal`.
        keep_days: Calls that ended before so many days are deleted, by the first of several
            processes; 0: none.
        on_delete: Who else has something of a call.
        on_lost: Who wants to know of calls whose process was lost.
        told_of: Calls whose process was lost and of whose end this one tells, for it knows more.
        share: The place of this process among several with the same journal; None: it is alone.
        writes: Whether calls are kept; otherwise it is there for asking, and for `delete`.

    Attributes:
        counts: What has become of what was told.
        on_delete: See above.
        folder: The folder of the journal.
    """

    def __init__(
        self,
        url: str,
        *,
        journal: Path | None = None,
        keep_days: float = 0,
        on_delete: Sequence[OnDelete] = (),
        on_lost: Sequence[OnLost] = (),
        told_of: Collection[str] = (),
        share: Share | None = None,
        writes: bool = True,
    ) -> None:
        self.counts = Counts()
        self.on_delete = list(on_delete)
        self._on_lost = tuple(on_lost)
        self._told_of = frozenset(told_of)
        self._callers: asyncio.AbstractEventLoop | None = None
        self._address = read_address(url)
        self.folder = journal or self._address.journal
        self._keep = timedelta(days=keep_days)
        self._writes = writes
        self._spool = Spool(self.folder, self.counts, self._wake, share)
        self._database: Database | None = None
        self._keeper: Keeper | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sleeps: concurrent.futures.Future[bool] = concurrent.futures.Future()
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._cannot_begin: str | None = None
        self._thread = threading.Thread(target=self._run, name="call log", daemon=True)
        self._retention: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._has_tidied = False
        self._lost_before = 0
        self._lost_until = 0.0
        self._clock = (time.time(), time.monotonic())

    # --- life

    async def __aenter__(self) -> CallLog:
        self._callers = asyncio.get_running_loop()
        self._thread.start()
        if self._writes:
            self._spool.start()
        # All at once would tell everybody of each call many times, and hold the database locked
        # for one another.
        if self._writes and self._spool.share.number == 1:
            self._retention = asyncio.create_task(self._retain(), name="retention of the call log")
        return self

    async def looked(self) -> AppError | None:
        """Wait, for some seconds at most, until the database has been tried; what is wrong with it.

        Returns:
            A `ConfigError` where it is of another version, so that nothing will be written until
            somebody does something; None where all is well, or nothing is known yet.
        """
        try:
            async with asyncio.timeout(_FIRST_LOOK_SECONDS):
                if await self._is_asleep():
                    return None
                looked = (await self._opened()).looked
                await self._in_thread(looked.wait())
        except TimeoutError:
            pass
        except CallLogUnavailable as error:
            return error
        keeper = self._keeper
        if keeper is None:
            return None
        if keeper.refusal is None and keeper.problem is not None:
            return CallLogUnavailable(keeper.problem)
        return keeper.refusal

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Bring what there is into the database, for some seconds at most; the journal keeps what
        is not there then for the next start. May be called twice."""
        for task in filter(None, (self._retention, self._tidying)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._retention = self._tidying = None
        if not self._thread.is_alive():
            return
        self._closing.set()
        self._wanted.set()
        with contextlib.suppress(Exception):
            await asyncio.shield(asyncio.wrap_future(self._ready))
        if self._writes and not await asyncio.to_thread(self._spool.close, _CLOSE_SECONDS):
            log.error("call_log_journal_stuck", waiting=self.counts.backlog)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop)
        await asyncio.to_thread(self._thread.join, 2 * _CLOSE_SECONDS)
        self._spool.give_back()
        if self.counts.backlog:
            log.warning("call_log_left_for_next_start", waiting=self.counts.backlog)

    def _tell_lost(self, document: Mapping[str, Any]) -> None:
        assert self._callers is not None, "nothing is found before it is open"
        for tell in self._on_lost:
            with contextlib.suppress(RuntimeError):
                self._callers.call_soon_threadsafe(tell, document)

    # --- what is told: on the event loop

    def began(self, document: Mapping[str, Any]) -> None:
        """Take down that a call has begun. Should this process be lost before `keep`, the next one
        keeps the call as `FAILED`, `worker_lost`. The same call again replaces what was said."""
        self._spool.put(BEGAN, document)
        # By its end there is something to write.
        self._wanted.set()

    def keep(self, document: Mapping[str, Any]) -> None:
        """Keep a call that has ended; the same `session_id` again replaces it."""
        if not self._spool.put(KEEP, document):
            self.counts.lost_waiting += 1

    def amend(self, session_id: str, part: str, value: Any) -> None:
        """Set a part of a call's document, which may be kept only later."""
        self._spool.put(AMEND, session_id, part, value)

    def amend_conversation(self, conversation_id: str, part: str, value: Any) -> None:
        """Set a part of the document of the call that has had a conversation; it may be kept only
        later."""
        self._spool.put(AMEND_CONVERSATION, conversation_id, part, value)

    # --- what is asked

    async def find(self, session_id: str) -> dict[str, Any] | None:
        """Return the document of a call; None: it is not kept.

        Raises:
            CallLogUnavailable: The database cannot be read just now; so with all that is asked.
        """
        await self._opened()
        from ari_app.records.store import tables

        return await self._read(lambda connection: tables.find(connection, session_id))

    async def find_conversation(self, conversation_id: str) -> dict[str, Any] | None:
        """Return the document of the call that has had a conversation; None: none that is kept."""
        await self._opened()
        from ari_app.records.store import tables

        return await self._read(
            lambda connection: tables.find_conversation(connection, conversation_id)
        )

    async def sessions(self, start: str, limit: int) -> list[str]:
        """Return the session ids of calls that begin so, in their order."""
        await self._opened()
        from ari_app.records.store import tables

        return await self._read(lambda connection: tables.sessions(connection, start, limit))

    async def page(
        self, wanted: CallFilter, limit: int = 50, cursor: str | None = None
    ) -> CallPage:
        """Return some calls, the newest first.

        Args:
            wanted: Which calls.
            limit: So many at most; there may be fewer even though there is a next page.
            cursor: Of the page before; None: begin with the newest.

        Raises:
            BadCursor: No page has given it.
        """
        place = None if cursor is None else Place.read(cursor)
        calls, last = await self._some(wanted, place, limit, _PAGE_BYTES)
        return CallPage(calls, None if last is None else last.cursor())

    async def export(self, wanted: CallFilter) -> AsyncIterator[dict[str, Any]]:
        """Yield all calls, the newest first, a few at a time."""
        place: Place | None = None
        while True:
            calls, place = await self._some(wanted, place, _EXPORT_CALLS, _EXPORT_BYTES)
            for call in calls:
                yield call
            if place is None:
                return

    async def spent(
        self, begin: datetime, end: datetime, but: Sequence[str] = ()
    ) -> dict[str, tuple[int, float]]:
        """Add up the calls that began in a time and had an agent, but for some sessions.

        Returns:
            By agent: how many, and how many seconds agents were there.
        """
        await self._opened()
        from ari_app.records.store import tables

        return await self._read(lambda connection: tables.spent(connection, begin, end, but))

    async def has_recordings(self) -> bool:
        """Return whether one of the last calls has a recording."""
        await self._opened()
        from ari_app.records.store import tables

        return await self._read(tables.has_recordings)

    async def delete(self, session_id: str) -> bool:
        """Delete a call, all that was told of it, and what the others have of it; False: it is not
        kept. What is told of it later is not kept either.

        Raises:
            CallLogUnavailable: As with all that is asked; also where the database does not have it
                yet, and will; and where what the others have cannot be deleted, so that it stays.
        """
        await self.settle()
        try:
            deleted = await self._delete(session_id)
            if not deleted:
                if await self._is_on_its_way(session_id):
                    raise CallLogUnavailable(_ON_ITS_WAY)
                # It may have arrived while that was looked at.
                deleted = await self._delete(session_id)
        except AppError:
            raise
        except Exception as error:
            log.error("call_log_not_deleted", session=session_id, error=why_failed(error))
            raise CallLogUnavailable(f"{_STAYS} Why: {why_failed(error)}.") from None
        if deleted:
            await self._tidy()
        return deleted

    async def _is_on_its_way(self, session_id: str) -> bool:
        if not await asyncio.to_thread(self._spool.holds, session_id):
            return False
        from ari_app.records.store import tables

        # The journal holds what was deleted a moment ago, too.
        return not await self._read(lambda connection: tables.was_deleted(connection, session_id))

    async def settle(self) -> None:
        """Wait until the database has what was told so far, for some seconds at most."""
        if not self._writes:
            return
        given = self.counts.given
        keeper = await self._opened()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                await self._in_thread(keeper.settled(given))

    def problems(self) -> list[str]:
        """Say what is lost, in sentences: for `/health/ready`."""
        lost, now = self.counts.lost, time.monotonic()
        if lost > self._lost_before:
            self._lost_before, self._lost_until = lost, now + _LOSS_SECONDS
        if now >= self._lost_until:
            return []
        why = " ".join(filter(None, (self._spool.problem, *self.warnings())))
        return [f"The call log has lost calls, {lost} so far. {why}".rstrip()]

    def warnings(self) -> list[str]:
        """Say what is wrong and loses nothing yet, in sentences."""
        away = self._cannot_begin if self._keeper is None else self._keeper.problem
        full, waiting = self._spool.problem, self.counts.backlog
        match away, full:
            case str(), None if waiting:
                return [f"{away} The journal keeps {waiting} entries meanwhile."]
            case str(), str():
                memory = f"{waiting} entries are in memory alone, and lost if the process ends."
                return [away, f"{full} {memory}"]
            case _:
                return [each for each in (away, full) if each is not None]

    # --- retention

    async def _retain(self) -> None:
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        await asyncio.sleep(max(_FIRST_RETENTION_SECONDS, _CLOCK_SET_SECONDS - since_boot))
        while True:
            try:
                await self.forget_old()
            except Exception as error:
                log.warning("call_log_retention_failed", error=str(error))
            await asyncio.sleep(_RETENTION_SECONDS)

    async def forget_old(self) -> int:
        """Delete the calls that are too old, a few at a time: how many.

        Raises:
            CallLogUnavailable: The database cannot be used just now.
        """
        now = datetime.now(UTC)
        before = now - self._keep if self._keep and self._clock_is_steady() else None
        if await self._is_asleep():
            path = self._address.path
            if not await asyncio.to_thread(holds_old, path, before):
                return 0
        await self._opened()
        from ari_app.records.store import tables

        await self._write(lambda connection: tables.forget_late(connection, now))
        if not self._has_tidied:
            self._has_tidied = True
            if await self._read(partial(tables.deleted_since, moment=now - _LATELY)):
                # A process before this one may have been killed when it had not come to that yet.
                await self._tidy()
        if before is None:
            return 0
        # Should it not come to its end, the files are tidied the next time.
        self._has_tidied = False
        failures: dict[str, list[str]] = {}
        dated = await self._read(
            partial(tables.older_than_dated, moment=before, future=now + _FUTURE)
        )
        deleted = await self._delete_each(dated, failures)
        place: Place | None = None
        while True:
            # Each is tried once: what cannot be deleted may be thousands, whose disk is away.
            old, place = await self._read(
                partial(tables.older_than, moment=before, after=place, limit=_DELETE_AT_ONCE)
            )
            deleted += await self._delete_each(old, failures)
            if place is None:
                break
            await asyncio.sleep(_BREATH_SECONDS)
        for why, stay in failures.items():
            log.warning("call_log_not_deleted", session=stay[0], calls=len(stay), error=why)
        if deleted:
            await self._tidy()
            log.info("call_log_forgot_old_calls", calls=deleted)
        self._has_tidied = True
        return deleted

    async def _delete_each(self, sessions: Sequence[str], failures: dict[str, list[str]]) -> int:
        """Delete calls: how many. Those that cannot be just now are noted with the reason."""
        deleted = 0
        for session_id in sessions:
            try:
                deleted += await self._delete(session_id)
            except CallLogUnavailable:
                raise
            except Exception as error:
                failures.setdefault(why_failed(error), []).append(session_id)
        return deleted

    def _clock_is_steady(self) -> bool:
        """Return whether the time of day has gone on as it should: one that has jumped may make
        all calls seem old. It is believed the next time."""
        wall, steady = self._clock
        self._clock = (time.time(), time.monotonic())
        jump = self._clock[0] - wall - (self._clock[1] - steady)
        if abs(jump) > _CLOCK_SECONDS:
            log.warning("call_log_clock_jumped", seconds=round(jump))
            return False
        return True

    async def _delete(self, session_id: str) -> bool:
        await self._opened()
        from ari_app.records.store import tables

        document = await self.find(session_id)
        if document is None:
            return False
        for hook in self.on_delete:
            await hook(session_id, document)
        now = datetime.now(UTC)
        return await self._write(lambda connection: tables.delete(connection, session_id, now))

    async def _tidy(self) -> None:
        """Leave nothing of what was deleted in the files: at once, or when nobody reads them."""
        if self._writes:
            self._spool.seal()
        if not await self._is_tidy() and (self._tidying is None or self._tidying.done()):
            self._tidying = asyncio.create_task(self._tidy_later(), name="files of the call log")

    async def _tidy_later(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_AGAIN_SECONDS)
            if await self._is_tidy():
                return

    async def _is_tidy(self) -> bool:
        """Tidy the files; whether nothing is left."""
        try:
            return await self._ask(lambda database: database.tidy(), _TIDY_SECONDS)
        except CallLogUnavailable as error:
            log.warning("call_log_not_tidied", error=str(error))
            return False

    # --- the other thread

    async def _some(
        self, wanted: CallFilter, place: Place | None, limit: int, max_bytes: int
    ) -> tuple[list[dict[str, Any]], Place | None]:
        await self._opened()
        from ari_app.records.store import tables

        limit = max(1, min(limit, _MOST_AT_ONCE))
        return await self._read(
            lambda connection: tables.some(connection, wanted, place, limit, max_bytes)
        )

    async def _read(self, work: Callable[[AsyncConnection], Coroutine[Any, Any, T]]) -> T:
        given = self.counts.given

        async def read(database: Database) -> T:
            await self._gathered(given)
            async with database.reading() as connection:
                return await work(connection)

        return await self._ask(read)

    async def _gathered(self, given: int) -> None:
        """Let what was told so far be written, where that takes no longer than a moment."""
        keeper, counts = self._keeper, self.counts
        assert keeper is not None, "it is made before it is ready"
        if keeper.problem is None and counts.settled + counts.dropped < given:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_MOMENT_SECONDS):
                    await keeper.settled(given)

    async def _write(self, work: Callable[[AsyncConnection], Coroutine[Any, Any, T]]) -> T:
        async def write(database: Database) -> T:
            async with database.writing() as connection:
                return await work(connection)

        return await self._ask(write)

    async def _ask(
        self, work: Callable[[Database], Coroutine[Any, Any, T]], seconds: float = _ASK_SECONDS
    ) -> T:
        keeper = await self._opened()
        if not keeper.looked.is_set():
            # A new file has tables once it was looked at.
            await self.looked()
        assert self._database is not None, "it is made before it is ready"
        return await self._in_thread(self._asked(self._database, work, seconds))

    async def _asked(
        self,
        database: Database,
        work: Callable[[Database], Coroutine[Any, Any, T]],
        seconds: float,
    ) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await work(database)
        except AppError:
            raise
        except Exception as error:
            raise CallLogUnavailable(database.explain(error)) from None

    async def _in_thread(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None or not self._thread.is_alive():
            work.close()
            raise CallLogUnavailable("The call log is closed.")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _is_asleep(self) -> bool:
        """Return whether nothing was to be done so far."""
        return await asyncio.shield(asyncio.wrap_future(self._sleeps)) and not self._wanted.is_set()

    async def _opened(self) -> Keeper:
        self._wanted.set()
        await asyncio.shield(asyncio.wrap_future(self._ready))
        assert self._keeper is not None, "it is made before it is ready"
        return self._keeper

    def _wake(self) -> None:
        self._wanted.set()
        loop, keeper = self._loop, self._keeper
        if loop is not None and keeper is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(keeper.wake)

    def _stop(self) -> None:
        assert self._keeper is not None, "it is made before it is ready"
        self._keeper.stop()

    def _run(self) -> None:
        try:
            begins = self._sleep()
        except Exception:
            log.exception("call_log_not_looked_into")
            if not self._sleeps.done():
                self._sleeps.set_result(False)
            begins = True
        while begins:
            try:
                asyncio.run(self._work())
                return
            except BaseException as error:
                if self._ready.done():
                    log.exception("call_log_failed")
                    return
                self._has_not_begun(error)
            begins = not self._closing.wait(_AGAIN_SECONDS)
        self._ready.set_exception(CallLogUnavailable("The call log is closed."))

    def _has_not_begun(self, error: BaseException) -> None:
        """Tell whoever waits. There may be too many open files, or code that is just replaced: it
        may begin a little later, and the journal keeps calls meanwhile."""
        why = error.strerror if isinstance(error, OSError) else None
        problem = f"The call log cannot begin: {why or type(error).__name__}."
        if problem != self._cannot_begin:
            log.error("call_log_not_begun", problem=problem)
        self._cannot_begin = problem
        waited_for, self._ready = self._ready, concurrent.futures.Future()
        waited_for.set_exception(CallLogUnavailable(problem))

    def _sleep(self) -> bool:
        """Wait for something to do: what is loaded then takes 17 MB, and a core for 0.1 s.

        Returns:
            Whether there is something to do; otherwise it was closed.
        """
        if self._address.kind == "sqlite":
            # Also where nobody opens it for hours.
            keep_database_from_others(self._address.path)
        idle = self._writes and self._has_nothing_to_do()
        self._sleeps.set_result(idle)
        while idle and not self._wanted.wait(_LOOK_AGAIN_SECONDS):
            idle = self._has_nothing_to_do()
        if self._told_of and not _is_loaded():
            self._closing.wait(_PAUSE_SECONDS)
        return not (idle and self._closing.is_set() and not self.counts.given)

    def _has_nothing_to_do(self) -> bool:
        """Return whether the database is as it should be, and no journal is left by others."""
        path, spool = self._address.path, self._spool
        try:
            return (
                self._address.kind == "sqlite"
                and is_current(path)
                and os.access(path, os.W_OK)
                and os.access(path.parent, os.W_OK)
                and not is_left(spool.folder, spool.own, spool.share, spool.since)
            )
        except OSError:
            return False

    async def _work(self) -> None:
        load_for_good(("ari_app.process.plain_sqlalchemy", "ari_app.records.store.keeper"))
        from ari_app.records.store.database import Database
        from ari_app.records.store.keeper import Keeper

        database = self._database = Database(self._address)
        keeper = self._keeper = Keeper(
            database, self._spool, self.counts, self._tell_lost, told_of=self._told_of
        )
        self._loop = asyncio.get_running_loop()
        self._ready.set_result(None)
        try:
            while not keeper.is_stopping:
                try:
                    await keeper.run(writes=self._writes)
                except Exception:
                    # A fault of ours; the journal goes on meanwhile.
                    log.exception("call_log_keeper_failed")
                    await asyncio.sleep(_AGAIN_SECONDS)
        finally:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await database.close()


def _is_loaded() -> bool:
    return "ari_app.records.store.keeper" in sys.modules
