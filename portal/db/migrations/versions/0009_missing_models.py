"""Linked model files that were moved or deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("missing_since", sa.Float(precision=53), nullable=True))


def downgrade() -> None:
    op.drop_column("models", "missing_since")
