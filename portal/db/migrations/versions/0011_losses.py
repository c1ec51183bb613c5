"""How often parts were lost with a worker, and whether an attempt had its endpoint to itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("parts", sa.Column("losses", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("alone", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("attempts", "alone")
    op.drop_column("parts", "losses")
