"""Logging: structlog, on standard error, as coloured lines for people or as JSON for machines.

A line is put together where it is logged, and written by a thread (`LineWriter`), so that nothing
waits for whoever reads the log.
"""

from __future__ import annotations

import io
import logging
import os
import re
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

Write = Callable[[bytes], None]

_MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
_MAX_BATCH_BYTES: Final = 64 * 1024
_PAUSE_SECONDS: Final = 0.01
"""After what was written: lines that come meanwhile are written together, and wake nobody."""


class Lines(Protocol):
    """A sink of a log's lines."""

    @property
    def dropped(self) -> int:
        """How many lines were lost."""
        ...

    def put(self, line: bytes) -> None:
        """Write a line, or drop it. Never waits for a reader."""
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

    def close(self, timeout_seconds: float = 2.0) -> bool:
        """Do nothing: no line ever waits."""
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
        """Write a line some time soon, or drop it. Never waits; after `close` it drops."""
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
                hurry = self._closed or self._waiting_bytes >= _MAX_BATCH_BYTES
            if not hurry:
                time.sleep(_PAUSE_SECONDS)

    def _next_batch(self) -> list[bytes] | None:
        """Return the lines to write next; None when the writer is closed and nothing is left."""
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
    """Return whether a short line can be written to a pipe or a socket without waiting."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def write_to(descriptor: int) -> Write:
    """Make a function that writes all of its bytes to a file descriptor.

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


NumberStyle = Literal["masked", "full"]

_MAX_NUMBER: Final = 40
_MAX_VALUE: Final = 1000
# All that could move the cursor, begin another line or hide something: C0, DEL, C1, the separators
# and the marks of direction (Unicode, TR 36).
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_DROPPED: Final = "lines"
_handler: _LineHandler | None = None


def mask_number(number: str) -> str:
    """Return a phone number as the log may show it: its last three digits.

    >>> mask_number("+493023125001")
    '*001'
    """
    digits = [character for character in number if character.isdigit()]
    return "*" + "".join(digits[-3:]) if len(digits) > 4 else number[:_MAX_NUMBER]


@dataclass(frozen=True, slots=True, repr=False)
class Number:
    """A phone number in a log call: shown masked, unless `LOG_NUMBERS` says otherwise."""

    full: str

    def __str__(self) -> str:
        return mask_number(self.full)

    __repr__ = __str__


def set_up_logging(
    log_level: str = "INFO",
    log_format: str = "console",
    numbers: NumberStyle = "masked",
    *,
    in_thread: bool = True,
) -> None:
    """Set up logging for the whole process, also that of libraries.

    Args:
        log_level: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`, as which nothing is logged.
        log_format: `console` or `json`.
        numbers: How phone numbers are shown.
        in_thread: A thread writes; it starts with the first line. Otherwise a line that cannot be
            written at once is lost: for a process that forks.
    """
    global _handler
    level = logging.getLevelNamesMapping()[log_level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(allow=[_DROPPED]),
    ]
    # Without the values of variables, which structlog shows by default: they hold keys, numbers and
    # what people say.
    last: list[Processor]
    is_json = log_format == "json"
    if is_json:
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        last = [
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(),
        ]
    else:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=_traceback
            )
        ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[_without_internals, _Presentable(numbers, is_json=is_json), *last],
    )
    close_log()
    _handler = _LineHandler(sys.stderr, formatter, in_thread=in_thread)
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(level)
    # At DEBUG these print whole messages, and with them what people say and the signed URL.
    for name in ("websockets", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(max(level, logging.INFO))
    # These repeat what is written into the database: who called, and all that was said.
    for name in ("aiosqlite", "asyncpg", "sqlalchemy"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # What a request that is not HTTP holds may be the key of one that should have been.
    server = logging.getLogger("aiohttp.server")
    server.filters[:] = [_without_the_request]


def close_log() -> None:
    """Write what waits, for two seconds at most. Lines that come later are dropped.

    The interpreter does so at its end; a process that ends by `os._exit` has to.
    """
    if _handler is not None:
        _handler.close()


def lines_dropped() -> int:
    """Return how many lines of this process's log were lost, since nobody took them."""
    return 0 if _handler is None else _handler.lines.dropped


class _LineHandler(logging.Handler):
    """Puts lines together, and leaves the writing to others."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter, *, in_thread: bool) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines = self._lines(stream, in_thread)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.lines.put(self._line(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self.lines.close()
        super().close()

    def _lines(self, stream: TextIO, in_thread: bool) -> Lines:
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError):
            # No file, but a program's own window on its log.
            return LineWriter(lambda data: _show(stream, data), self._notice)
        write = write_to(descriptor)
        if in_thread:
            return LineWriter(write, self._notice)
        return DirectWriter(write, lambda: writable(descriptor), self._notice)

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("utf-8", "backslashreplace") + b"\n"

    def _notice(self, dropped: int) -> bytes:
        told = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
        return self._line(
            logging.makeLogRecord({**told, "msg": "log_lines_dropped", _DROPPED: dropped})
        )


class _Presentable:
    """Makes one line of every value, bounds its length, and shows or masks numbers.

    A caller chooses what stands in a SIP header, and an agent what it calls its tools: neither
    shall write lines of its own into the log, or sequences that a terminal obeys. JSON escapes
    them anyway.
    """

    def __init__(self, numbers: NumberStyle, *, is_json: bool) -> None:
        self._shows_numbers = numbers == "full"
        self._escapes = not is_json

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        for key, value in event.items():
            match value:
                case Number(full):
                    event[key] = self._text(full if self._shows_numbers else str(value))
                case str():
                    event[key] = self._text(value)
        return event

    def _text(self, text: str) -> str:
        shown = printable(text[:_MAX_VALUE]) if self._escapes else text[:_MAX_VALUE]
        return shown if len(text) <= _MAX_VALUE else f"{shown}… ({len(text)} characters)"


def printable(text: str) -> str:
    """Return a text with what a terminal would obey written out."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def _without_the_request(record: logging.LogRecord) -> bool:
    # Whoever has something to say here has loaded it; every command has a log.
    from aiohttp.http_exceptions import HttpProcessingError

    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.msg, record.args = f"not HTTP: {type(record.exc_info[1]).__name__}", ()
        record.exc_info = record.exc_text = None
    return True


def _traceback(sio: TextIO, exc_info: ExcInfo) -> None:
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    # Set in, so that no line of an exception's text looks like one of the log's.
    sio.write("\n".join(f"  {printable(line)}" for line in plain.getvalue().splitlines()))


def _show(stream: TextIO, data: bytes) -> None:
    stream.write(data.decode())
    stream.flush()


def _without_internals(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(logger, name, event)
