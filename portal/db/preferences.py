"""Settings of the platform, of teams and of users, as versions that are only ever added to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String, UniqueConstraint, event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import ID, Base, new_id


class SettingsVersion(Base):
    """What one scope sets and locks, from `at` until its next version. The newest one holds."""

    __tablename__ = "settings_versions"
    __table_args__ = (UniqueConstraint("subject_kind", "subject", "number", name="uq_settings_versions_of"),)

    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    subject_kind: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str] = mapped_column(String(64))
    """A user's or a team's id, or `*` for the platform."""
    number: Mapped[int]
    """1, 2, 3 ... within the scope."""
    values: Mapped[dict[str, Any]]
    locked: Mapped[list[str]]
    changed: Mapped[list[str]]
    """The options that this version changed."""
    undoes_to: Mapped[int | None]
    """The version that this one brought back; null for a change."""
    actor_name: Mapped[str] = mapped_column(String(64))
    at: Mapped[float]


_REFUSAL = "versions of settings can only be added to"
_THERE = (
    "OLD.subject_kind NOT IN ('user', 'team') "
    "OR (OLD.subject_kind = 'user' AND EXISTS (SELECT 1 FROM users WHERE id = OLD.subject)) "
    "OR (OLD.subject_kind = 'team' AND EXISTS (SELECT 1 FROM teams WHERE id = OLD.subject))"
)
"""Versions go with their user or team, after them, and at no other time."""

TRIGGERS: dict[str, tuple[str, ...]] = {
    "sqlite": (
        f"""CREATE TRIGGER settings_versions_no_update BEFORE UPDATE ON settings_versions
            BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
        f"""CREATE TRIGGER settings_versions_no_delete BEFORE DELETE ON settings_versions
            WHEN {_THERE} BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END""",
    ),
    "postgresql": (
        f"""CREATE OR REPLACE FUNCTION settings_versions_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END $$""",
        f"""CREATE OR REPLACE FUNCTION settings_versions_refuse_delete() RETURNS trigger
            LANGUAGE plpgsql AS $$ BEGIN IF {_THERE} THEN
            RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END IF;
            RETURN OLD; END $$""",
        """CREATE TRIGGER settings_versions_no_update BEFORE UPDATE ON settings_versions
            FOR EACH ROW EXECUTE FUNCTION settings_versions_refuse()""",
        """CREATE TRIGGER settings_versions_no_delete BEFORE DELETE ON settings_versions
            FOR EACH ROW EXECUTE FUNCTION settings_versions_refuse_delete()""",
        """CREATE TRIGGER settings_versions_no_truncate BEFORE TRUNCATE ON settings_versions
            FOR EACH STATEMENT EXECUTE FUNCTION settings_versions_refuse()""",
    ),
}
"""What makes the table append-only, for each database; the migration and `create_all` run the same."""


@event.listens_for(SettingsVersion.__table__, "after_create")
def _protect(_table: Any, connection: Connection, **_: Any) -> None:
    for statement in TRIGGERS[connection.dialect.name]:
        connection.exec_driver_sql(statement)
