"""A file may be two models: read with another configuration, its weights mean another thing."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("uq_models_kind_sha256"), type_="unique")
        batch_op.create_index(batch_op.f("ix_models_sha256"), ["sha256"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_models_sha256"))
        batch_op.create_unique_constraint(op.f("uq_models_kind_sha256"), ["kind", "sha256"])
