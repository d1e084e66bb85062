"""Writes log lines without ever making the program wait for whoever reads them.

A pipe whose reader has stopped, a disk that stalls: a write to either takes for ever, and a loop
that writes there carries no sound meanwhile. So lines wait in memory, within a bound, for a thread
that may be held up. What does not fit is dropped, counted, and told once lines flow again.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

Write = Callable[[bytes], None]

_MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
_MAX_BATCH_BYTES: Final = 64 * 1024


class Lines(Protocol):
    """What takes a log's lines."""

    @property
    def dropped(self) -> int:
        """How many lines were lost."""
        ...

    def put(self, line: bytes) -> None:
        """Write a line, or drop it. Never waits for a reader."""
        ...

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until all lines are written, for so long at most; whether they are."""
        ...

    def close(self, timeout_seconds: float = 2.0) -> bool:
        """Write what waits, for so long at most, and take nothing more; whether all is written.

        May be called again.
        """
        ...


class DirectWriter:
    """Writes each line at once where that needs no waiting, and otherwise drops it.

    For a process that must not have a second thread, and has little to say. A file on a disk that
    stalls does hold it up: nothing tells beforehand.

    Args:
        write: Writes bytes.
        ready: Whether that can be done without waiting.
        notice: Makes the line that says how many were dropped.
    """

    def __init__(
        self, write: Write, ready: Callable[[], bool], notice: Callable[[int], bytes]
    ) -> None:
        self._write = write
        self._ready = ready
        self._notice = notice
        self._untold = 0
        self.dropped = 0

    def put(self, line: bytes) -> None:
        """Write a line now, or drop it."""
        try:
            if self._ready():
                if self._untold:
                    line = self._notice(self._untold) + line
                self._write(line)
                self._untold = 0
                return
        except OSError:
            pass
        self.dropped += 1
        self._untold += 1

    def flush(self, timeout_seconds: float) -> bool:
        """Nothing ever waits."""
        return True

    def close(self, timeout_seconds: float = 2.0) -> bool:
        """Nothing ever waits."""
        return True


class LineWriter:
    """A bounded queue of lines, and the thread that writes them.

    The thread starts with the first line, and starts anew in a process that was forked.

    Args:
        write: Writes bytes, however long that takes. An OSError loses them; they are counted.
        notice: Makes the line that says how many were dropped.
        max_waiting_bytes: What may wait. A line that does not fit is dropped.
    """

    def __init__(
        self,
        write: Write,
        notice: Callable[[int], bytes],
        *,
        max_waiting_bytes: int = _MAX_WAITING_BYTES,
    ) -> None:
        self._write = write
        self._notice = notice
        self._max_waiting_bytes = max_waiting_bytes
        self._dropped = 0
        self._told = 0
        self._forked()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        # What waited is the parent's to write, and its thread and locks are not ours.
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._news = threading.Condition()
        self._idle = True
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """How many lines were lost."""
        return self._dropped

    def put(self, line: bytes) -> None:
        """Write a line some time soon, or drop it. Never waits; after :meth:`close` it drops."""
        with self._news:
            if self._closed or self._waiting_bytes + len(line) > self._max_waiting_bytes:
                self._dropped += 1
                return
            self._lines.append(line)
            self._waiting_bytes += len(line)
            if self._thread is None:
                # A write that never ends must not keep the program from ending.
                self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until all lines are written, for so long at most; whether they are."""
        with self._news:
            return self._news.wait_for(lambda: self._idle and not self._lines, timeout_seconds)

    def close(self, timeout_seconds: float = 2.0) -> bool:
        """Write what waits, for so long at most, and take nothing more; whether all is written.

        May be called again.
        """
        with self._news:
            self._closed = True
            self._news.notify_all()
        return self.flush(timeout_seconds)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            lost = 0
            try:
                self._write(b"".join(batch))
            except OSError:
                lost = len(batch)
            with self._news:
                self._dropped += lost
                self._waiting_bytes -= sum(map(len, batch))
                untold = 0 if lost else self._dropped - self._told
                self._told += untold
            if untold:
                self._tell(untold)
            with self._news:
                self._idle = True
                self._news.notify_all()

    def _next_batch(self) -> list[bytes] | None:
        """The lines to write next; None when the writer is closed and nothing is left."""
        with self._news:
            self._news.wait_for(lambda: self._lines or self._closed)
            batch: list[bytes] = []
            size = 0
            while self._lines and size < _MAX_BATCH_BYTES:
                batch.append(self._lines.popleft())
                size += len(batch[-1])
            self._idle = not batch
            return batch or None

    def _tell(self, dropped: int) -> None:
        try:
            self._write(self._notice(dropped))
        except OSError:
            with self._news:
                self._told -= dropped


def writable(descriptor: int) -> bool:
    """Whether a short line can be written to a pipe or a socket without waiting."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def write_to(descriptor: int) -> Write:
    """A function that writes all of its bytes to a file descriptor.

    It goes past the interpreter's own streams: their locks would be held by a thread that is stuck,
    and the interpreter waits for them when it ends.
    """

    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                # Somebody who shares it has made it non-blocking.
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll()

    return write
