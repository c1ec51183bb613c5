"""Who may do what: roles of the studio's own, who holds which, teams, quotas, and rules on single endpoints
and models.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import ID, Base, new_id


class Role(Base):
    """A role that the studio made for itself; `admin` and `designer` are built in and have no row."""

    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    description: Mapped[str] = mapped_column(String(200))
    permissions: Mapped[list[str]]
    created: Mapped[float]


class UserRole(Base):
    """That a user holds a role. Roles stack: a user may do what any of theirs allows."""

    __tablename__ = "user_roles"

    user_id: Mapped[str] = mapped_column(ID, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(String(32), primary_key=True)
    """No foreign key: built-in roles have no row."""


class Team(Base):
    """People who work together: rules and settings may be theirs."""

    __tablename__ = "teams"

    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str] = mapped_column(String(200))
    created: Mapped[float]


class Membership(Base):
    """That a user belongs to a team."""

    __tablename__ = "memberships"
    __table_args__ = (Index("ix_memberships_user_id", "user_id"),)

    team_id: Mapped[str] = mapped_column(ID, ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ID, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)


class Quota(Base):
    """How much one subject may use; null limits nothing."""

    __tablename__ = "quotas"

    subject_kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    unfinished_jobs: Mapped[int | None]
    pictures_a_day: Mapped[int | None]
    gpu_seconds_a_day: Mapped[float | None]
    storage_bytes: Mapped[int | None] = mapped_column(BigInteger())


class Share(Base):
    """How much one subject counts where several wait."""

    __tablename__ = "shares"

    subject_kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    weight: Mapped[float]


class AccessRule(Base):
    """That one subject may, or may not, use one object. What no rule names is everybody's."""

    __tablename__ = "access_rules"
    __table_args__ = (
        UniqueConstraint("object_kind", "object", "subject_kind", "subject", name="uq_access_rules_of"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    object_kind: Mapped[str] = mapped_column(String(16))
    object: Mapped[str] = mapped_column(String(64))
    """An endpoint's name, or a model's id."""
    subject_kind: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str] = mapped_column(String(64))
    """A user's or a team's id, a role's name, or `*` for everybody."""
    effect: Mapped[str] = mapped_column(String(8))
    created: Mapped[float]
