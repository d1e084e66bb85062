"""The call log's database: connections, transactions, its version, and its faults in sentences."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ari_app.errors import AppError, ConfigError
from ari_app.process.files import identity, make_database
from ari_app.process.network import why_unreachable
from ari_app.records.store.address import Address
from ari_app.records.store.schema import calls
from ari_app.records.store.sqlite_probe import REVISION

_CONNECT_SECONDS: Final = 10.0
_PRAGMAS: Final = (
    "busy_timeout=5000",
    # What is in the database is taken out of the journal: a loss of power must not take it back.
    "synchronous=FULL",
    "foreign_keys=ON",
    "secure_delete=ON",
    # A WAL that has once grown does not stay large.
    "journal_size_limit=4194304",
)
_MERGED_PAGES: Final = 2000
_MERGE: Final = sa.text("INSERT INTO calls_words (calls_words, rank) VALUES ('merge', :pages)")
_CHANGES: Final = sa.text("SELECT total_changes()")
_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_ENCODINGS: Final = ("UTF8", "SQL_ASCII")
"""Of PostgreSQL's, those that have every letter."""
_AT_FAULT: Final = ("22", "54")
"""The classes of PostgreSQL's errors that blame a value, and one that is too large for it."""
_READ_ONLY: Final = "25006"
_TAKEN: Final = "23505"
"""A number for a new row is there already, for nothing else can be twice: the next one will do."""
_LOCK: Final = 0x617269_617070
"""The number of the lock that PostgreSQL gives to one writer at a time: `ariapp`."""


class WrongVersion(ConfigError):
    """The tables are older or newer than this program; the text says what to do."""


