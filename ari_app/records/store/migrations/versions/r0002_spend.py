"""How long agents were there, and by which trunk: columns, so that they can be added up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("calls", sa.Column("trunk", sa.Text))
    op.add_column("calls", sa.Column("agent_seconds", sa.Float))
