"""What is done in the call log's tables: keeping, telling more, finding, deleting.

Each function works in a transaction of its caller's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ari_app.records.hiding import hide_keys, were_secret
from ari_app.records.store.query import (
    CallFilter,
    Place,
    number_to_find,
    numbers_of,
    terms,
    words_of,
)
from ari_app.records.store.schema import calls, conversations, deleted_calls, early_parts

_MAX_WORDS_BYTES: Final = 400_000
"""PostgreSQL's index of a call's words takes 1 MiB, and holds more than the words."""
_LATE: Final = timedelta(days=7)
"""For so long something is kept that was told of a call which has not come."""
_ASKED_AT_ONCE: Final = 500
_NEWEST: Final = 100

_TEXTS: Final = ("direction", "status", "reason", "result", "agent_id", "trunk", "campaign_id")

_REPORT: Final = "agent_report"

T = TypeVar("T")

SESSION: Final = "session"
CONVERSATION: Final = "conversation"


@dataclass(frozen=True, slots=True)
class Amendment:
    """Something that was told of a call later.

    Attributes:
        of: `session` or `conversation`: what `key` is the id of.
        part: Its name in the document.
    """

    of: str
    key: str
    part: str
    value: Any


@dataclass(slots=True)
class Batch:
    """What is written together: documents by session, in the order of their coming.

    Attributes:
        documents: Those of ended calls.
        lost: Those of calls whose process is gone; one that is kept already wins.
        amendments: By what they are about; the last one of each.
    """

    documents: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    lost: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    amendments: dict[tuple[str, str, str], Amendment] = field(default_factory=dict)


def columns_of(document: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the row of a call.

    Args:
        document: Its document; what is missing in it, or of another kind, is no reason not to
            keep it.
        now: Stands in for a beginning that cannot be read.
    """
    started_at = _moment(document.get("started_at"))
    ended_at = _moment(document.get("ended_at"))
    return {
        "session_id": str(document["session_id"]),
        **{name: _text(document.get(name)) for name in _TEXTS},
        "started_at": started_at or ended_at or now,
        "ended_at": ended_at,
        "seconds": _number(document.get("seconds")),
        "agent_seconds": _number(document.get("agent_seconds")),
        "numbers": numbers_of(document),
        "words": words_of(document, _MAX_WORDS_BYTES),
        "document": dict(document),
    }


def conversation_ids(document: Mapping[str, Any]) -> list[str]:
    """Return the ids of all conversations of a call."""
    named = [document.get("conversation_id"), *(document.get("conversation_ids") or ())]
    return list(dict.fromkeys(str(each) for each in named if each))


async def write(connection: AsyncConnection, batch: Batch, now: datetime) -> int:
    """Write a batch, in about as many statements whatever is in it: how many calls are new."""
    wanted = batch.lost | batch.documents
    keys = {*wanted, *(amendment.key for amendment in batch.amendments.values())}
    for document in wanted.values():
        keys.update(conversation_ids(document))
    gone = await _among(connection, deleted_calls.c.key, keys)
    known = await _among(connection, calls.c.session_id, wanted)
    documents = {
        session_id: document
        for session_id, document in wanted.items()
        if session_id not in gone and (session_id in batch.documents or session_id not in known)
    }
    ids = await _keep(connection, documents, known, now)
    parts: _Parts = {}
    if ids:
        await _take_early(connection, documents, ids, parts)
    told = [each for each in batch.amendments.values() if each.key not in gone]
    await _amend(connection, told, parts, now)
    await _add_parts(connection, parts)
    return len(ids.keys() - known)


async def _among(
    connection: AsyncConnection, column: sa.Column[str], values: Iterable[str]
) -> set[str]:
    found: set[str] = set()
    for some in _chunks(sorted(values)):
        found.update((await connection.scalars(_among_some(column), {"some": some})).all())
    return found


def _chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    return (values[n : n + _ASKED_AT_ONCE] for n in range(0, len(values), _ASKED_AT_ONCE))


