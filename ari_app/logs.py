"""Logging: structlog, on standard error, as coloured lines for people or as JSON for machines."""

from __future__ import annotations

import logging
import sys
from typing import Protocol

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger


class TextWriter(Protocol):
    """Where a log can go."""

    def write(self, text: str, /) -> object: ...


def mask_number(number: str) -> str:
    """A phone number as the log may show it: its last three digits.

    >>> mask_number("+4930123456")
    '*456'
    """
    digits = [character for character in number if character.isdigit()]
    return "*" + "".join(digits[-3:]) if len(digits) > 4 else number


def set_up_logging(
    log_level: str = "INFO", log_format: str = "console", stream: TextWriter | None = None
) -> None:
    """Set up logging for the whole process, also that of libraries.

    Args:
        log_level: `DEBUG`, `INFO`, `WARNING` or `ERROR`.
        log_format: `console` or `json`.
        stream: Where to, instead of standard error.
    """
    level = logging.getLevelNamesMapping()[log_level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Without the values of variables, which structlog shows by default: they hold keys, numbers and
    # what people say.
    last: list[Processor]
    if log_format == "json":
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        last = [
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(),
        ]
    else:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[_without_internals, *last]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # At DEBUG these print whole messages, and with them what people say and the signed URL.
    for name in ("websockets", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(max(level, logging.INFO))


def _without_internals(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(logger, name, event)
