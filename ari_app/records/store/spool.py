"""The journal on disk: all that is to go into the database, a line each, until it is there.

Each process has a folder of its own, which it holds locked, with files that grow one after the
other. A line carries a checksum, so what a kill or a full disk has torn is known as such. A file
that the database has all of is removed; the calls that still run stand at the top of the next one.
Who finds a folder that nobody holds finishes what its process has left.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import threading
import time
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from ari_app.process.files import sync_folder, write_all
from ari_app.process.folders import folders_in, locked, remove_locked

log = structlog.get_logger(__name__)

BEGAN: Final = "began"
KEEP: Final = "keep"
AMEND: Final = "amend"
AMEND_CONVERSATION: Final = "amend_conversation"

_MAX_WAITING: Final = 4000
"""Entries that may wait for a disk that does not answer, before they are text."""
_MAX_HELD_BYTES: Final = 64 * 1024 * 1024
"""Text that may wait in memory for the database, where the disk does not take it."""
_MAX_FILE_BYTES: Final = 16 * 1024 * 1024
_AT_ONCE: Final = 500
_PAUSE_SECONDS: Final = 0.05
"""What comes meanwhile is written at once, with one sync of the disk for all of it."""
_HEARTBEAT_SECONDS: Final = 5.0
_FLUSH_SECONDS: Final = 2.0
"""So long somebody waits who asks for what is in the journal."""
_MAX_DEPTH: Final = 50
_SUCCEEDED_SECONDS: Final = 20.0
"""For so long after its last sign of life a journal of a process that ran beside this one is left
to whoever comes in its place, goes on with its calls and knows more of them: with what was lost
longer ago nobody goes on (`ari_app.records.checkpoints`)."""
_SUFFIX: Final = ".calls"


@dataclass(slots=True)
class Counts:
    """What has become of what was given; each is counted by one thread only.

    Attributes:
        given: Documents and amendments that were taken.
        settled: Those of them that the database has, or does not take.
        dropped: Those of them that neither the disk nor the memory could hold.
        left: Those that other processes have left, and that the database does not have.
        written: Calls that the database has got.
        lost_waiting: Calls that are not kept since too many waited for the disk.
        lost_room: Since neither the disk took them nor the database.
        lost_unusable: Since what was told of them is no document.
        lost_refused: Since the database does not take what is in them.
        lost_removed: Since somebody has removed the journal.
    """

    given: int = 0
    settled: int = 0
    dropped: int = 0
    left: int = 0
    written: int = 0
    lost_waiting: int = 0
    lost_room: int = 0
    lost_unusable: int = 0
    lost_refused: int = 0
    lost_removed: int = 0

    @property
    def backlog(self) -> int:
        """How many the database does not have yet."""
        return self.given - self.settled - self.dropped + self.left

    @property
    def lost(self) -> int:
        """How many calls are kept nowhere."""
        return (
            self.lost_waiting
            + self.lost_room
            + self.lost_unusable
            + self.lost_refused
            + self.lost_removed
        )


# --- lines: pure


def encode_line(kind: str, *parts: Any) -> bytes:
    """Write an entry as a line. What JSON has no word for becomes a text; it never fails."""
    entry = [kind, *parts]
    try:
        text = orjson.dumps(entry)
        if b"\\u0000" in text:  # PostgreSQL has no such character
            text = orjson.dumps(_clean(entry, 0))
    except (orjson.JSONEncodeError, RecursionError):
        text = orjson.dumps(_clean(entry, 0))
    return checked_line(text)


def checked_line(text: bytes) -> bytes:
    """Return JSON as a line with a checksum, as `decode_line` takes it without its end."""
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode_line(line: bytes) -> list[Any] | None:
    """Read a line without its end; None: it is torn, or none of ours."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        entry = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return entry if isinstance(entry, list) and len(entry) > 1 else None


def _clean(value: Any, depth: int) -> Any:
    """Return what JSON can hold of a value: half characters and what is too deep become others."""
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else str(value)
        case str():
            text = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return text.replace("\0", "\ufffd")
        case Mapping() if depth < _MAX_DEPTH:
            return {
                _clean(str(name), depth): _clean(each, depth + 1) for name, each in value.items()
            }
        case list() | tuple() if depth < _MAX_DEPTH:
            return [_clean(each, depth + 1) for each in value]
        case Mapping() | list() | tuple():
            return "too deep to be kept"
        case _:
            return _clean(str(value), depth)


# --- files