class Database:
    """A database, which need not be there yet.

    It belongs to the event loop that uses it first.

    Args:
        address: Where it is.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.is_sqlite = address.kind == "sqlite"
        self._engine: AsyncEngine | None = None
        self._file: tuple[int, int] | None = None
        self._threads: WeakSet[threading.Thread] = WeakSet()

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()
        # A thread that still has to answer finds no loop when ours is over.
        for thread in self._threads:
            await asyncio.to_thread(thread.join, _CONNECT_SECONDS)
        self._threads.clear()

    async def leave_if_gone(self) -> bool:
        """Let go of a file of SQLite's that is not at its place any more: what would be written
        into it is lost. Whether it was so; the next connection makes a new one, or takes what is
        there now."""
        engine = self._engine
        if engine is None or not self.is_sqlite or self._file == identity(self.address.path):
            return False
        self._engine = None
        # Before there is another one: SQLite removes the files beside it by their names.
        await engine.dispose()
        return True

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that only reads."""
        async with self._connected().connect() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that writes, the only one anywhere; it is committed at the end."""
        engine = self._connected().execution_options(ari_app_writes=True)
        async with engine.begin() as connection:
            if not self.is_sqlite:
                # Should this process stall, or its machine vanish, the others wait so long only.
                await connection.execute(
                    sa.text(
                        "SELECT set_config('idle_in_transaction_session_timeout', '30s', true),"
                        " set_config('lock_timeout', '20s', true),"
                        " set_config('statement_timeout', '60s', true)"
                    )
                )
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    def _connected(self) -> AsyncEngine:
        if self._engine is None:
            self._engine = self._sqlite() if self.is_sqlite else self._postgresql()
        return self._engine

    def _sqlite(self) -> AsyncEngine:
        path = self.address.path
        path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite says better why it cannot be made.
        with contextlib.suppress(OSError):
            make_database(path)
        self._file = identity(path)

        def connect(*place: Any, **options: Any) -> Any:
            import aiosqlite

            connection = aiosqlite.connect(*place, **options)
            connection._thread.daemon = True
            self._threads.add(connection._thread)
            return connection

        engine = create_async_engine(
            sa.URL.create("sqlite+aiosqlite", database=str(path)),
            connect_args={"async_creator_fn": connect},
            pool_size=2,
            max_overflow=2,
            pool_timeout=_CONNECT_SECONDS,
            **_JSON,
        )

        @sa.event.listens_for(engine.sync_engine, "connect")
        def _connected(connection: Any, _: object) -> None:
            # We say when a transaction begins; by itself the driver would not for CREATE TABLE.
            connection.isolation_level = None
            cursor = connection.cursor()
            for pragma in _PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")
            try:
                cursor.execute("PRAGMA journal_mode=WAL")
            except Exception as error:
                # Whoever holds it now does the same, or the next connection of ours.
                if "locked" not in str(error):
                    raise
            cursor.close()

        @sa.event.listens_for(engine.sync_engine, "begin")
        def _begins(connection: sa.Connection) -> None:
            writes = connection.get_execution_options().get("ari_app_writes")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    def _postgresql(self) -> AsyncEngine:
        async def connect(**options: Any) -> Any:
            import asyncpg

            return await asyncpg.connect(
                self.address.dsn, timeout=_CONNECT_SECONDS, command_timeout=90, **options
            )

        engine = create_async_engine(
            "postgresql+asyncpg://",
            connect_args={
                "async_creator_fn": connect,
                # Behind a pgbouncer the next statement may find itself at another server.
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: f"ari_app_{uuid.uuid4().hex}",
            },
            pool_size=2,
            max_overflow=2,
            pool_timeout=_CONNECT_SECONDS,
            pool_pre_ping=True,
            pool_recycle=600,
            **_JSON,
        )

        @sa.event.listens_for(engine.sync_engine, "handle_error")
        def _fails(context: sa.ExceptionContext) -> None:
            # After a fail-over a connection may lead to what is a standby now, and works otherwise:
            # the next one is made anew, and finds the primary.
            if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
                context.is_disconnect = True

        return engine

    # --- its version

    async def revision(self) -> str | None:
        """Return which migration was the last; None: the database is empty."""
        async with self.reading() as connection:
            return await connection.run_sync(_revision)

    async def require_version(self, *, upgrade: bool = True) -> None:
        """See that the tables are those of this program; those of SQLite can be made so.

        Args:
            upgrade: Bring those of SQLite up to date.

        Raises:
            WrongVersion: They are not.
            DBAPIError: The database cannot be used just now.
        """
        revision = await self.revision()
        if revision == REVISION:
            return
        if self.is_sqlite and upgrade:
            await self.upgrade()
        elif self.is_sqlite:
            if revision is not None and revision not in revisions():
                raise self._newer()
        elif revision is None:
            raise WrongVersion(
                f"The call log's database ({self.address.shown}) has no tables yet. Run "
                "`ari-app db upgrade` once."
            )
        elif revision in revisions():
            raise WrongVersion(
                f"The call log's database ({self.address.shown}) is of an older ari-app. Run "
                "`ari-app db upgrade`; what is running meanwhile goes on."
            )
        else:
            raise self._newer()

    async def count_calls(self) -> int | None:
        """Return how many calls are kept; None: the tables are not those of this program."""
        if await self.revision() != REVISION:
            return None
        async with self.reading() as connection:
            return await connection.scalar(sa.select(sa.func.count()).select_from(calls))

    async def upgrade(self) -> tuple[str | None, str]:
        """Bring the tables up to date: from and to which revision.

        Raises:
            WrongVersion: They are of a newer program.
            ConfigError: The database cannot hold what people say.
            DBAPIError: The database cannot be used just now.
        """
        async with self.writing() as connection:
            # Another process may just have done it.
            before = await connection.run_sync(_revision)
            if before is not None and before not in revisions():
                raise self._newer()
            if before is None and not self.is_sqlite:
                await self._require_letters(connection)
            if before != REVISION:
                await connection.run_sync(_migrate)
        return before, REVISION

    async def _require_letters(self, connection: AsyncConnection) -> None:
        encoding = await connection.scalar(sa.text("SHOW server_encoding"))
        if encoding not in _ENCODINGS:
            raise ConfigError(
                f"The call log's database ({self.address.shown}) is in {encoding}, which has not "
                "all letters. Make it anew with `createdb --encoding=UTF8 --template=template0`."
            )

    def _newer(self) -> WrongVersion:
        return WrongVersion(
            f"The call log's database ({self.address.shown}) is of a newer ari-app, which this one "
            "cannot read. Install that one, or name another database in DATABASE_URL."
        )

    async def tidy(self) -> bool:
        """Leave nothing of what was deleted in SQLite's files. PostgreSQL sees to its own.

        Returns:
            False: there may be something left, for somebody is reading them.
        """
        if not self.is_sqlite:
            return True
        # Words that were deleted stay in the index until its parts are merged: in steps, so that
        # calls can be written in between. The first one, negative, begins with all parts.
        pages = -_MERGED_PAGES
        while True:
            async with self.writing() as connection:
                before = await connection.scalar(_CHANGES)
                await connection.execute(_MERGE, {"pages": pages})
                after = await connection.scalar(_CHANGES)
            if pages > 0 and (after or 0) - (before or 0) < 2:
                break
            pages = _MERGED_PAGES
        async with self._connected().connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            async with driver.execute("PRAGMA wal_checkpoint(TRUNCATE)") as answer:
                busy, *_ = await answer.fetchone()
        return not busy

    # --- its faults

    def explain(self, error: BaseException) -> str:
        """Say in a sentence why the database could not be used."""
        if isinstance(error, AppError):
            return str(error)
        shown = self.address.shown
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        text = str(cause).strip().partition("\n")[0]
        if isinstance(error, TimeoutError):
            return f"The call log's database ({shown}) does not answer in time."
        if self.is_sqlite:
            return _explain_sqlite(shown, text)
        return _explain_postgresql(shown, _innermost(cause), text)


_JSON: Final[dict[str, Any]] = {
    "json_serializer": lambda value: orjson.dumps(value).decode(),
    "json_deserializer": orjson.loads,
}


def is_at_fault(error: BaseException) -> bool:
    """Return whether it is what was to be written that the database refuses, and not the
    database that fails."""
    if isinstance(error, DBAPIError):
        state = str(getattr(error.orig, "sqlstate", None) or "")
        if isinstance(error, DataError | IntegrityError):
            return state != _TAKEN
        # Of PostgreSQL's faults SQLAlchemy's adapter knows few by their kind.
        return state[:2] in _AT_FAULT
    return isinstance(error, StatementError | ValueError | TypeError | OverflowError)


def revisions() -> Sequence[str]:
    """Return all revisions that this program knows, the oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_configuration())
    return [script.revision for script in scripts.walk_revisions()][::-1]


