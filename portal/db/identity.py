"""Who may come in, with what, and what they did: users, sessions, API keys, failed logins, the audit
trail.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapped, Mapper, mapped_column, relationship

from portal.db.base import ID, Base, new_id


class User(Base):
    """A person. `epoch` grows when every token issued so far must stop working (new password, role,
    disabling).
    """

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    """Lower case: names differ by more than their capitals."""
    password_hash: Mapped[str] = mapped_column(String(256))
    role: Mapped[str] = mapped_column(String(32))
    disabled: Mapped[bool] = mapped_column(default=False)
    epoch: Mapped[int] = mapped_column(default=0)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What this user set for themselves, by option name."""
    created_at: Mapped[float]
    last_login_at: Mapped[float | None]


class SessionFamily(Base):
    """One login of one browser or program: all refresh tokens that descend from it. Revoking it ends them
    all.
    """

    __tablename__ = "session_families"

    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ID, ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[float]
    expires_at: Mapped[float] = mapped_column(index=True)
    revoked_at: Mapped[float | None]
    revoked_because: Mapped[str | None] = mapped_column(String(32))
    ip: Mapped[str] = mapped_column(String(64))
    user_agent: Mapped[str] = mapped_column(String(256))

    user: Mapped[User] = relationship()


class RefreshToken(Base):
    """One refresh token, by the SHA-256 of its secret. `used_at` is when it was first exchanged for the next
    one.
    """

    __tablename__ = "refresh_tokens"

    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    family_id: Mapped[str] = mapped_column(
        ID, ForeignKey("session_families.id", ondelete="CASCADE"), index=True
    )
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    issued_at: Mapped[float]
    used_at: Mapped[float | None]

    family: Mapped[SessionFamily] = relationship()


class ApiKey(Base):
    """A program's credential, by the SHA-256 of its secret. `scopes` narrows the owner's permissions; null
    narrows nothing.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ID, ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str] | None]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    last_used_at: Mapped[float | None]

    user: Mapped[User] = relationship()


class LoginFailure(Base):
    """How often a login was tried lately from an address, or from an address for a name: every replica counts
    here.
    """

    __tablename__ = "login_failures"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of what is counted, so that a password typed as a name is not kept."""
    attempts: Mapped[int] = mapped_column(default=0)
    window_started: Mapped[float]
    strikes: Mapped[int] = mapped_column(default=0)
    blocked_until: Mapped[float | None]


class AuditEntry(Base):
    """One thing somebody did, or tried. Rows are only ever added."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_at", "at"),
        Index("ix_audit_entries_actor_id_id", "actor_id", "id"),
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    at: Mapped[float]
    actor_id: Mapped[str | None] = mapped_column(ID)
    """No foreign key: the trail outlives its people."""
    actor_name: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    object: Mapped[str] = mapped_column(String(160))
    result: Mapped[str] = mapped_column(String(32))
    request_id: Mapped[str] = mapped_column(String(64))
    ip: Mapped[str] = mapped_column(String(64))
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)


def _refuse_change(_mapper: Mapper[AuditEntry], _connection: Connection, entry: AuditEntry) -> None:
    raise PermissionError(f"audit entry {entry.id} cannot be changed or removed")


event.listen(AuditEntry, "before_update", _refuse_change)
event.listen(AuditEntry, "before_delete", _refuse_change)
