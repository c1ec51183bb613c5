"""Endpoints that scale: kind and price of their instances, what is wanted and leaving, last error, use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table of use."""
    for column in (
        sa.Column("target", sa.Integer(), nullable=True),
        sa.Column("instance_type", sa.String(60), nullable=False, server_default=""),
        sa.Column("price_hour", sa.Float(53), nullable=False, server_default=sa.text("0")),
        sa.Column("wanted", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("leaving", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("last_error", sa.Text(), nullable=False, server_default=""),
        sa.Column("last_error_at", sa.Float(53), nullable=True),
    ):
        op.add_column("endpoints", column)
    op.create_index("ix_attempts_started", "attempts", ["started"])
    op.create_table(
        "endpoint_usage",
        sa.Column("endpoint", sa.String(63), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("cost", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "day", name="pk_endpoint_usage"),
    )


def downgrade() -> None:
    """Take them away."""
    op.drop_table("endpoint_usage")
    op.drop_index("ix_attempts_started", "attempts")
    for name in ("last_error_at", "last_error", "leaving", "wanted", "price_hour", "instance_type", "target"):
        op.drop_column("endpoints", name)
