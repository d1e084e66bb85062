"""The spool: a file of SQLite with what is to be sent, and what became of it.

Each change is one transaction on disk, so a process may die at any moment. Other processes may use
the same file. Nothing here knows a thread or a clock; who calls it says what time it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ari_app.process.files import identity, make_database
from ari_app.records.webhooks.events import Event
from ari_app.records.webhooks.schedule import Answer, Fate, Next

_VERSION: Final = 1
_BUSY_SECONDS: Final = 5.0
_MAX_BYTES: Final = 1024**3
_KEEP_SECONDS: Final = 30 * 86_400.0
_FULL_ENOUGH: Final = 0.8
_AT_A_TIME: Final = 500
_NO_RECEIVER: Final = "WEBHOOK_URL names fewer receivers now"

_SCHEMA: Final = f"""
CREATE TABLE events (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    session_id TEXT NOT NULL,
    created_at REAL NOT NULL,
    body BLOB
);
CREATE INDEX events_of_call ON events (session_id);
CREATE TABLE deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    receiver INTEGER NOT NULL,
    session_id TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    tried_at REAL,
    due_at REAL NOT NULL,
    status INTEGER,
    error TEXT,
    settled_at REAL,
    UNIQUE (event_id, receiver)
);
CREATE INDEX due ON deliveries (receiver, due_at, seq) WHERE state = 'waiting';
CREATE INDEX tried ON deliveries (tried_at) WHERE state = 'waiting';
CREATE INDEX in_order ON deliveries (receiver, session_id, seq) WHERE state = 'waiting';
CREATE INDEX dead ON deliveries (seq) WHERE state = 'dead';
CREATE INDEX settled ON deliveries (settled_at) WHERE settled_at IS NOT NULL;
PRAGMA user_version = {_VERSION};
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to one receiver.

    Attributes:
        seq: Its number; what was told earlier has a lower one.
        receiver: The place of its address in `WEBHOOK_URL`, from 1.
        state: `waiting`, `delivered` or `dead`.
        attempts: How many there have been.
        tried_at, due_at, settled_at: Unix times: of the last attempt, before which there is no
            other one, and of the end.
        status, error: What the last attempt came to.
    """

    seq: int
    event_id: str
    kind: str
    session_id: str
    receiver: int
    state: str
    attempts: int
    created_at: float
    tried_at: float | None
    due_at: float
    settled_at: float | None
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Ready:
    """A delivery whose time has come, with what is sent, and the trace that it belongs to."""

    seq: int
    event_id: str
    kind: str
    session_id: str
    attempts: int
    body: bytes
    traceparent: str | None = None


@dataclass(slots=True)
class Counts:
    """How many deliveries wait, and how many were given up."""

    waiting: int = 0
    dead: int = 0


_COLUMNS: Final = (
    "d.seq, d.event_id, e.kind, d.session_id, d.receiver, d.state, d.attempts, e.created_at, "
    "d.tried_at, d.due_at, d.settled_at, d.status, d.error"
)
# A body is as large as a call is long: it is looked into here, where no call waits.
_TRACEPARENT: Final = (
    "CASE WHEN json_valid(CAST(e.body AS TEXT)) "
    "THEN json_extract(CAST(e.body AS TEXT), '$.call.traceparent') END"
)
_JOINED: Final = "FROM deliveries d JOIN events e ON e.id = d.event_id"


_MAGIC: Final = b"SQLite format 3\0"
_VERSION_AT, _HEAD_BYTES = 60, 64
"""Where `user_version` stands in a file of SQLite's, big-endian."""
_NO_DATABASE: Final = "is no database of SQLite, or is damaged"
_SOMETHING_ELSE: Final = "is a database of something else"


class SpoolUnusable(Exception):
    """The file is there and is no spool of ours. The text is a clause that says why."""


def _other_version(version: int) -> str:
    return f"is of version {version}, and this program knows {_VERSION}"


