"""SQLAlchemy without its ORM, in a process of its own: this one has read all of it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import ari_app.process.plain_sqlalchemy
import ari_app.records.store.keeper
from sqlalchemy.ext import asyncio

asyncio.create_async_engine("sqlite+aiosqlite:///:memory:")
print("sqlalchemy.orm" in sys.modules, "sqlalchemy.dialects.postgresql" in sys.modules)
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session

print(AsyncSession.sync_session_class is Session, async_scoped_session.__name__)
print(hasattr(asyncio, "nothing"))
"""


def test_the_orm_is_read_when_it_is_asked_for() -> None:
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == ["False False", "True async_scoped_session", "False"]