def _configuration() -> Any:
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return configuration


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _migrate(connection: sa.Connection, revision: str = REVISION) -> None:
    from alembic import command

    configuration = _configuration()
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, revision)


def _explain_sqlite(path: str, text: str) -> str:
    lower = text.lower()
    if "locked" in lower or "busy" in lower:
        what = "is held locked by another program; end it, or let it finish"
    elif "readonly" in lower or "read-only" in lower:
        what = "is read-only; make the file and its folder writable for this user"
    elif "full" in lower:
        what = "cannot grow: the disk is full"
    elif "unable to open" in lower:
        what = "cannot be opened; see whether its folder is there and writable for this user"
    elif "not a database" in lower or "malformed" in lower:
        what = "is no SQLite database, or is damaged; name another file, or put a copy in its place"
    elif "disk i/o" in lower:
        what = "cannot be read or written: the disk reports an error"
    else:
        what = f"cannot be used: {text or 'no reason was given'}"
    return f"The call log's database ({path}) {what}."


def _explain_postgresql(shown: str, cause: BaseException, text: str) -> str:
    name = type(cause).__name__
    if isinstance(cause, TimeoutError | asyncio.CancelledError) or "Timeout" in name:
        what = "does not answer in time"
    elif name in ("InvalidPasswordError", "InvalidAuthorizationSpecificationError"):
        what = "refuses our name or password; compare them with DATABASE_URL"
    elif name == "InvalidCatalogNameError":
        what = "has no such database; make it with createdb, or name another"
    elif name in ("TooManyConnectionsError", "CannotConnectNowError"):
        what = "takes no connection just now"
    elif name == "ReadOnlySQLTransactionError":
        what = "is read-only, as a standby is; name the primary"
    elif name == "UniqueViolationError":
        what = (
            "numbers new calls as old ones; run `SELECT setval('calls_id_seq', max(id)) FROM calls`"
        )
    elif name == "DiskFullError":
        what = "cannot grow: its disk is full"
    elif name == "InsufficientPrivilegeError":
        what = "does not let this user do that; see that it owns the tables"
    elif isinstance(cause, ssl.SSLError) or "SSL" in text:
        what = f"cannot be reached securely: {text}; see sslmode in DATABASE_URL"
    elif isinstance(cause, OSError):
        what = f"cannot be reached: {why_unreachable(cause)}; compare its address in DATABASE_URL"
    else:
        what = f"cannot be used: {text or name}"
    return f"The call log's database ({shown}) {what}."


def _innermost(error: BaseException) -> BaseException:
    """Return the driver's own error; SQLAlchemy's adapter wraps it."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error