class Spool:
    """The file, opened; made when there is none, for its owner alone.

    Args:
        path: Where it is. Two more files stand beside it while it is open.
        max_bytes: It never grows beyond that: putting something into it fails then.

    Raises:
        OSError, sqlite3.Error: It cannot be opened.
        SpoolUnusable: It is something else.
    """

    def __init__(self, path: Path, *, max_bytes: int = _MAX_BYTES) -> None:
        make_database(path)
        self._path, self._file = path, identity(path)
        self._db = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(max_bytes)
        except sqlite3.DatabaseError as error:
            self._db.close()
            if getattr(error, "sqlite_errorcode", None) in (
                sqlite3.SQLITE_NOTADB,
                sqlite3.SQLITE_CORRUPT,
            ):
                raise SpoolUnusable(_NO_DATABASE) from None
            raise
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, max_bytes: int) -> None:
        run = self._db.execute
        run("PRAGMA journal_mode = WAL")
        # Also a machine that loses its power forgets nothing.
        run("PRAGMA synchronous = FULL")
        run("PRAGMA foreign_keys = ON")
        # What was deleted is not to be found in the file.
        run("PRAGMA secure_delete = ON")
        page_bytes = run("PRAGMA page_size").fetchone()[0]
        run(f"PRAGMA max_page_count = {max_bytes // page_bytes}")
        with _Transaction(self._db):
            version = run("PRAGMA user_version").fetchone()[0]
            if version == 0:
                if run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise SpoolUnusable(_SOMETHING_ELSE)
                for statement in _SCHEMA.split(";"):
                    run(statement)
            elif version != _VERSION:
                raise SpoolUnusable(_other_version(version))

    @property
    def is_gone(self) -> bool:
        """Whether the file is not at its place any more: nobody will find what is put into it."""
        return self._file != identity(self._path)

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._db.close()

    # --- what the service does

    def put(self, events: Sequence[Event], receivers: int, now: float) -> None:
        """Keep events for all receivers; those that are known already change nothing.

        Raises:
            sqlite3.Error: None of them was kept: the disk, or the file, is full, or is away.
        """
        with _Transaction(self._db):
            for event in events:
                new = self._db.execute(
                    "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?)",
                    (event.id, event.kind, event.session_id, now, event.body),
                ).rowcount
                if not new:
                    continue
                # What comes before it in the same call goes first, so it is due no sooner. SQLite
                # would look for that among all that wait.
                self._db.executemany(
                    "INSERT INTO deliveries (event_id, receiver, session_id, state, due_at) "
                    "SELECT ?1, ?2, ?3, 'waiting', coalesce(max(due_at), 0) FROM deliveries "
                    "INDEXED BY in_order "
                    "WHERE receiver = ?2 AND session_id = ?3 AND state = 'waiting'",
                    [
                        (event.id, receiver, event.session_id)
                        for receiver in range(1, receivers + 1)
                    ],
                )

    def take(
        self, receiver: int, now: float, limit: int, busy: Collection[int] = ()
    ) -> list[Ready]:
        """Return what may be sent now: of each call what was told first.

        Args:
            receiver: To whom.
            now: Unix time. What was tried later than that is due at once: the clock has jumped.
            limit: So many at most.
            busy: What is being sent, and is not returned.
        """
        jumped = self._db.execute(
            "SELECT 1 FROM deliveries WHERE state = 'waiting' AND tried_at > ? LIMIT 1", (now,)
        ).fetchone()
        if jumped:
            self._db.execute(
                "UPDATE deliveries SET due_at = 0, tried_at = ?1 "
                "WHERE state = 'waiting' AND tried_at > ?1",
                (now,),
            )
        rows = self._db.execute(
            "SELECT seq FROM deliveries d WHERE state = 'waiting' AND receiver = ? "
            "AND due_at <= ? AND NOT EXISTS (SELECT 1 FROM deliveries o WHERE "
            "o.state = 'waiting' AND o.receiver = d.receiver AND o.session_id = d.session_id "
            "AND o.seq < d.seq) ORDER BY due_at, seq LIMIT ?",
            (receiver, now, limit + len(busy)),
        ).fetchall()
        chosen = [seq for (seq,) in rows if seq not in busy][:limit]
        return [
            Ready(*row)
            for seq in chosen
            for row in self._db.execute(
                "SELECT d.seq, d.event_id, e.kind, d.session_id, d.attempts, e.body, "
                f"{_TRACEPARENT} {_JOINED} "
                "WHERE d.seq = ? AND e.body IS NOT NULL",
                (seq,),
            )
        ]

    def settle(self, seq: int, event_id: str, answer: Answer, then: Next, now: float) -> None:
        """Write down what came of an attempt. What has been deleted meanwhile stays so, and where
        the file has become another one, nothing of it is changed: its numbers begin anew."""
        with _Transaction(self._db):
            row = self._db.execute(
                "UPDATE deliveries SET state = ?, attempts = attempts + 1, tried_at = ?, "
                "due_at = ?, status = ?, error = ?, settled_at = ? WHERE seq = ? AND event_id = ? "
                "RETURNING receiver, session_id",
                (
                    then.fate.value,
                    now,
                    now + then.pause,
                    answer.status,
                    answer.error,
                    None if then.fate is Fate.AGAIN else now,
                    seq,
                    event_id,
                ),
            ).fetchone()
            if row is None:
                return
            receiver, session_id = row
            # Those behind it in the same call wait with it, and are not looked at meanwhile.
            self._db.execute(
                "UPDATE deliveries SET due_at = ? "
                "WHERE state = 'waiting' AND receiver = ? AND session_id = ? AND seq > ?",
                (now + then.pause if then.fate is Fate.AGAIN else 0, receiver, session_id, seq),
            )
            if then.fate is Fate.DELIVERED:
                self._db.execute(
                    "UPDATE events SET body = NULL WHERE id = ?1 AND NOT EXISTS "
                    "(SELECT 1 FROM deliveries WHERE event_id = ?1 AND state != 'delivered')",
                    (event_id,),
                )

    def give_up_beyond(self, receivers: int, now: float) -> None:
        """Give up what waits for receivers that there are no longer."""
        self._db.execute(
            "UPDATE deliveries SET state = 'dead', error = ?, settled_at = ? "
            "WHERE state = 'waiting' AND receiver > ?",
            (_NO_RECEIVER, now, receivers),
        )

    def tidy(self, now: float) -> None:
        """Forget what was settled 30 days ago, and sooner where room is short."""
        while self._forget_settled("settled_at < ?", now - _KEEP_SECONDS):
            pass
        for state in ("delivered", "dead"):
            while self._is_nearly_full():
                if not self._forget_settled("state = ?", state):
                    break

    def _is_nearly_full(self) -> bool:
        ask = self._db.execute
        used = ask("PRAGMA page_count").fetchone()[0] - ask("PRAGMA freelist_count").fetchone()[0]
        return bool(used > _FULL_ENOUGH * ask("PRAGMA max_page_count").fetchone()[0])

    def _forget_settled(self, which: str, value: object) -> int:
        """Forget the oldest of these; whole events, so that none is told twice."""
        with _Transaction(self._db):
            return self._db.execute(
                "DELETE FROM events WHERE id IN (SELECT event_id FROM deliveries s "
                f"WHERE settled_at IS NOT NULL AND {which} AND NOT EXISTS "
                "(SELECT 1 FROM deliveries w WHERE w.event_id = s.event_id "
                f"AND w.state = 'waiting') ORDER BY settled_at LIMIT {_AT_A_TIME})",
                (value,),
            ).rowcount

    # --- what people ask

    def counts(self) -> Counts:
        """Count what is not delivered."""
        found = dict(
            self._db.execute(
                "SELECT 'waiting', count(*) FROM deliveries WHERE state = 'waiting' "
                "UNION ALL SELECT 'dead', count(*) FROM deliveries WHERE state = 'dead'"
            )
        )
        return Counts(**found)

    def untried(self) -> int:
        """Count what has not even been tried, and need not wait for anything."""
        row = self._db.execute(
            "SELECT count(*) FROM deliveries "
            "WHERE state = 'waiting' AND attempts = 0 AND due_at = 0"
        ).fetchone()
        return int(row[0])

    def undelivered(self, limit: int) -> list[Delivery]:
        """Return what waits and what was given up, the newest first."""
        return self._select(
            "WHERE d.state IN ('waiting', 'dead') ORDER BY d.seq DESC LIMIT ?", (limit,)
        )

    def of(self, name: str) -> list[Delivery]:
        """Return the deliveries of a call, or of an event, in their order."""
        return self._select(
            "WHERE e.session_id = ?1 OR e.id = ?1 ORDER BY d.seq LIMIT 1000", (name,)
        )

    def names(self, start: str, limit: int) -> list[str]:
        """Return the ids of calls and events that begin so, in their order."""
        rows = self._db.execute(
            "SELECT session_id AS name FROM events WHERE substr(session_id, 1, ?1) = ?2 "
            "UNION SELECT id FROM events WHERE substr(id, 1, ?1) = ?2 ORDER BY name LIMIT ?3",
            (len(start), start, limit),
        )
        return [name for (name,) in rows]

    def body(self, event_id: str) -> bytes | None:
        """Return what is sent; None: it has been delivered, or there is no such event."""
        row = self._db.execute("SELECT body FROM events WHERE id = ?", (event_id,)).fetchone()
        return None if row is None else row[0]

    def again(self, name: str | None = None) -> int:
        """Let what was given up, or waits, be sent at once.

        Args:
            name: Of a call or an event; None: all.

        Returns:
            How many will be.
        """
        return self._db.execute(
            "UPDATE deliveries SET state = 'waiting', attempts = 0, due_at = 0, tried_at = NULL, "
            "settled_at = NULL WHERE state IN ('waiting', 'dead') "
            "AND (?1 IS NULL OR event_id = ?1 OR session_id = ?1)",
            (name,),
        ).rowcount

    def forget(self, session_id: str) -> int:
        """Delete everything of a call, whether or not it has been delivered."""
        with _Transaction(self._db):
            gone = self._db.execute(
                "DELETE FROM events WHERE session_id = ?", (session_id,)
            ).rowcount
        if gone:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return gone

    def _select(self, which: str, values: Iterable[Any]) -> list[Delivery]:
        rows = self._db.execute(f"SELECT {_COLUMNS} {_JOINED} {which}", tuple(values))
        return [Delivery(*row) for row in rows]


