"""The call log's first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.Text, nullable=False, unique=True),
        sa.Column("direction", sa.Text),
        sa.Column("status", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("agent_id", sa.Text),
        sa.Column("campaign_id", sa.Text),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("ended_at", _MOMENT),
        sa.Column("seconds", sa.Float),
        sa.Column("numbers", sa.Text, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("parts", sa.JSON),
        sqlite_autoincrement=True,
    )
    op.create_index("calls_by_start", "calls", ["started_at", "id"])
    op.create_index("calls_by_agent", "calls", ["agent_id", "started_at"])
    op.create_index("calls_by_campaign", "calls", ["campaign_id", "started_at"])
    op.create_table(
        "conversations",
        sa.Column("conversation_id", sa.Text, primary_key=True),
        sa.Column("call_id", _ID, sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
    )
    op.create_index("ix_conversations_call_id", "conversations", ["call_id"])
    op.create_table(
        "early_parts",
        sa.Column("of", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("part", sa.Text, primary_key=True),
        sa.Column("value", sa.JSON),
        sa.Column("at", _MOMENT, nullable=False),
    )
    op.create_table(
        "deleted_calls",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("at", _MOMENT, nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        _search_by_fts5()
    else:
        _search_by_tsvector()


def _search_by_fts5() -> None:
    # The words stand in `calls` alone; triggers keep the index in step, whoever changes a row.
    op.execute(
        "CREATE VIRTUAL TABLE calls_words USING fts5("
        "words, content='calls', content_rowid='id', tokenize='unicode61 remove_diacritics 2')"
    )
    gone = (
        "INSERT INTO calls_words (calls_words, rowid, words) VALUES ('delete', old.id, old.words);"
    )
    new = "INSERT INTO calls_words (rowid, words) VALUES (new.id, new.words);"
    op.execute(f"CREATE TRIGGER calls_words_insert AFTER INSERT ON calls BEGIN {new} END")
    op.execute(f"CREATE TRIGGER calls_words_delete AFTER DELETE ON calls BEGIN {gone} END")
    op.execute(
        f"CREATE TRIGGER calls_words_update AFTER UPDATE OF words ON calls BEGIN {gone} {new} END"
    )


def _search_by_tsvector() -> None:
    op.execute(
        "ALTER TABLE calls ADD COLUMN search tsvector "
        "GENERATED ALWAYS AS (to_tsvector('simple', words)) STORED"
    )
    op.execute("CREATE INDEX calls_by_words ON calls USING gin (search)")
