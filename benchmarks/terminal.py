"""What the benchmarks' commands show: tables, and no log in between."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from rich import box
from rich.table import Table

from benchmarks.rows import Rows


def table_of(rows: Rows) -> Table:
    """Rows for the terminal."""
    table = Table(
        title=rows.title,
        caption=rows.note or None,
        title_justify="left",
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in rows.columns:
        table.add_column(column, overflow="fold")
    for line in rows.lines:
        table.add_row(*line)
    return table


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Keep what this process's own agent and phones log from tearing the display."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