def _insert(dialect: str, table: sa.Table) -> Any:
    # The connection has brought its own already; the other is not read for nothing.
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:
        from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
    return insert(table)


# Each made once: `in_` and `excluded` make parameters and columns that know each other, and those
# of a statement for each batch would stay until a collector comes.


_SOME: Final[sa.BindParameter[Any]] = sa.bindparam("some", expanding=True)


@cache
def _among_some(column: sa.Column[str]) -> sa.Select[str]:
    return sa.select(column).where(column.in_(_SOME))


def _is_of(keys: Collection[str] | sa.BindParameter[Any]) -> sa.ColumnElement[bool]:
    """What is told early of these: by the index, which begins with the kind of the key. There may
    be very much of calls that never come, such as those of others with the same webhook."""
    return sa.and_(early_parts.c.of.in_((SESSION, CONVERSATION)), early_parts.c.key.in_(keys))


_EARLY: Final = sa.select(early_parts).where(_is_of(_SOME)).order_by(early_parts.c.at)
_OF_SESSIONS: Final = sa.select(calls.c.session_id, calls.c.id).where(calls.c.session_id.in_(_SOME))
_OF_CONVERSATIONS: Final = (
    sa.select(conversations.c.conversation_id, conversations.c.call_id)
    .where(conversations.c.conversation_id.in_(_SOME))
    .order_by(conversations.c.call_id)
)
_PARTS_BEFORE: Final = sa.select(calls.c.id, calls.c.parts).where(calls.c.id.in_(_SOME))


@cache
def _keeping(dialect: str, names: tuple[str, ...]) -> Any:
    """Return what inserts or replaces calls, and gives their rows."""
    insert = _insert(dialect, calls)
    update = {name: insert.excluded[name] for name in names if name != "session_id"}
    statement = insert.on_conflict_do_update(index_elements=["session_id"], set_=update)
    return statement.returning(calls.c.session_id, calls.c.id)


@cache
def _putting_by(dialect: str) -> Any:
    """Return what inserts or replaces what is told early."""
    insert = _insert(dialect, early_parts)
    return insert.on_conflict_do_update(
        index_elements=["of", "key", "part"],
        set_={"value": insert.excluded.value, "at": insert.excluded.at},
    )


_Parts = dict[int, dict[str, Any]]
"""What is to be added to calls, by row and name."""


async def _keep(
    connection: AsyncConnection,
    documents: Mapping[str, Mapping[str, Any]],
    known: Collection[str],
    now: datetime,
) -> dict[str, int]:
    """Insert or replace calls; their rows, by session."""
    if not documents:
        return {}
    rows = [columns_of(document, now) for document in documents.values()]
    found = await connection.execute(_keeping(connection.dialect.name, tuple(rows[0])), rows)
    ids = {row.session_id: row.id for row in found}
    replaced = [ids[session_id] for session_id in ids if session_id in known]
    for some in _chunks(replaced):
        await connection.execute(sa.delete(conversations).where(conversations.c.call_id.in_(some)))
    named = [
        {"conversation_id": each, "call_id": ids[session_id]}
        for session_id, document in documents.items()
        for each in conversation_ids(document)
    ]
    if named:
        await connection.execute(sa.insert(conversations), named)
    return ids


async def _take_early(
    connection: AsyncConnection,
    documents: Mapping[str, Mapping[str, Any]],
    ids: Mapping[str, int],
    parts: _Parts,
) -> None:
    """Give calls that have come now what was told of them before."""
    owners: dict[str, int] = {}
    for session_id, document in documents.items():
        owners[session_id] = ids[session_id]
        owners.update(dict.fromkeys(conversation_ids(document), ids[session_id]))
    for some in _chunks(list(owners)):
        found = (await connection.execute(_EARLY, {"some": some})).all()
        for row in found:
            parts.setdefault(owners[row.key], {})[row.part] = row.value
        if found:
            await connection.execute(sa.delete(early_parts).where(_is_of(some)))


