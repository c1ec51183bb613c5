"""Models on their way in by their source, and tokens for the sites they come from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    seconds = sa.Float(precision=53)
    op.create_table(
        "model_imports",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.String(length=32), nullable=True),
        sa.Column("own", sa.Boolean(), nullable=False),
        sa.Column("source", sa.String(length=1000), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("folder", sa.String(length=400), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("token_id", sa.String(length=32), nullable=True),
        sa.Column("endpoint", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("driver", sa.String(length=64), nullable=True),
        sa.Column("lease_until", seconds, nullable=False),
        sa.Column("ticket", sa.String(length=300), nullable=True),
        sa.Column("not_before", seconds, nullable=False),
        sa.Column("phase", sa.String(length=20), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("model_title", sa.String(length=300), nullable=False),
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.Column("created", seconds, nullable=False),
        sa.Column("started", seconds, nullable=True),
        sa.Column("ended", seconds, nullable=True),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_model_imports_owner_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_imports")),
    )
    for column in ("owner_id", "state", "created"):
        op.create_index(op.f(f"ix_model_imports_{column}"), "model_imports", [column])
    op.create_table(
        "source_tokens",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.String(length=32), nullable=True),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("site", sa.String(length=260), nullable=False),
        sa.Column("sealed", sa.String(length=2000), nullable=False),
        sa.Column("created", seconds, nullable=False),
        sa.Column("used", seconds, nullable=True),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_source_tokens_owner_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_source_tokens")),
    )
    op.create_index(op.f("ix_source_tokens_owner_id"), "source_tokens", ["owner_id"])


def downgrade() -> None:
    op.drop_table("source_tokens")
    op.drop_table("model_imports")