class Segment:
    """One file of the journal, as its reader sees it.

    Attributes:
        path: Where it is.
        size: So much of it has been written whole.
        begins: Up to here it repeats calls that had begun before.
        read_to: So much of it the database has.
        sealed: Nothing more will be added.
        unreadable: Why it could not be read at the last try; None: it could.
        given, kept: So many entries are in it that were given to this process, and so many of them
            keep a call; the writer counts them.
        given_read, kept_read: So many of those were read.
    """

    def __init__(self, path: Path, size: int = 0, *, sealed: bool = False) -> None:
        self.path = path
        self.size = size
        self.begins = 0
        self.read_to = 0
        self.sealed = sealed
        self.unreadable: str | None = None
        self.given = self.kept = 0
        self.given_read = self.kept_read = 0

    @property
    def is_done(self) -> bool:
        """Whether the database has all of it."""
        return self.read_to >= self.size

    def read(self, max_bytes: int, max_lines: int) -> tuple[list[bytes], int]:
        """Return whole lines from `read_to` on, at least one, and where they end.

        Raises:
            OSError: The file cannot be read.
        """
        size = self.size
        with self.path.open("rb") as file:
            file.seek(self.read_to)
            data = file.read(min(max_bytes, size - self.read_to))
            if data and b"\n" not in data:
                data += file.read(size - self.read_to - len(data))
        end = data.rfind(b"\n") + 1
        if not end:
            return [], size  # the last line of a process that was killed
        lines = data[: end - 1].split(b"\n")
        if len(lines) > max_lines:
            lines = lines[:max_lines]
            end = sum(map(len, lines)) + len(lines)
        return lines, self.read_to + end


class _File:
    """The file that is being written."""

    def __init__(self, path: Path, lines: list[bytes]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self.segment = Segment(path)
        try:
            if lines:
                self.append(b"".join(lines))
            self.segment.begins = self.segment.size
        except OSError:
            self.close()
            with contextlib.suppress(OSError):
                path.unlink()
            raise

    def append(self, data: bytes, kinds: Collection[str] = ()) -> None:
        """Add lines, all of them or, with an OSError, none; the kinds are those of what is new."""
        segment = self.segment
        try:
            write_all(self._file, data)
            os.fdatasync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, segment.size)
            raise
        segment.given += sum(kind != BEGAN for kind in kinds)
        segment.kept += sum(kind == KEEP for kind in kinds)
        # Only now: who reads it goes by its size.
        segment.size += len(data)

    def touch(self) -> None:
        """Show that its process lives."""
        with contextlib.suppress(OSError):
            os.utime(self._file)

    def close(self) -> None:
        """Add nothing more."""
        self.segment.sealed = True
        with contextlib.suppress(OSError):
            os.close(self._file)


class _Order:
    """What the thread is told beside entries."""

    SEAL: Final = object()
    CLOSE: Final = object()


@dataclass(frozen=True, slots=True)
class Share:
    """The place of a process among several that keep calls in the same folder.

    What a lost one has left is its successor's, who may go on with the calls in it; only what
    nobody succeeds to is the first one's.

    Attributes:
        number: Its place, from 1.
        of: How many there are.
    """

    number: int = 1
    of: int = 1

    @property
    def prefix(self) -> str:
        """Return how the names of its journals begin."""
        return "" if self.of == 1 else f"{self.number}-"

    def takes(self, name: str) -> bool:
        """Return whether a lost process' journal of this name is for it to read."""
        whose, dash, _ = name.partition("-")
        succeeded = bool(dash) and whose.isdecimal() and 1 <= int(whose) <= self.of
        return int(whose) == self.number if succeeded else self.number == 1