async def _amend(
    connection: AsyncConnection, told: Sequence[Amendment], parts: _Parts, now: datetime
) -> None:
    """Give what is told to the calls that are there; the rest waits for them."""
    owners: dict[tuple[str, str], int] = {}
    for some in _chunks(list({each.key for each in told if each.of == SESSION})):
        for key, number in await connection.execute(_OF_SESSIONS, {"some": some}):
            owners[SESSION, key] = number
    for some in _chunks(list({each.key for each in told if each.of == CONVERSATION})):
        for key, number in await connection.execute(_OF_CONVERSATIONS, {"some": some}):
            owners[CONVERSATION, key] = number
    early = []
    for each in told:
        owner = owners.get((each.of, each.key))
        if owner is not None:
            parts.setdefault(owner, {})[each.part] = each.value
        else:
            row = {"of": each.of, "key": each.key, "part": each.part, "value": each.value}
            early.append(row | {"at": now})
    if early:
        await connection.execute(_putting_by(connection.dialect.name), early)


async def _add_parts(connection: AsyncConnection, parts: _Parts) -> None:
    reported = [number for number, told in parts.items() if _REPORT in told]
    for some in _chunks(reported):
        keys = sa.select(calls.c.id, calls.c.document["keys"].label("pressed"))
        for row in await connection.execute(keys.where(calls.c.id.in_(some))):
            if were_secret(row.pressed):
                parts[row.id][_REPORT] = hide_keys(parts[row.id][_REPORT])
    updates = []
    for some in _chunks(list(parts)):
        updates += [
            {"number": row.id, "changed": {**(row.parts or {}), **parts[row.id]}}
            for row in await connection.execute(_PARTS_BEFORE, {"some": some})
        ]
    if updates:
        update = sa.update(calls).where(calls.c.id == sa.bindparam("number"))
        await connection.execute(update.values(parts=sa.bindparam("changed")), updates)


# --- reading


async def find(connection: AsyncConnection, session_id: str) -> dict[str, Any] | None:
    """Return the document of a call; None: it is not kept."""
    wanted = sa.select(calls.c.document, calls.c.parts).where(calls.c.session_id == session_id)
    row = (await connection.execute(wanted)).first()
    return None if row is None else _whole(row)


async def sessions(connection: AsyncConnection, start: str, limit: int) -> list[str]:
    """Return the session ids of calls that begin so, in their order."""
    session_id = calls.c.session_id
    wanted = sa.select(session_id).where(sa.func.substr(session_id, 1, len(start)) == start)
    return list((await connection.scalars(wanted.order_by(session_id).limit(limit))).all())


async def find_conversation(
    connection: AsyncConnection, conversation_id: str
) -> dict[str, Any] | None:
    """Return the document of the call that had a conversation; None: none that is kept."""
    wanted = (
        sa.select(calls.c.document, calls.c.parts)
        .join(conversations, conversations.c.call_id == calls.c.id)
        .where(conversations.c.conversation_id == conversation_id)
        .order_by(calls.c.id.desc())
        .limit(1)
    )
    row = (await connection.execute(wanted)).first()
    return None if row is None else _whole(row)


