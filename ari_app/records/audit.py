"""The audit file: a line of JSON for each change that somebody has asked for.

Lines are on the disk soon after, by a thread: nobody waits for it. What the disk does not take is
tried again every second, and waits in memory meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from ari_app.errors import ConfigError
from ari_app.process.files import identity, is_of_the_disk, keep_from_others, write_all
from ari_app.records.plain_json import stamp

log = structlog.get_logger(__name__)

MODE: Final = 0o600
_MAX_WAITING: Final = 10_000
_AT_ONCE: Final = 500
_RETRY_SECONDS: Final = 1.0
_SLOW_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 5.0
_LOSS_SECONDS: Final = 300.0


class AuditFile:
    """A file that only grows; whoever rotates it may rename, remove or empty it at any time.

    Several processes may write to one file.

    Args:
        path: Where it is; made for our user alone.
        max_waiting: So many lines may wait for the disk; one more is lost.

    Attributes:
        written: Lines that are on the disk.
        lost: Lines that are not, and will not be.
    """

    def __init__(self, path: Path, *, max_waiting: int = _MAX_WAITING) -> None:
        self.path = path
        self.written = self.lost = 0
        self._max_waiting = max_waiting
        self._given = self._taken = 0
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._file: int | None = None
        self._failure: str | None = None
        self._busy_since: float | None = None
        self._lost_before, self._lost_until = 0, 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    # --- life

    def open(self, *, again: bool = False) -> None:
        """Open the file, and begin. Where its disk is full, or fails, lines wait.

        Args:
            again: It was written before: should it be away, lines wait, too.

        Raises:
            ConfigError: It cannot be written; a sentence.
        """
        try:
            self._reopen()
        except OSError as error:
            if not (again or is_of_the_disk(error)):
                raise ConfigError(not_writable(self.path, error)) from None
            self._fails(error)
        self._thread.start()

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Write what waits, for so long at most. Blocks; may be called twice."""
        self._closing.set()
        self._lines.put(None)
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self.waiting:
            log.error("audit_not_written", lines=self.waiting)

    # --- on the event loop

    def write(self, entry: Mapping[str, Any]) -> None:
        """Keep what was asked for, with the time; never waits, never raises.

        Args:
            entry: Plain values.
        """
        if self.waiting >= self._max_waiting:
            self.lost += 1
            return
        try:
            at = stamp(datetime.now(UTC))
            line = orjson.dumps({"time": at, **entry}, option=orjson.OPT_APPEND_NEWLINE)
        except (TypeError, ValueError):
            self.lost += 1
            log.exception("audit_lost")
            return
        self._given += 1
        self._lines.put(line)

    @property
    def waiting(self) -> int:
        """How many lines wait for the disk."""
        return self._given - self._taken

    def warnings(self) -> list[str]:
        """Say what is wrong, in a sentence: for `/health/ready`. A loss is told for five
        minutes."""
        now = time.monotonic()
        if self.lost > self._lost_before:
            self._lost_before, self._lost_until = self.lost, now + _LOSS_SECONDS
        why = self._failure
        if why is None and self._busy_since is not None:
            slow = now - self._busy_since
            why = f"the disk takes {slow:.0f} s" if slow > _SLOW_SECONDS else None
        found = []
        if why is not None:
            found.append(f"{self.waiting} lines wait: {why}.")
        if now < self._lost_until:
            found.append(f"Lines are lost, {self.lost} so far.")
        if not found:
            return []
        return [" ".join((f"AUDIT_FILE {self.path} is not written as it should be.", *found))]

    # --- the thread

    def _run(self) -> None:
        over = False
        while not over:
            lines = [self._lines.get()]
            with contextlib.suppress(queue.Empty):
                while len(lines) < _AT_ONCE:
                    lines.append(self._lines.get_nowait())
            over = None in lines
            batch = [line for line in lines if line is not None]
            while batch and not self._append(batch):
                if self._closing.wait(_RETRY_SECONDS):
                    # One more time, and then it is over.
                    over = True
                    if self._append(batch):
                        break
                    return
        if self._file is not None:
            os.close(self._file)

    def _append(self, batch: list[bytes]) -> bool:
        """Write lines to the disk; whether they are there."""
        self._busy_since = time.monotonic()
        try:
            self._write(b"".join(batch))
        except OSError as error:
            self._fails(error)
            return False
        finally:
            self._busy_since = None
        if self._failure is not None:
            log.info("audit_written_again", path=str(self.path))
            self._failure = None
        self._taken += len(batch)
        self.written += len(batch)
        return True

    def _fails(self, error: OSError) -> None:
        why = error.strerror or type(error).__name__
        if self._failure is None:
            log.error("audit_fails", path=str(self.path), error=why)
        self._failure = why

    def _write(self, data: bytes) -> None:
        """Add all of it, or nothing.

        Raises:
            OSError: Nothing was added.
        """
        if self._file is None or not self._is_current(self._file):
            self._reopen()
        file = self._file
        assert file is not None, "it was just opened"
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            size = os.fstat(file).st_size
            try:
                write_all(file, data)
                os.fdatasync(file)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, size)
                raise
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)

    def _is_current(self, file: int) -> bool:
        """Whether what is open is what has the name; otherwise it was rotated."""
        found = os.fstat(file)
        return identity(self.path) == (found.st_dev, found.st_ino)

    def _reopen(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self.path, flags, MODE)
        keep_from_others(self.path)


def not_writable(path: Path, error: OSError) -> str:
    """Say that the file cannot be written, and what to do."""
    return (
        f"AUDIT_FILE {path} cannot be written: {error.strerror}. Name a file in a folder that the "
        "service may write to, or empty the setting."
    )
