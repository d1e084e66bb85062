"""Brings the journal into the database, whatever that takes. Runs in a loop of its own thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from ari_app.records.store import tables
from ari_app.records.store.database import Database, WrongVersion, is_at_fault
from ari_app.records.store.spool import (
    BEGAN,
    KEEP,
    Counts,
    Left,
    Segment,
    Spool,
    adopt,
    decode_line,
)

log = structlog.get_logger(__name__)

_BATCH_BYTES: Final = 1024 * 1024
_BATCH_LINES: Final = 500
_WRITE_SECONDS: Final = 60.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0
_LOOK_AGAIN_SECONDS: Final = 15.0
"""So often journals of other processes are looked for, which may have ended."""
_QUIET_SECONDS: Final = 1.0
"""After so long without anything new, a file that the database has is removed."""
_GATHER_SECONDS: Final = 1.0
"""Two batches are so far apart, unless somebody waits: one of many calls costs little more than one
of a single call."""
_LARGE_BYTES: Final = 256 * 1024


class Keeper:
    """Reads journals and writes batches until it is told to stop.

    Args:
        database: Where to.
        spool: The journal of this process.
        counts: To be kept.
        on_lost: Told of each call whose process was lost, once that is kept.
        told_of: Calls of whose end this process tells, whoever began them.

    Attributes:
        problem: Why nothing can be written just now, a sentence; None: it can.
        looked: Set when the database has been tried for the first time.
        refusal: Said of a database that is of another version.
    """

    def __init__(
        self,
        database: Database,
        spool: Spool,
        counts: Counts,
        on_lost: Callable[[Mapping[str, Any]], None] = lambda document: None,
        *,
        told_of: Collection[str] = (),
    ) -> None:
        self.problem: str | None = None
        self.refusal: WrongVersion | None = None
        self.looked = asyncio.Event()
        self._database = database
        self._spool = spool
        self._counts = counts
        self._on_lost = on_lost
        self._told_of = frozenset(told_of)
        self._left: list[Left] = []
        self._closed: set[Path] = set()
        self._news = asyncio.Event()
        self._progress = asyncio.Condition()
        self._stopping = False
        self._hurries = asyncio.Event()
        self._awaited = 0
        self._fits = False
        # Fewer where so many do not get through in time.
        self._at_once = _BATCH_LINES

    def wake(self) -> None:
        """Look again: there is something new."""
        self._news.set()

    async def settled(self, given: int) -> None:
        """Wait until the first `given` entries are in the database, or are lost."""
        counts = self._counts
        self._awaited += 1
        self._hurries.set()
        try:
            async with self._progress:
                await self._progress.wait_for(lambda: counts.settled + counts.dropped >= given)
        finally:
            self._awaited -= 1

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping

    def stop(self) -> None:
        """Go on until all is written, and end then. A failure ends it, too."""
        self._stopping = True
        self._news.set()
        self._hurries.set()

    async def run(self, *, writes: bool = True) -> None:
        """Write until `stop`.

        Args:
            writes: There is something to write; otherwise it only waits.
        """
        if not writes:
            self.looked.set()
            while not self._stopping:
                await self._wait(_LOOK_AGAIN_SECONDS, for_news=False)
            return
        pause = _FIRST_PAUSE
        look_again = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            self._news.clear()
            try:
                # Also while the database is away: another service, which does not know who goes on
                # with the calls in them, must not find them.
                if clock() >= look_again and not self._stopping:
                    self._left += self._adopt()
                    look_again = clock() + _LOOK_AGAIN_SECONDS
                if await self._database.leave_if_gone():
                    log.error("call_log_file_gone", path=self._database.address.shown)
                    self._fits = False
                if not self._fits:
                    await self._database.require_version()
                    self._fits = True
                more = await self._write_some()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._failed(error)
                if self._stopping:
                    break
                await self._wait(pause, for_news=False)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            finally:
                self.looked.set()
            self._works()
            pause = _FIRST_PAUSE
            if more:
                continue
            if self._stopping:
                break
            await self._gather()
            quiet = not await self._wait(_QUIET_SECONDS, for_news=True)
            self._scrub(quiet=quiet)
            if quiet:
                await self._wait(_LOOK_AGAIN_SECONDS - _QUIET_SECONDS, for_news=True)
        for left in self._left:
            left.leave()
        self._left.clear()

    async def _gather(self) -> None:
        """Let some entries come together, unless somebody waits for them."""
        self._hurries.clear()
        if not (self._stopping or self._awaited):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GATHER_SECONDS):
                    await self._hurries.wait()

    async def _wait(self, seconds: float, *, for_news: bool) -> bool:
        """Wait so long at most; whether there are news. `stop` always ends it."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not self._stopping:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return False
            if for_news:
                return True
            self._news.clear()
        return True

    def _failed(self, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            self._at_once = max(self._at_once // 4, 1)
        problem = self._database.explain(error)
        if problem != self.problem:
            log.error("call_log_not_written", problem=problem, waiting=self._counts.backlog)
        self.problem = problem
        self.refusal = error if isinstance(error, WrongVersion) else None
        self._fits = False

    def _works(self) -> None:
        if self.problem is not None:
            log.info("call_log_written_again", waiting=self._counts.backlog)
        self.problem = self.refusal = None

    def _adopt(self) -> list[Left]:
        spool = self._spool
        left, closed = adopt(spool.folder, spool.own, spool.share, spool.since)
        for each in left:
            log.info("call_log_journal_found", path=str(each.path), entries=each.entries)
            self._counts.left += each.entries
        for path in set(closed) - self._closed:
            self._closed.add(path)
            log.error("call_log_journal_of_another_user", path=str(path))
        return left

    def _scrub(self, *, quiet: bool) -> None:
        """Have a file removed that holds what the database has."""
        segments = self._spool.segments
        if not segments:
            return
        last = segments[-1]
        holds_more = last.is_done and not last.sealed and last.size > last.begins
        if holds_more and (quiet or last.size > _LARGE_BYTES):
            self._spool.seal()

    # --- sources

    async def _write_some(self) -> bool:
        """Write a batch of each source; whether there may be more."""
        more = False
        for left in list(self._left):
            more = await self._write_left(left) or more
        more = await self._write_own() or more
        return await self._write_held() or more

    async def _write_own(self) -> bool:
        segments = self._spool.segments
        # The last one goes when what still runs stands in another.
        while segments and segments[0].is_done and segments[0].sealed:
            if len(segments) == 1 and not self._spool.is_idle:
                break
            segments.popleft().path.unlink(missing_ok=True)
        for segment in list(segments):
            if not segment.is_done and await self._write_segment(segment, None):
                return True
        return False

    async def _write_left(self, left: Left) -> bool:
        for segment in left.segments:
            if not segment.is_done:
                return await self._write_segment(segment, left)
        lost: dict[str, Mapping[str, Any]] = {
            session_id: _lost(document, left.last_seen)
            for session_id, document in left.began.items()
            if session_id not in self._told_of
        }
        if lost:
            async with asyncio.timeout(_WRITE_SECONDS), self._database.writing() as connection:
                found = await tables.write(connection, tables.Batch(lost=lost), _now())
            self._counts.written += found
            log.warning("call_log_lost_calls_found", calls=found)
            for document in lost.values():
                self._on_lost(document)
        self._counts.left -= left.entries
        left.finished()
        self._left.remove(left)
        return False

    async def _write_segment(self, segment: Segment, left: Left | None) -> bool:
        """Write a batch of a file; False: it cannot be read just now, and stays as it is."""
        try:
            lines, end = segment.read(_BATCH_BYTES, self._at_once)
        except FileNotFoundError as error:
            log.error("call_log_journal_not_read", path=str(segment.path), error=error.strerror)
            segment.read_to = segment.size
            self._counts.lost_removed += segment.kept - segment.kept_read
            missing = segment.given - segment.given_read
            segment.kept_read, segment.given_read = segment.kept, segment.given
            await self._settle(missing)
            return True
        except OSError as error:
            # There may be too many open files, or a disk that will answer again.
            if segment.unreadable is None:
                log.error("call_log_journal_not_read", path=str(segment.path), error=error.strerror)
            segment.unreadable = error.strerror or type(error).__name__
            return False
        segment.unreadable = None
        entries = []
        for line in lines:
            entry = decode_line(line)
            if entry is None:
                log.error("call_log_journal_damaged", path=str(segment.path))
            elif entry[0] == BEGAN:
                if left is not None:
                    left.began[str(entry[1]["session_id"])] = entry[1]
            else:
                entries.append(entry)
        await self._write(entries)
        segment.read_to = end
        if left is None:
            segment.given_read += len(entries)
            segment.kept_read += sum(entry[0] == KEEP for entry in entries)
            await self._settle(len(entries))
            return True
        for entry in entries:
            if entry[0] == KEEP:
                left.began.pop(str(entry[1]["session_id"]), None)
        left.entries -= len(entries)
        self._counts.left -= len(entries)
        return True

    async def _write_held(self) -> bool:
        held = self._spool.held
        count = min(len(held), self._at_once)
        if not count:
            return False
        entries = [decode_line(held[n][:-1]) for n in range(count)]
        await self._write([entry for entry in entries if entry is not None])
        self._spool.read_held(count)
        await self._settle(count)
        return True

    async def _settle(self, entries: int) -> None:
        self._counts.settled += entries
        async with self._progress:
            self._progress.notify_all()

    # --- writing

    async def _write(self, entries: Sequence[list[Any]]) -> None:
        if not entries:
            return
        try:
            await self._write_together(entries)
        except Exception as error:
            if not is_at_fault(error):
                raise
            if len(entries) == 1:
                self._refuse(entries[0], error)
            else:
                middle = len(entries) // 2
                await self._write(entries[:middle])
                await self._write(entries[middle:])

    async def _write_together(self, entries: Sequence[list[Any]]) -> None:
        batch = tables.Batch()
        for kind, *parts in entries:
            match kind, parts:
                case ("keep", [dict() as document]):
                    session_id = str(document["session_id"])
                    batch.documents.pop(session_id, None)
                    batch.documents[session_id] = document
                case ("amend", [str() as key, str() as part, value]):
                    amendment = tables.Amendment(tables.SESSION, key, part, value)
                    batch.amendments[tables.SESSION, key, part] = amendment
                case ("amend_conversation", [str() as key, str() as part, value]):
                    amendment = tables.Amendment(tables.CONVERSATION, key, part, value)
                    batch.amendments[tables.CONVERSATION, key, part] = amendment
                case _:
                    log.error("call_log_journal_unknown", kind=str(kind)[:40])
        async with asyncio.timeout(_WRITE_SECONDS), self._database.writing() as connection:
            written = await tables.write(connection, batch, _now())
        self._counts.written += written
        self._at_once = min(2 * self._at_once, _BATCH_LINES)

    def _refuse(self, entry: list[Any], error: Exception) -> None:
        """Give up something that no database will take."""
        if entry[0] == KEEP:
            self._counts.lost_refused += 1
        # The error's own text repeats what was said in the call.
        log.error("call_log_refused", kind=str(entry[0])[:40], error=type(error).__name__)


def _lost(document: Mapping[str, Any], last_seen: float) -> dict[str, Any]:
    """Return the document of a call whose process was lost, from what was known when it began."""
    started_at = datetime.fromisoformat(str(document["started_at"]))
    answered_at = datetime.fromisoformat(str(document.get("answered_at") or document["started_at"]))
    ended_at = max(datetime.fromtimestamp(last_seen, UTC), started_at, answered_at)
    seconds = round((ended_at - started_at).total_seconds(), 3)
    return {
        **document,
        "status": "FAILED",
        "reason": "worker_lost",
        "detail": "The process that carried the call was lost; what was said is not known.",
        "ended_at": ended_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "seconds": seconds,
        # When its agent came is not known; so that nothing is left out, at once.
        "agent_seconds": seconds if document.get("conversation_ids") else 0.0,
        "score": {"value": None, "reasons": ["The process that carried the call was lost."]},
    }


def _now() -> datetime:
    return datetime.now(UTC)
