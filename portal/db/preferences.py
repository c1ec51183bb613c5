"""Settings of the platform, of teams and of users, as versions that are only ever added to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String, UniqueConstraint
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