async def forget_in(path: Path, session_id: str, document: object = None) -> None:
    """Delete everything of a call from a file that nobody uses any more, if there is one; a hook of
    the call log's.

    Raises:
        OSError, sqlite3.Error: It was not deleted.
    """
    await asyncio.to_thread(_forget_in, path, session_id)


def _forget_in(path: Path, session_id: str) -> None:
    if path.exists():
        with contextlib.suppress(SpoolUnusable), contextlib.closing(Spool(path)) as spool:
            spool.forget(session_id)


def why_unusable(path: Path) -> str:
    """Say why a file that is there can be no spool, as far as its beginning shows; empty: no fault
    is found, or there is no file.

    SQLite would make files beside it, which belonged to whoever only looks.
    """
    try:
        with path.open("r+b") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return str(error.strerror)
    version = int.from_bytes(head[_VERSION_AT:_HEAD_BYTES], "big")
    if head and not head.startswith(_MAGIC):
        return _NO_DATABASE
    # Where there is a WAL, the version may be in it alone.
    if not head or version == _VERSION or path.with_name(f"{path.name}-wal").exists():
        return ""
    return _SOMETHING_ELSE if version == 0 else _other_version(version)


class _Transaction:
    """All or nothing; the file's lock is taken at once, so that no one else gets in between."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        # Some errors, such as a full disk, have rolled it back already.
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
