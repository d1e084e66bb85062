"""The tables of the call log, as the newest migration leaves them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator


class Moment(TypeDecorator[datetime]):
    """A moment in UTC; SQLite keeps it as a text that sorts by time."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData()

calls = sa.Table(
    "calls",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("session_id", sa.Text, nullable=False, unique=True),
    sa.Column("direction", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("result", sa.Text),
    sa.Column("agent_id", sa.Text),
    sa.Column("trunk", sa.Text),
    sa.Column("campaign_id", sa.Text),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("ended_at", Moment),
    sa.Column("seconds", sa.Float),
    sa.Column("agent_seconds", sa.Float),
    # To look for a number, and for words, in: as query.py writes them.
    sa.Column("numbers", sa.Text, nullable=False),
    sa.Column("words", sa.Text, nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
    # What was told of it later, by name; it outlives a document that comes again.
    sa.Column("parts", sa.JSON(none_as_null=True)),
    sa.Index("calls_by_start", "started_at", "id"),
    sa.Index("calls_by_agent", "agent_id", "started_at"),
    sa.Index("calls_by_campaign", "campaign_id", "started_at"),
    sqlite_autoincrement=True,
)

conversations = sa.Table(
    "conversations",
    metadata,
    sa.Column("conversation_id", sa.Text, primary_key=True),
    sa.Column(
        "call_id", _Id, sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True, index=True
    ),
)

early_parts = sa.Table(
    "early_parts",
    metadata,
    # `session` or `conversation`: what `key` is the id of.
    sa.Column("of", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("value", sa.JSON),
    sa.Column("at", Moment, nullable=False),
)

deleted_calls = sa.Table(
    "deleted_calls",
    metadata,
    # Ids of sessions and of conversations whose call was deleted: what comes late is not kept.
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("at", Moment, nullable=False),
)
