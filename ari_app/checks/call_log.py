"""The call log: its database, the journal's folder, and room for both."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Final

from ari_app.checks.finding import EVERYTHING, NOTHING, Finding, failed, ok, warning
from ari_app.errors import ConfigError
from ari_app.process.files import is_absent, nearest
from ari_app.records.store.address import Address, read_address
from ari_app.records.store.log import CallLog
from ari_app.records.store.sqlite_probe import calls_in
from ari_app.settings import Settings

CALL_LOG: Final = "Call log"
_LITTLE_BYTES: Final = 1024**3


async def check_open_log(call_log: CallLog) -> list[Finding]:
    """Check whether what `serve` has opened can be written."""
    error = await call_log.looked()
    # The disk may be slow, and calls run already.
    journal = await asyncio.to_thread(lambda: not_writable(nearest(call_log.folder)))
    found = []
    if isinstance(error, ConfigError):
        found.append(failed(CALL_LOG, str(error)))
    elif error is not None:
        meanwhile = "Until it can be used, the journal keeps the calls."
        if journal:
            meanwhile = "Calls are in memory alone, and lost when the service ends."
        found.append(failed(CALL_LOG, f"{error} {meanwhile}", uses=NOTHING, may_pass=True))
    if journal:
        text = _closed("RECORDS_JOURNAL_DIR", call_log.folder, journal)
        found.append(failed(CALL_LOG, text, uses=NOTHING, may_pass=True))
    return found


async def check_call_log(settings: Settings) -> list[Finding]:
    """Check all that can be seen while nothing is open; nothing is made or changed."""
    if not settings.database_url:
        return []
    address = read_address(settings.database_url)
    journal = settings.records_journal_dir or address.journal
    return [await _database(address), *_folder("RECORDS_JOURNAL_DIR", journal)]


async def _database(address: Address) -> Finding:
    if address.kind == "sqlite" and is_absent(address.path):
        # A relative one counts from the folder in which a command is run, and that may be another.
        path = address.path.absolute()
        problem = not_writable(nearest(path.parent))
        if problem:
            return failed(
                CALL_LOG,
                f"DATABASE_URL: {path} cannot be made: {problem}. Name a file in a folder "
                "that this user may write.",
                uses=NOTHING,
            )
        return ok(CALL_LOG, f"{path} will be made")
    if address.kind == "sqlite":
        kept = await asyncio.to_thread(calls_in, address.path)
        if kept is not None:
            return ok(CALL_LOG, f"{address.shown} has {kept} calls")
    from ari_app.records.store.database import Database, WrongVersion

    database = Database(address)
    try:
        await database.require_version(upgrade=False)
        count = await database.count_calls()
    except WrongVersion as error:
        return failed(CALL_LOG, str(error), uses=EVERYTHING)
    except Exception as error:
        return failed(CALL_LOG, database.explain(error), uses=NOTHING, may_pass=True)
    finally:
        await database.close()
    if count is None:
        return ok(CALL_LOG, f"{address.shown} will be brought up to date by `serve`")
    return ok(CALL_LOG, f"{address.shown} has {count} calls")


def _folder(setting: str, folder: Path) -> list[Finding]:
    there = nearest(folder)
    problem = not_writable(there)
    if problem:
        return [failed(CALL_LOG, _closed(setting, folder, problem), uses=NOTHING)]
    free = shutil.disk_usage(there).free
    if free < _LITTLE_BYTES:
        return [
            warning(
                CALL_LOG,
                f"There are {free / 1024**2:.0f} MiB free where {folder} is, and calls wait there "
                "while the database is away. Make room.",
            )
        ]
    return []


def _closed(setting: str, folder: Path, problem: str) -> str:
    return (
        f"The journal's folder {folder} cannot be written: {problem}. Make it writable for this "
        f"user, or name another in {setting}."
    )


def not_writable(folder: Path) -> str:
    """Return why no file can be made in a folder; nothing if one can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or type(error).__name__
