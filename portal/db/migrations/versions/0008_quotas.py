"""Quotas, and what they are counted from: pictures a part makes, seconds an attempt worked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("parts", sa.Column("pictures", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("attempts", sa.Column("worked", sa.Float(precision=53), nullable=False, server_default="0"))
    op.create_table(
        "quotas",
        sa.Column("subject_kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("unfinished_jobs", sa.Integer(), nullable=True),
        sa.Column("pictures_a_day", sa.Integer(), nullable=True),
        sa.Column("gpu_seconds_a_day", sa.Float(precision=53), nullable=True),
        sa.Column("storage_bytes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("subject_kind", "subject", name=op.f("pk_quotas")),
    )


def downgrade() -> None:
    op.drop_table("quotas")
    op.drop_column("attempts", "worked")
    op.drop_column("parts", "pictures")