async def some(
    connection: AsyncConnection,
    wanted: CallFilter,
    after: Place | None,
    limit: int,
    max_bytes: int,
) -> tuple[list[dict[str, Any]], Place | None]:
    """Return calls, the newest first, and the place after them.

    A call that is added, replaced or deleted meanwhile moves no other one, so going on at the place
    misses none and repeats none.

    Args:
        connection: In a transaction.
        wanted: Which calls.
        after: Where to begin; None: with the newest.
        limit: So many at most.
        max_bytes: So much of documents, after which no further call is taken.

    Returns:
        The place is None when there are no more.
    """
    query = (
        sa.select(
            calls.c.id,
            calls.c.started_at,
            calls.c.parts,
            sa.cast(calls.c.document, sa.Text).label("text"),
        )
        .order_by(calls.c.started_at.desc(), calls.c.id.desc())
        .limit(limit + 1)
    )
    for condition in _conditions(connection, wanted):
        query = query.where(condition)
    if after is not None:
        query = query.where(_place_of_calls() < _place(after))
    found: list[dict[str, Any]] = []
    last: Place | None = None
    taken = 0
    async with connection.stream(query.execution_options(yield_per=20)) as rows:
        async for row in rows:
            if len(found) == limit or taken > max_bytes:
                return found, last
            taken += len(row.text)
            found.append(orjson.loads(row.text) | (row.parts or {}))
            last = Place(row.started_at, row.id)
    return found, None