class Spool:
    """The journal of this process, and the thread that writes it.

    Args:
        folder: Where all processes have theirs.
        counts: To be kept.
        wake: Called in the thread when there is something new to be read.
        share: Whose place this process has among others that write into the same folder.

    Attributes:
        since: When this process began, as Unix time.
        problem: Why the disk takes nothing, a sentence; None: it does.
        segments: The files, the oldest first; the reader removes what the database has.
        held: Lines that the disk did not take, the oldest first; the reader removes them as well.
    """

    def __init__(
        self, folder: Path, counts: Counts, wake: Callable[[], None], share: Share | None = None
    ) -> None:
        self.folder = folder
        self.share = Share() if share is None else share
        self.own = folder / f"{self.share.prefix}{uuid.uuid4().hex}"
        self.since = time.time()
        self.problem: str | None = None
        self.segments: deque[Segment] = deque()
        self.held: deque[bytes] = deque()
        self._held_bytes = 0
        self._counts = counts
        self._wake = wake
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._running: dict[str, bytes] = {}
        self._file: _File | None = None
        self._number = 0
        self._lock: int | None = None
        self._thread = threading.Thread(target=self._run, name="call log journal", daemon=True)

    @property
    def is_idle(self) -> bool:
        """Whether no call runs whose beginning must stand somewhere."""
        return not self._running

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, kind: str, *parts: Any) -> bool:
        """Take an entry; False when too many wait. What is given must not be changed any more."""
        if self._queue.qsize() >= _MAX_WAITING:
            return False
        if kind != BEGAN:
            self._counts.given += 1
        self._queue.put((kind, parts))
        return True

    def seal(self) -> None:
        """Go on in a new file, so that the one so far can be removed."""
        self._queue.put(_Order.SEAL)

    def flushed(self) -> threading.Event:
        """Return what is set when the disk, or the memory, has all that was given so far."""
        event = threading.Event()
        self._queue.put(event)
        return event

    def holds(self, session_id: str) -> bool:
        """Return whether a call is in a journal, of whichever process, or may be: such as has
        ended, or begun, and may get into the database. It asks the disk, so call it in a thread.
        """
        if self._thread.is_alive() and not self.flushed().wait(_FLUSH_SECONDS):
            return True
        name = orjson.dumps(_clean(session_id, 0))
        try:
            return any(
                name in line and _is_of_call(line, session_id)
                for lines in (tuple(self.held), _lines_in(self.folder))
                for line in lines
            )
        except OSError:
            return True

    def close(self, seconds: float) -> bool:
        """Write all that was given, for so long at most; whether that was enough."""
        self._queue.put(_Order.CLOSE)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def read_held(self, lines: int) -> None:
        """Forget so many held lines, the oldest: the database has them."""
        for _ in range(lines):
            self._held_bytes -= len(self.held.popleft())

    def give_back(self) -> None:
        """Remove the folder, if the database has all; to be called after `close`."""
        if self.held:
            log.error("call_log_lost_at_end", entries=len(self.held))
        if self._lock is not None:
            if self.is_idle and not self.segments:
                remove_locked(self.own, _SUFFIX)
            os.close(self._lock)
            self._lock = None

    # --- in the thread

    def _run(self) -> None:
        while True:
            orders: set[object] = set()
            flushed: list[threading.Event] = []
            lines = []
            for each in self._some():
                match each:
                    case (kind, parts):
                        try:
                            lines.append(self._line(kind, parts))
                        except Exception as error:
                            self._drop(kind, error)
                    case threading.Event():
                        flushed.append(each)
                    case _:
                        orders.add(each)
            if lines:
                self._write(lines)
                # What has only begun goes nowhere yet.
                if any(kind != BEGAN for kind, _ in lines):
                    self._wake()
            elif self._file is not None and self._running:
                self._file.touch()
            if orders:
                self._seal()
                self._wake()
            for event in flushed:
                event.set()
            if _Order.CLOSE in orders:
                return
            if lines:
                time.sleep(_PAUSE_SECONDS)

    def _some(self) -> Iterator[Any]:
        try:
            yield self._queue.get(timeout=_HEARTBEAT_SECONDS)
            for _ in range(_AT_ONCE - 1):
                yield self._queue.get_nowait()
        except queue.Empty:
            pass

    def _drop(self, kind: str, error: Exception) -> None:
        """Give up an entry that is none, such as a document without a session."""
        log.error("call_log_entry_unusable", kind=kind, error=type(error).__name__)
        if kind != BEGAN:
            self._counts.dropped += 1
        if kind == KEEP:
            self._counts.lost_unusable += 1

    def _line(self, kind: str, parts: tuple[Any, ...]) -> tuple[str, bytes]:
        line = encode_line(kind, *parts)
        if kind == BEGAN:
            self._running[str(parts[0]["session_id"])] = line
        elif kind == KEEP:
            self._running.pop(str(parts[0]["session_id"]), None)
        return kind, line

    def _write(self, lines: list[tuple[str, bytes]]) -> None:
        try:
            if self._file is not None and not self._file.segment.path.exists():
                # Somebody has removed it: what is added to it could never be read.
                self._file.close()
                self._file = None
            if self._file is not None and self._file.segment.size > _MAX_FILE_BYTES:
                self._seal()
            if self._file is None:
                # The calls that run are at its top, those that have just begun among them.
                self._file = self._open()
                lines = [each for each in lines if each[0] != BEGAN]
            if lines:
                kinds, texts = zip(*lines, strict=True)
                self._file.append(b"".join(texts), kinds)
        except OSError as error:
            self._not_written(lines, error)
        else:
            if self.problem is not None:
                log.info("call_log_journal_written_again")
            self.problem = None

    def _not_written(self, lines: list[tuple[str, bytes]], error: OSError) -> None:
        problem = f"The call log's journal {self.folder} cannot be written: {error.strerror}."
        if self.problem != problem:
            log.error("call_log_journal_not_written", problem=problem)
        self.problem = problem
        if self._file is not None:
            self._seal()
        for kind, line in lines:
            if kind == BEGAN:
                continue
            if self._held_bytes + len(line) <= _MAX_HELD_BYTES:
                self._held_bytes += len(line)
                self.held.append(line)
            else:
                self._counts.dropped += 1
                if kind == KEEP:
                    self._counts.lost_room += 1

    def _open(self) -> _File:
        if self._lock is not None and not self.own.exists():
            os.close(self._lock)
            self._lock = None
        if self._lock is None:
            # A mode is the last folder's alone; those above ours are none of our business.
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.own.mkdir(exist_ok=True, mode=0o700)
            self._lock = locked(self.own)
        self._number += 1
        path = self.own / f"{self._number:08}{_SUFFIX}"
        file = _File(path, list(self._running.values()))
        sync_folder(self.own)
        self.segments.append(file.segment)
        return file

    def _seal(self) -> None:
        """End the file; the calls that still run are written into another one first."""
        before, self._file = self._file, None
        if before is None:
            return
        if self._running:
            try:
                self._file = self._open()
            except OSError as error:
                # As good as before: what runs stands in the old one.
                self._file = before if self.problem is None else None
                log.warning("call_log_journal_not_begun", error=error.strerror)
        if self._file is not before:
            before.close()


