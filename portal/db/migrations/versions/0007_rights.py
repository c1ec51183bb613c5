"""Roles stack and may be the studio's own; teams; rules on single endpoints and models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _id(name: str = "id") -> sa.Column[str]:
    return sa.Column(name, sa.String(length=32), nullable=False)


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _created() -> sa.Column[float]:
    return sa.Column("created", sa.Float(precision=53), nullable=False)


def _of(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{other}")
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=name, ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "roles",
        _text("name", 32),
        _text("description", 200),
        sa.Column("permissions", sa.JSON(), nullable=False),
        _created(),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_roles")),
    )
    op.create_table(
        "user_roles",
        _id("user_id"),
        _text("role", 32),
        _of("user_roles", "user_id", "users"),
        sa.PrimaryKeyConstraint("user_id", "role", name=op.f("pk_user_roles")),
    )
    op.execute("INSERT INTO user_roles (user_id, role) SELECT id, role FROM users")
    # Not in a batch: SQLite would copy the table, and dropping the old one takes everything of its users along.
    op.drop_column("users", "role")
    op.create_table(
        "teams",
        _id(),
        _text("name", 64),
        _text("description", 200),
        _created(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teams")),
        sa.UniqueConstraint("name", name=op.f("uq_teams_name")),
    )
    op.create_table(
        "memberships",
        _id("team_id"),
        _id("user_id"),
        _of("memberships", "team_id", "teams"),
        _of("memberships", "user_id", "users"),
        sa.PrimaryKeyConstraint("team_id", "user_id", name=op.f("pk_memberships")),
    )
    op.create_index("ix_memberships_user_id", "memberships", ["user_id"])
    op.create_table(
        "access_rules",
        _id(),
        _text("object_kind", 16),
        _text("object", 64),
        _text("subject_kind", 16),
        _text("subject", 64),
        _text("effect", 8),
        _created(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_rules")),
        sa.UniqueConstraint("object_kind", "object", "subject_kind", "subject", name="uq_access_rules_of"),
    )


def downgrade() -> None:
    for table in ("access_rules", "memberships", "teams"):
        op.drop_table(table)
    op.add_column("users", sa.Column("role", sa.String(length=32), nullable=False, server_default="designer"))
    op.execute(
        "UPDATE users SET role = 'admin' WHERE id IN (SELECT user_id FROM user_roles WHERE role = 'admin')"
    )
    op.drop_table("user_roles")
    op.drop_table("roles")
