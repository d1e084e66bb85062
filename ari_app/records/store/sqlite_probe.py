"""Looks into SQLite's file of the call log without SQLAlchemy, whose import takes as long as all
else that a check does."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

REVISION: Final = "0002"
"""The newest migration; a test holds it against the folder."""


def is_current(file: Path) -> bool:
    """Return whether a file is there and of this program's version; nothing in it is changed."""
    return _ask(file, "SELECT 1") is not None


def calls_in(file: Path) -> int | None:
    """Return how many calls a file of this program's version has; nothing in it is changed.

    None: it is of another version, or cannot be read so; `Database` knows more.
    """
    return _ask(file, "SELECT count(*) FROM calls")


def holds_old(file: Path, before: datetime | None) -> bool:
    """Return whether a file may hold something that is to be forgotten.

    Args:
        file: Where; nothing in it is changed.
        before: Calls that began before then are; None: none are.
    """
    # As SQLAlchemy writes a moment.
    moment = "" if before is None else f"{before.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"
    found = _ask(
        file,
        "SELECT EXISTS (SELECT 1 FROM early_parts) OR EXISTS (SELECT 1 FROM deleted_calls)"
        " OR EXISTS (SELECT 1 FROM calls WHERE started_at < ?)",
        moment,
    )
    return found != 0


def _ask(file: Path, question: str, *parameters: str) -> int | None:
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            found = opened.execute("SELECT version_num FROM alembic_version").fetchall()
            if found != [(REVISION,)]:
                return None
            return int(opened.execute(question, parameters).fetchone()[0])
    except sqlite3.Error:
        return None