def _conditions(connection: AsyncConnection, wanted: CallFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.from_ is not None:
        conditions.append(calls.c.started_at >= wanted.from_)
    if wanted.to is not None:
        conditions.append(calls.c.started_at < wanted.to)
    for name in ("status", "result", "agent_id", "trunk", "direction", "campaign_id"):
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(calls.c[name] == _text(value))
    if wanted.number is not None:
        number = number_to_find(wanted.number)
        conditions.append(calls.c.numbers.contains(number, autoescape=True) if number else _NONE)
    if wanted.text is not None:
        looked_for = terms(wanted.text)
        if connection.dialect.name == "sqlite":
            conditions.append(_by_fts5(looked_for))
        else:
            conditions += [_by_tsvector(term) for term in looked_for] or [_NONE]
    return conditions


async def spent(
    connection: AsyncConnection, begin: datetime, end: datetime, but: Sequence[str]
) -> dict[str, tuple[int, float]]:
    """Add up the calls that began in a time and had an agent.

    Args:
        connection: In a transaction.
        begin, end: From this moment on, and before that one.
        but: Sessions that are left out.

    Returns:
        By agent: how many, and how many seconds agents were there.
    """
    query = (
        sa.select(calls.c.agent_id, sa.func.count(), sa.func.sum(calls.c.agent_seconds))
        .where(calls.c.started_at >= begin, calls.c.started_at < end, calls.c.agent_seconds > 0)
        .group_by(calls.c.agent_id)
    )
    for some in _chunks(but):
        query = query.where(calls.c.session_id.not_in(some))
    return {
        agent_id or "": (count, float(seconds))
        for agent_id, count, seconds in await connection.execute(query)
    }


_NONE: Final = sa.false()


def _by_fts5(looked_for: Sequence[str]) -> sa.ColumnElement[bool]:
    if not looked_for:
        return _NONE
    index = sa.table("calls_words", sa.column("rowid"), sa.column("calls_words"))
    phrases = " ".join('"' + term.replace('"', '""') + '"' for term in looked_for)
    matching = sa.select(index.c.rowid).where(index.c.calls_words.op("MATCH")(phrases))
    return calls.c.id.in_(matching)


def _by_tsvector(term: str) -> sa.ColumnElement[bool]:
    search: sa.ColumnElement[Any] = sa.literal_column("calls.search")
    return search.op("@@", return_type=sa.Boolean())(
        sa.func.phraseto_tsquery(sa.literal_column("'simple'::regconfig"), term)
    )


def _whole(row: Any) -> dict[str, Any]:
    return {**row.document, **(row.parts or {})}


async def has_recordings(connection: AsyncConnection) -> bool:
    """Return whether one of the last calls of which something was told later has a recording."""
    wanted = sa.select(calls.c.parts).where(calls.c.parts.is_not(None))
    newest = wanted.order_by(calls.c.started_at.desc(), calls.c.id.desc()).limit(_NEWEST)
    return any((parts or {}).get("recordings") for parts in await connection.scalars(newest))


# --- deleting


async def delete(connection: AsyncConnection, session_id: str, now: datetime) -> bool:
    """Delete a call, and all that was told of it; False: it is not kept."""
    wanted = sa.select(calls.c.id, calls.c.document).where(calls.c.session_id == session_id)
    row = (await connection.execute(wanted)).first()
    if row is None:
        return False
    keys = {session_id, *conversation_ids(row.document)}
    await connection.execute(sa.delete(calls).where(calls.c.id == row.id))
    await connection.execute(sa.delete(early_parts).where(_is_of(keys)))
    insert = _insert(connection.dialect.name, deleted_calls)
    await connection.execute(
        insert.on_conflict_do_nothing(), [{"key": each, "at": now} for each in keys]
    )
    return True


async def was_deleted(connection: AsyncConnection, session_id: str) -> bool:
    """Return whether a call was deleted, so that what is told of it is not kept."""
    return bool(await _among(connection, deleted_calls.c.key, [session_id]))


async def deleted_since(connection: AsyncConnection, moment: datetime) -> bool:
    """Return whether a call was deleted since a moment."""
    wanted = sa.select(sa.literal(1)).where(deleted_calls.c.at >= moment).limit(1)
    return (await connection.scalar(wanted)) is not None


async def older_than(
    connection: AsyncConnection, moment: datetime, after: Place | None, limit: int
) -> tuple[list[str], Place | None]:
    """Return the sessions of some of the calls that ended before a moment, the oldest first, and
    the place after them.

    Args:
        connection: In a transaction.
        moment: Before which they ended.
        after: Where to begin; None: with the oldest.
        limit: So many at most.

    Returns:
        The place is None when there are no more.
    """
    wanted = (
        sa.select(calls.c.session_id, calls.c.started_at, calls.c.id)
        .where(*_ended_before(moment))
        .order_by(calls.c.started_at, calls.c.id)
        .limit(limit)
    )
    if after is not None:
        wanted = wanted.where(_place_of_calls() > _place(after))
    found = (await connection.execute(wanted)).all()
    place = Place(found[-1].started_at, found[-1].id) if len(found) == limit else None
    return [row.session_id for row in found], place


async def older_than_dated(
    connection: AsyncConnection, moment: datetime, future: datetime
) -> list[str]:
    """Return the sessions of calls that a clock which was ahead has dated, and that were written
    before one that ended before a moment: by their date they would stay for years.

    Args:
        connection: In a transaction.
        moment: As for `older_than`.
        future: What began after this is dated wrong.
    """
    # By the index of beginnings: nearly always there is none.
    dated = (
        sa.select(calls.c.session_id, calls.c.id)
        .where(calls.c.started_at > sa.literal(future, calls.c.started_at.type))
        .order_by(calls.c.started_at, calls.c.id)
    )
    found = (await connection.execute(dated)).all()
    if not found:
        return []
    # The sum keeps SQLite from going through all calls by their numbers.
    newest = sa.select(sa.func.max(calls.c.id + 0)).where(*_ended_before(moment))
    last = await connection.scalar(newest) or 0
    return [row.session_id for row in found if row.id < last]


def _ended_before(moment: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    ended = sa.func.coalesce(calls.c.ended_at, calls.c.started_at)
    return calls.c.started_at < moment, ended < sa.literal(moment, calls.c.ended_at.type)


def _place_of_calls() -> sa.Tuple:
    return sa.tuple_(calls.c.started_at, calls.c.id)


def _place(place: Place) -> sa.Tuple:
    moment = sa.literal(place.started_at, calls.c.started_at.type)
    return sa.tuple_(moment, sa.literal(place.row))


async def forget_late(connection: AsyncConnection, now: datetime) -> None:
    """Forget what was told of calls that never came, and which calls were deleted long ago."""
    await connection.execute(sa.delete(early_parts).where(early_parts.c.at < now - _LATE))
    await connection.execute(sa.delete(deleted_calls).where(deleted_calls.c.at < now - 5 * _LATE))


# --- values


def _moment(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value).replace("\0", "")
