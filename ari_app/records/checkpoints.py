"""Checkpoints: the files of calls that run, from which another process goes on with them.

Each process has a folder of its own, which it holds locked, and each of its calls a file there, a
line for each thing that becomes known. The file goes with the call. A process that is lost leaves
its folder unlocked; who finds it takes the files into its own. They are meant for memory (tmpfs):
they survive the process and not the machine, and nothing of a call comes to a disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from ari_app.process.files import why_failed, write_all
from ari_app.process.folders import folders_in, locked, lost_in, remove_locked
from ari_app.records.plain_json import plain_json
from ari_app.records.store.spool import checked_line, decode_line

log = structlog.get_logger(__name__)

TAKEN: Final = "taken"
"""The kind of the line that tells when another process has taken the file."""

STATE: Final = "call"
"""The kind of the line that tells all that others do not; the last one counts."""

_SUFFIX: Final = ".call"
# What is only being written, for the others' sake: its call has a whole file yet.
_UNFINISHED: Final = f".new{_SUFFIX}"
_MAX_WAITING: Final = 50_000
_MAX_FILE_BYTES: Final = 16 * 1024 * 1024
_GROWS_BYTES: Final = 256 * 1024
"""By so much a file grows until what counts no longer is taken out."""
_AT_ONCE: Final = 2000
# What comes meanwhile is written at once; a kill loses no more.
_PAUSE_SECONDS: Final = 0.02
_HEARTBEAT_SECONDS: Final = 0.5
_FRESH_SECONDS: Final = 10.0
"""A caller whose process has ended longer ago has given up, or is elsewhere."""
_CLOSE_SECONDS: Final = 2.0
_LOSS_SECONDS: Final = 300.0
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Unreadable(Exception):
    """A file that is none of ours, or is torn in its middle."""


@dataclass(slots=True)
class CheckpointCounts:
    """Counters of a process's files.

    Attributes:
        failed: Calls whose file could not be written, so that nobody could go on with them.
    """

    failed: int = 0


class CheckpointFile:
    """The file of one call. Adding to it never waits, and never raises.

    Args:
        put: Hands work to the thread.
        name: Where it is.
    """

    __slots__ = ("_put", "failed", "file", "name", "size", "thin_at")

    def __init__(self, put: Callable[[tuple[Any, ...]], None], name: str) -> None:
        self.name = name
        self.failed = False
        # The thread's alone.
        self.file = -1
        self.size = 0
        self.thin_at = _GROWS_BYTES
        self._put = put

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.name)

    def add(self, kind: str, *parts: Any) -> None:
        """Add a line: plain JSON, dataclasses and `orjson.Fragment`s, which nobody changes any
        more."""
        if not self.failed:
            self._put((self, kind, parts))

    def remove(self, after_seconds: float = 0.0) -> None:
        """Remove it: the call is over."""
        self._put((self, None, (time.monotonic() + after_seconds,)))


@dataclass(frozen=True, slots=True)
class OrphanedCall:
    """The file of a call whose process was lost; it is this process's now.

    Attributes:
        lines: What it holds, the lines of other processes that took it among them.
        last_seen: When the lost process still lived, in seconds since this machine started.
        taken: When each process took it over, this one included.
        stale: Too long ago for anybody to go on with it.
        foreign: It was another application's, which nobody serves any more.
    """

    file: CheckpointFile
    lines: Sequence[list[Any]]
    last_seen: float
    taken: Sequence[float]
    stale: bool = False
    foreign: bool = False

    @property
    def was_read(self) -> bool:
        """Whether the last process to have it is known to have got beyond reading it."""
        return bool(self.lines) and self.lines[-1][0] != TAKEN


class Checkpoints:
    """The files of this process's calls, and the thread that writes them.

    Args:
        folder: Where all processes of the same application have theirs.
        foreign: Where those of applications had theirs that nobody serves any more.
        stall_seconds: After so long without a sign of life a process is killed; what callers hear
            then has been silence for as long already.
        now: Seconds since this machine started.
    """

    def __init__(
        self,
        folder: Path,
        *,
        foreign: Sequence[Path] = (),
        stall_seconds: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = CheckpointCounts()
        self.folder = folder
        self.own = folder / uuid.uuid4().hex
        self._own = f"{self.own}{os.sep}"
        self._foreign = foreign
        self._fresh_seconds = _FRESH_SECONDS + stall_seconds
        self._now = now
        self._lock = -1
        self._leaves = False
        self._queue: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._files: set[CheckpointFile] = set()
        # With the size of each before, and after that was written down.
        self._took: list[tuple[CheckpointFile, int, int]] = []
        self._to_remove: list[tuple[float, CheckpointFile]] = []
        self._next_removal = math.inf
        self._failure, self._told_until = "", -math.inf
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def open(self) -> tuple[list[OrphanedCall], list[str]]:
        """Begin, and take over what lost processes have left.

        Returns:
            Their calls; and why there are others that nobody can go on with, a word each:
            `unreadable`.

        Raises:
            OSError: The folder cannot be used.
        """
        try:
            self.own.mkdir(parents=True, mode=0o700)
            self._lock = locked(self.own)
        except OSError as error:
            self._failure, self._told_until = why_failed(error), math.inf
            raise
        self._beat()
        left, refused = self._take_over()
        self._thread.start()
        return left, refused

    def begin(self) -> CheckpointFile:
        """Make a file for a call."""
        return CheckpointFile(self._put, f"{self._own}{uuid.uuid4().hex}{_SUFFIX}")

    def warnings(self) -> list[str]:
        """Say why calls would not outlive this process, in a sentence: for `/health/ready`, for
        five minutes after each for which that is so."""
        if time.monotonic() >= self._told_until:
            return []
        return [
            f"Calls end with their worker, should it be lost: {self.folder.parent} cannot be "
            f"written: {self._failure}."
        ]

    def close(self, *, leave: bool = False, untouched: bool = False) -> None:
        """End; what is left of the calls is removed with the folder. May be called twice.

        Args:
            leave: Leave it to the next process instead.
            untouched: As if this process had never had it: what has ended that was no call.
        """
        if self._lock < 0:
            return
        self._leaves = leave
        self._queue.put(None)
        self._thread.join(_CLOSE_SECONDS)
        if not leave:
            remove_locked(self.own, _SUFFIX)
        elif untouched:
            self._give_back()
        os.close(self._lock)
        self._lock = -1

    def _give_back(self) -> None:
        for call, before, after in self._took:
            with contextlib.suppress(OSError):
                if call.size == after:
                    os.truncate(call.name, before)

    def _put(self, work: tuple[Any, ...]) -> None:
        file, kind, _ = work
        if kind is not None and self._queue.qsize() >= _MAX_WAITING:
            # A file with a hole is worse than none.
            file.failed = True
            work = (file, None, (0.0,))
            self.counts.failed += 1
        self._queue.put(work)

    # --- what lost processes have left

    def _take_over(self) -> tuple[list[OrphanedCall], list[str]]:
        left: list[OrphanedCall] = []
        refused: list[str] = []
        for folder, lock in chain.from_iterable(map(lost_in, (self.folder, *self._foreign))):
            foreign = folder.parent != self.folder
            last_seen = _read_beat(lock)
            # One from before this machine's start seems to be of the future; what has just been
            # written is so by a rounding.
            fresh = -1.0 < self._now() - last_seen < self._fresh_seconds
            for path in sorted(folder.glob(f"*{_SUFFIX}")):
                if path.name.endswith(_UNFINISHED):
                    continue
                try:
                    left.append(self._take(path, last_seen, stale=not fresh, foreign=foreign))
                except (OSError, Unreadable) as error:
                    log.error("call_not_readable", why=str(error))
                    refused.append("unreadable")
            remove_locked(folder, _SUFFIX)
        for each in self._foreign:
            with contextlib.suppress(OSError):
                each.rmdir()
        return left, refused

    def _take(self, path: Path, last_seen: float, *, stale: bool, foreign: bool) -> OrphanedCall:
        """Move a file here. It says so before anything else is tried with it: should that be the
        end of this process, too, the next one knows."""
        lines, size = read_lines(path.read_bytes())
        ours = self.own / path.name
        path.rename(ours)
        call = CheckpointFile(self._put, str(ours))
        call.size = size
        call.thin_at += size
        now = self._now()
        try:
            os.truncate(ours, size)
            self._append(call, _line(TAKEN, (now,)))
        except OSError:
            self._let_go(call)
            raise
        self._took.append((call, size, call.size))
        taken = [float(line[1]) for line in lines if line[0] == TAKEN]
        return OrphanedCall(call, lines, last_seen, [*taken, now], stale, foreign)

    def _beat(self) -> None:
        """Tell that this process lives."""
        with contextlib.suppress(OSError):
            os.pwrite(self._lock, b"%18.3f" % self._now(), 0)

    # --- in the thread

    def _run(self) -> None:
        ends, beaten = False, 0.0
        while not ends:
            batch: dict[CheckpointFile, list[bytes]] = {}
            for work in self._some():
                if work is None:
                    ends = True
                    continue
                file, kind, parts = work
                if kind is None:
                    self._to_remove.append((parts[0], file))
                    self._next_removal = min(self._next_removal, parts[0])
                elif not file.failed and (line := self._in_words(file, kind, parts)):
                    batch.setdefault(file, []).append(line)
            for file, lines in batch.items():
                if not file.failed:
                    self._write(file, b"".join(lines))
            now = time.monotonic()
            if now >= self._next_removal:
                self._remove_due(now)
            if now - beaten >= _HEARTBEAT_SECONDS:
                beaten = now
                self._beat()
            if batch:
                time.sleep(_PAUSE_SECONDS)
        for file in list(self._files):
            self._let_go(file, remove=not self._leaves)

    def _in_words(self, file: CheckpointFile, kind: str, parts: tuple[Any, ...]) -> bytes | None:
        try:
            return _line(kind, parts)
        except Exception as error:
            # It must not end the thread, which keeps all the others.
            self._give_up(file, type(error).__name__)
            return None

    def _some(self) -> list[tuple[Any, ...] | None]:
        found: list[tuple[Any, ...] | None] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._queue.get(timeout=_HEARTBEAT_SECONDS))
            while len(found) < _AT_ONCE:
                found.append(self._queue.get_nowait())
        return found

    def _write(self, file: CheckpointFile, data: bytes) -> None:
        try:
            if file.size and file.size + len(data) > min(file.thin_at, _MAX_FILE_BYTES):
                self._thin(file)
            if file.size + len(data) > _MAX_FILE_BYTES:
                raise OSError("it is too large")
            self._append(file, data)
        except OSError as error:
            self._failure = why_failed(error)
            self._told_until = time.monotonic() + _LOSS_SECONDS
            self._give_up(file, self._failure)

    def _give_up(self, file: CheckpointFile, why: str) -> None:
        self.counts.failed += 1
        log.error("call_not_kept", error=why)
        self._let_go(file)

    def _append(self, call: CheckpointFile, data: bytes) -> None:
        if call.file < 0:
            call.file = os.open(call.name, _FLAGS, 0o600)
            self._files.add(call)
        write_all(call.file, data)
        call.size += len(data)

    def _thin(self, call: CheckpointFile) -> None:
        """Take out of a file what counts no longer: in hours it would take more memory than all
        else, and more than a file may have."""
        path = call.path
        new = path.with_name(path.stem + _UNFINISHED)
        file = -1
        try:
            data = thinned(path.read_bytes())
            file = os.open(new, _FLAGS | os.O_TRUNC, 0o600)
            write_all(file, data)
            new.rename(path)
        except OSError as error:
            # It is as good as before.
            log.warning("call_file_not_thinned", error=error.strerror)
            with contextlib.suppress(OSError):
                if file >= 0:
                    os.close(file)
                new.unlink(missing_ok=True)
        else:
            if call.file >= 0:
                os.close(call.file)
            call.file, call.size = file, len(data)
            self._files.add(call)
        call.thin_at = call.size + _GROWS_BYTES

    def _remove_due(self, now: float) -> None:
        waiting = []
        for due, file in self._to_remove:
            if due > now:
                waiting.append((due, file))
            else:
                self._let_go(file)
        self._to_remove = waiting
        self._next_removal = min((due for due, _ in waiting), default=math.inf)

    def _let_go(self, call: CheckpointFile, *, remove: bool = True) -> None:
        file, call.file = call.file, -1
        call.failed = True
        self._files.discard(call)
        with contextlib.suppress(OSError):
            if file >= 0:
                os.close(file)
            if remove:
                os.unlink(call.name)


def _read_beat(lock: int) -> float:
    try:
        return float(os.pread(lock, 32, 0))
    except ValueError:
        return float("inf")


def are_lost(folder: Path) -> bool:
    """Return whether an application has left something, and no process of it lives."""
    found = folders_in(folder) if folder.is_dir() else []
    for each in found:
        try:
            os.close(locked(each, make=False))
        except FileNotFoundError:
            pass
        except OSError:
            return False
    return bool(found)


def has_calls(folder: Path) -> bool:
    """Return whether a lost process has left a call."""
    return any(any(each.glob(f"*{_SUFFIX}")) for each, _ in lost_in(folder))


def forget_left(folder: Path) -> None:
    """Remove what lost processes have left; nobody goes on with it."""
    with contextlib.suppress(OSError):
        for each, _ in lost_in(folder):
            remove_locked(each, _SUFFIX)


def thinned(data: bytes) -> bytes:
    """Return a file's whole lines without each `STATE` but the last. Pure."""
    # What stands before it is the checksum.
    head = b' ["%s",' % STATE.encode()
    lines = data.splitlines(keepends=True)
    states = [n for n, line in enumerate(lines) if line[8 : 8 + len(head)] == head]
    old = frozenset(states[:-1])
    return b"".join(line for n, line in enumerate(lines) if n not in old)


def _line(kind: str, parts: tuple[Any, ...]) -> bytes:
    try:
        text = orjson.dumps([kind, *parts])
    except (orjson.JSONEncodeError, RecursionError):
        # Halves of characters, numbers that JSON has not: whatever a caller or a tool has sent.
        plain = (_plain_part(part) for part in parts)
        text = orjson.dumps([kind, *map(plain_json, plain)])
    return checked_line(text)


def _plain_part(part: Any) -> Any:
    is_data = dataclasses.is_dataclass(part) and not isinstance(part, type)
    return dataclasses.asdict(part) if is_data else part


def read_lines(data: bytes) -> tuple[list[list[Any]], int]:
    """Read a file: its lines, and where the last whole one ends. Pure.

    Raises:
        Unreadable: A line before the last is torn.
    """
    whole = data.rfind(b"\n") + 1
    lines = data[:whole].split(b"\n")[:-1]
    found = [decode_line(line) for line in lines]
    if found and found[-1] is None:
        # What a kill, or a full disk, has torn.
        whole -= len(lines[-1]) + 1
        found.pop()
    if not found:
        raise Unreadable("it is empty")
    read = [line for line in found if line is not None]
    if len(read) < len(found):
        raise Unreadable("it is torn")
    return read, whole
