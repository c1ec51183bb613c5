"""Endpoints of other kinds: what they run, what they scale by, their hours, and what they wait for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for column in (
        sa.Column("kind", sa.String(20), nullable=False, server_default="async"),
        sa.Column("image", sa.String(300), nullable=False, server_default=""),
        sa.Column("metric", sa.String(20), nullable=False, server_default="demand"),
        sa.Column("schedule", sa.String(400), nullable=False, server_default=""),
        sa.Column("note", sa.Text(), nullable=False, server_default=""),
    ):
        op.add_column("endpoints", column)


def downgrade() -> None:
    """Take them away."""
    for name in ("note", "schedule", "metric", "image", "kind"):
        op.drop_column("endpoints", name)
