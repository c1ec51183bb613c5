"""The audit trail is chained and append-only in the database itself, and says for whom and with what program
something was done.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from portal.db.audit import TRIGGERS

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, length in (("subject", 64), ("user_agent", 256), ("hash", 64)):
        op.add_column(
            "audit_entries", sa.Column(name, sa.String(length=length), nullable=False, server_default="")
        )
    op.create_index("ix_audit_entries_action_id", "audit_entries", ["action", "id"])
    op.create_index("ix_audit_entries_object_id", "audit_entries", ["object", "id"])
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    op.execute("INSERT INTO audit_head (id, count, hash) SELECT 1, COALESCE(MAX(id), 0), '' FROM audit_entries")
    for statement in TRIGGERS[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_refuse() CASCADE")
    else:
        for name in ("audit_entries_no_update", "audit_entries_no_delete"):
            op.execute(f"DROP TRIGGER {name}")
    op.drop_table("audit_head")
    op.drop_index("ix_audit_entries_object_id", "audit_entries")
    op.drop_index("ix_audit_entries_action_id", "audit_entries")
    for name in ("hash", "user_agent", "subject"):
        op.drop_column("audit_entries", name)
