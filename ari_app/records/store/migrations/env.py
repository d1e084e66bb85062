"""Runs the migrations on the connection that `database.upgrade` has opened."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes.get("metadata"),
    # The transaction, and the lock that keeps another process out, are the caller's.
    transactional_ddl=False,
)
context.run_migrations()
