"""Shares and turns, priorities, the work a part is, and parts whose attempts are used up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shares",
        sa.Column("subject_kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("weight", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("subject_kind", "subject", name=op.f("pk_shares")),
    )
    op.create_table(
        "turns",
        sa.Column("owner_id", sa.String(length=32), nullable=False),
        sa.Column("start", sa.Float(precision=53), nullable=False),
        sa.Column("finish", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_turns_owner_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("owner_id", name=op.f("pk_turns")),
    )
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("parts", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("parts", sa.Column("work", sa.Float(precision=53), nullable=False, server_default="1"))
    op.add_column("parts", sa.Column("shape", sa.String(length=80), nullable=False, server_default=""))
    op.add_column("parts", sa.Column("died", sa.Float(precision=53), nullable=True))
    op.add_column("parts", sa.Column("retried_as", sa.String(length=32), nullable=True))
    op.add_column("attempts", sa.Column("error", sa.JSON(), nullable=True))
    op.create_index("ix_parts_died_id", "parts", ["died", "id"])


def downgrade() -> None:
    op.drop_index("ix_parts_died_id", "parts")
    op.drop_column("attempts", "error")
    for column in ("retried_as", "died", "shape", "work", "priority"):
        op.drop_column("parts", column)
    op.drop_column("jobs", "priority")
    op.drop_table("turns")
    op.drop_table("shares")
