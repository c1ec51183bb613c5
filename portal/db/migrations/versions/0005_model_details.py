"""What models say of themselves and what people say of them; folders that are linked in place."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

def _columns() -> tuple[sa.Column[Any], ...]:
    return (
    sa.Column("alias", sa.String(length=255), nullable=True),
    sa.Column("addnet_hash", sa.String(length=64), nullable=True),
    sa.Column("family_override", sa.String(length=40), nullable=True),
    sa.Column("details", sa.JSON(), nullable=False, server_default=sa.text("'{}'")),
    sa.Column("notes", sa.JSON(), nullable=False, server_default=sa.text("'{}'")),
    sa.Column("preview_sha256", sa.String(length=64), nullable=True),
    sa.Column("folder", sa.String(length=400), nullable=False, server_default=""),
    sa.Column("source", sa.String(length=1000), nullable=True),
    sa.Column("modified", sa.Float(precision=53), nullable=False, server_default="0"),
    )


def upgrade() -> None:
    for column in _columns():
        op.add_column("models", column)
    op.execute("UPDATE models SET modified = created")
    op.create_table(
        "model_folders",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("path", sa.String(length=1000), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=True),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_folders")),
        sa.UniqueConstraint("path", name=op.f("uq_model_folders_path")),
    )
    op.create_table(
        "retired_blobs",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("since", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_retired_blobs")),
    )


def downgrade() -> None:
    op.drop_table("retired_blobs")
    op.drop_table("model_folders")
    for column in reversed(_columns()):
        op.drop_column("models", column.name)
