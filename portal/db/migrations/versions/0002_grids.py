"""Grids of a job's pictures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Jobs that are there already have no grids. Columns are added in place: SQLite would else copy a table
    # that others refer to.
    op.add_column("jobs", sa.Column("arrangement", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
    op.add_column("jobs", sa.Column("grids_due", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.execute('DELETE FROM pictures WHERE "index" < 0')
    op.drop_column("jobs", "grids_due")
    op.drop_column("jobs", "arrangement")
