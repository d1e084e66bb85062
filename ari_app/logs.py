"""Logging: structlog, on standard error, as coloured lines for people or as JSON for machines.

A line is put together where it is logged, and written by a thread (see
:mod:`ari_app.log_writer`), so that nothing waits for whoever reads the log.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from dataclasses import dataclass
from typing import Final, Literal, TextIO

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from ari_app.log_writer import DirectWriter, Lines, LineWriter, writable, write_to

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
    """A phone number as the log may show it: its last three digits.

    >>> mask_number("+4930123456")
    '*456'
    """
    digits = [character for character in number if character.isdigit()]
    return "*" + "".join(digits[-3:]) if len(digits) > 4 else number[:_MAX_NUMBER]


@dataclass(frozen=True, slots=True, repr=False)
class Number:
    """A phone number in a log call: shown masked, unless ``LOG_NUMBERS`` says otherwise."""

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
    # What a request that is not HTTP holds may be the key of one that should have been.
    server = logging.getLogger("aiohttp.server")
    server.filters[:] = [_without_the_request]


def close_log() -> None:
    """Write what waits, for two seconds at most. Lines that come later are dropped.

    The interpreter does so at its end; a process that ends by ``os._exit`` has to.
    """
    if _handler is not None:
        _handler.close()


def flush_log(timeout_seconds: float = 2.0) -> bool:
    """Wait until all lines are written, for so long at most; whether they are."""
    return _handler is None or _handler.lines.flush(timeout_seconds)


def lines_dropped() -> int:
    """How many lines of this process's log were lost, since nobody took them."""
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
        shown = _printable(text[:_MAX_VALUE]) if self._escapes else text[:_MAX_VALUE]
        return shown if len(text) <= _MAX_VALUE else f"{shown}… ({len(text)} characters)"


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def _without_the_request(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.msg, record.args = f"not HTTP: {type(record.exc_info[1]).__name__}", ()
        record.exc_info = record.exc_text = None
    return True


def _traceback(sio: TextIO, exc_info: ExcInfo) -> None:
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    # Set in, so that no line of an exception's text looks like one of the log's.
    sio.write("\n".join(f"  {_printable(line)}" for line in plain.getvalue().splitlines()))


def _show(stream: TextIO, data: bytes) -> None:
    stream.write(data.decode())
    stream.flush()


def _without_internals(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(logger, name, event)
