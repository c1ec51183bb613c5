"""Lists of long tables read an index; versions of settings are append-only in the database itself."""

from __future__ import annotations

from alembic import op

from portal.db.preferences import TRIGGERS

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_jobs_created_id": ("jobs", ["created", "id"]),
    "ix_jobs_state_created_id": ("jobs", ["state", "created", "id"]),
    "ix_pictures_owner_created": ("pictures", ["owner_id", "created", "index", "size"]),
    "ix_pictures_part_id": ("pictures", ["part_id"]),
    "ix_audit_entries_actor_name_id": ("audit_entries", ["actor_name", "id"]),
    "ix_audit_entries_subject_id": ("audit_entries", ["subject", "id"]),
    "ix_audit_entries_request_id_id": ("audit_entries", ["request_id", "id"]),
    "ix_audit_entries_result_id": ("audit_entries", ["result", "id"]),
}


def upgrade() -> None:
    for name, (table, columns) in INDEXES.items():
        op.create_index(name, table, columns)
    for statement in TRIGGERS[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION settings_versions_refuse() CASCADE")
        op.execute("DROP FUNCTION settings_versions_refuse_delete() CASCADE")
    else:
        op.execute("DROP TRIGGER settings_versions_no_update")
        op.execute("DROP TRIGGER settings_versions_no_delete")
    for name, (table, _) in INDEXES.items():
        op.drop_index(name, table)
