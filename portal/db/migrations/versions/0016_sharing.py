"""Owners of models, and whom jobs, models and styles are shared with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

STUDIO_OWNED = sa.text("owner_id IS NULL")


def upgrade() -> None:
    for table, visibility in (("jobs", "private"), ("styles", "private"), ("models", "studio")):
        visible = sa.Column("visibility", sa.String(length=8), nullable=False, server_default=visibility)
        op.add_column(table, visible)
        op.add_column(table, sa.Column("team_id", sa.String(length=32), nullable=True))
    op.create_index("ix_jobs_visibility_created_id", "jobs", ["visibility", "created", "id"])
    op.execute("UPDATE styles SET visibility = 'studio' WHERE owner_id IS NULL")
    with op.batch_alter_table("models") as models:
        models.add_column(sa.Column("owner_id", sa.String(length=32), nullable=True))
        models.create_foreign_key(op.f("fk_models_owner_id_users"), "users", ["owner_id"], ["id"])
        models.drop_constraint(op.f("uq_models_kind_name"), type_="unique")
        models.create_unique_constraint(op.f("uq_models_owner_id_kind_name"), ["owner_id", "kind", "name"])
    op.create_index(
        "uq_models_studio_name",
        "models",
        ["kind", "name"],
        unique=True,
        sqlite_where=STUDIO_OWNED,
        postgresql_where=STUDIO_OWNED,
    )
    _give("models.manage", "models.upload")


def downgrade() -> None:
    op.execute("DELETE FROM models WHERE owner_id IS NOT NULL")
    op.drop_index("uq_models_studio_name", table_name="models")
    with op.batch_alter_table("models") as models:
        models.drop_constraint(op.f("uq_models_owner_id_kind_name"), type_="unique")
        models.drop_constraint(op.f("fk_models_owner_id_users"), type_="foreignkey")
        models.create_unique_constraint(op.f("uq_models_kind_name"), ["kind", "name"])
        models.drop_column("owner_id")
    op.drop_index("ix_jobs_visibility_created_id", table_name="jobs")
    for table in ("jobs", "styles", "models"):
        op.drop_column(table, "team_id")
        op.drop_column(table, "visibility")


def _give(held: str, new: str) -> None:
    """Let the studio's own roles that have one permission have another too."""
    roles = sa.table("roles", sa.column("name", sa.String), sa.column("permissions", sa.JSON))
    connection = op.get_bind()
    for name, permissions in connection.execute(sa.select(roles.c.name, roles.c.permissions)).all():
        if held in permissions:
            both = sorted({*permissions, new})
            connection.execute(roles.update().where(roles.c.name == name).values(permissions=both))