# --- what other processes have left


class Left:
    """The journal of a process that is no more; held locked until it is `finished`.

    Attributes:
        path: Its folder.
        segments: Its files, the oldest first; the reader removes what the database has.
        began: Documents of calls that had begun, by session; the reader removes those that ended.
        last_seen: When the process still lived, as Unix time.
        entries: How many there are in the files, beside what had begun.
    """

    def __init__(self, own: Path, lock: int) -> None:
        self.path = own
        self._lock = lock
        paths = sorted(own.glob(f"*{_SUFFIX}"))
        stats = [path.stat() for path in paths]
        self.segments = deque(
            Segment(path, stat.st_size, sealed=True)
            for path, stat in zip(paths, stats, strict=True)
        )
        self.last_seen = max((stat.st_mtime for stat in stats), default=0.0)
        self.began: dict[str, Mapping[str, Any]] = {}
        self.entries = sum(_count_entries(path) for path in paths)

    def finished(self) -> None:
        """Remove it: the database has all."""
        remove_locked(self.path, _SUFFIX)
        os.close(self._lock)

    def leave(self) -> None:
        """Leave it to somebody else."""
        os.close(self._lock)


def adopt(
    folder: Path, own: Path, share: Share, since: float = math.inf
) -> tuple[list[Left], list[Path]]:
    """Take over the journals that nobody holds.

    Args:
        folder: Where all processes have theirs.
        own: That of this process.
        share: Its place among those who are there.
        since: When it began, as Unix time: what is left by one that still ran then may be another
            service's, and is taken a little later.

    Returns:
        Those, and the folders that another user has left, which cannot be read.
    """
    found, closed = [], []
    for each in _others(folder, own, share, since):
        try:
            found.append(Left(each, locked(each, make=False)))
        except PermissionError:
            closed.append(each)
        except OSError:
            continue  # somebody holds it, or has just finished it
    return found, closed


def is_left(folder: Path, own: Path, share: Share, since: float = math.inf) -> bool:
    """Return whether `adopt` would find a journal."""
    for each in _others(folder, own, share, since):
        try:
            os.close(locked(each, make=False))
        except PermissionError:
            pass
        except OSError:
            continue
        return True
    return False


def _is_of_call(line: bytes, session_id: str) -> bool:
    """Return whether a line is what a call is kept by."""
    match decode_line(line.removesuffix(b"\n")):
        case [("began" | "keep"), {"session_id": named}]:
            return str(named) == session_id
        case _:
            return False


def _lines_in(folder: Path) -> Iterator[bytes]:
    """Give the lines of all journals; what is removed meanwhile the database has."""
    for own in folders_in(folder):
        for path in sorted(own.glob(f"*{_SUFFIX}")):
            with contextlib.suppress(OSError), path.open("rb") as file:
                yield from file


def _others(folder: Path, own: Path, share: Share, since: float) -> Iterator[Path]:
    for each in folders_in(folder):
        # What has a successor is not even locked: that would take it for held.
        theirs = each != own and share.takes(each.name) and each.is_dir()
        if theirs and not _has_successor(each, since):
            yield each


def _has_successor(other: Path, since: float) -> bool:
    """Return whether a process whose journal this is may have one, should it be lost."""
    try:
        with os.scandir(other) as files:
            times = [each.stat().st_mtime for each in files if each.name.endswith(_SUFFIX)]
    except OSError:
        return False
    seen = max(times, default=0.0)
    return seen > since and 0.0 <= time.time() - seen < _SUCCEEDED_SECONDS


def _count_entries(path: Path) -> int:
    began = b' ["%s"' % BEGAN.encode()
    with path.open("rb") as file:
        return sum(line[8 : 8 + len(began)] != began for line in file)
