"""The audit trail's tables. The database itself refuses to change or remove an entry, and each entry's hash
binds it to the one before it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Index, Integer, String, event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapped, Mapper, mapped_column

from portal.db.base import ID, Base


class AuditEntry(Base):
    """One thing somebody did, or tried. Rows are only ever added. `id` is the place in the chain: 1, 2, 3
    without a gap.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_at", "at"),
        Index("ix_audit_entries_actor_id_id", "actor_id", "id"),
        Index("ix_audit_entries_action_id", "action", "id"),
        Index("ix_audit_entries_object_id", "object", "id"),
        Index("ix_audit_entries_actor_name_id", "actor_name", "id"),
        Index("ix_audit_entries_subject_id", "subject", "id"),
        Index("ix_audit_entries_request_id_id", "request_id", "id"),
        Index("ix_audit_entries_result_id", "result", "id"),
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    )
    at: Mapped[float]
    actor_id: Mapped[str | None] = mapped_column(ID)
    """No foreign key: the trail outlives its people."""
    actor_name: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(64))
    """For whom: the name of the user whose account, job or thing it was, where that is somebody else."""
    action: Mapped[str] = mapped_column(String(64))
    object: Mapped[str] = mapped_column(String(160))
    result: Mapped[str] = mapped_column(String(32))
    request_id: Mapped[str] = mapped_column(String(64))
    ip: Mapped[str] = mapped_column(String(64))
    user_agent: Mapped[str] = mapped_column(String(256))
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    hash: Mapped[str] = mapped_column(String(64))
    """See portal.domain.chain; empty in entries from before there was a chain."""


class AuditHead(Base):
    """The end of the chain: one row, whose lock also puts entries of several processes into one order."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    count: Mapped[int] = mapped_column(BigInteger())
    hash: Mapped[str] = mapped_column(String(64))


_REFUSAL = "the audit trail can only be added to"

TRIGGERS: dict[str, tuple[str, ...]] = {
    "sqlite": (
        f"""CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries
            BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
        f"""CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
            BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
        f"""CREATE TRIGGER audit_head_only_grows BEFORE UPDATE ON audit_head WHEN NEW.count <= OLD.count
            BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
        f"""CREATE TRIGGER audit_head_no_delete BEFORE DELETE ON audit_head
            BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
    ),
    "postgresql": (
        f"""CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END $$""",
        """CREATE TRIGGER audit_entries_no_change BEFORE UPDATE OR DELETE ON audit_entries
            FOR EACH ROW EXECUTE FUNCTION audit_refuse()""",
        """CREATE TRIGGER audit_entries_no_truncate BEFORE TRUNCATE ON audit_entries
            FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()""",
        """CREATE TRIGGER audit_head_only_grows BEFORE UPDATE ON audit_head
            FOR EACH ROW WHEN (NEW.count <= OLD.count) EXECUTE FUNCTION audit_refuse()""",
        """CREATE TRIGGER audit_head_no_delete BEFORE DELETE ON audit_head
            FOR EACH ROW EXECUTE FUNCTION audit_refuse()""",
        """CREATE TRIGGER audit_head_no_truncate BEFORE TRUNCATE ON audit_head
            FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()""",
    ),
}
"""What makes both tables append-only, for each database; the migration and `create_all` run the same."""

FIRST_HEAD = "INSERT INTO audit_head (id, count, hash) VALUES (1, 0, '')"


@event.listens_for(AuditHead.__table__, "after_create")
def _protect(_table: Any, connection: Connection, **_: Any) -> None:
    for statement in (FIRST_HEAD, *TRIGGERS[connection.dialect.name]):
        connection.exec_driver_sql(statement)


def _refuse_change(_mapper: Mapper[AuditEntry], _connection: Connection, entry: AuditEntry) -> None:
    raise PermissionError(f"audit entry {entry.id} cannot be changed or removed")


event.listen(AuditEntry, "before_update", _refuse_change)
event.listen(AuditEntry, "before_delete", _refuse_change)
