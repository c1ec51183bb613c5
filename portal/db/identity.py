"""Who may come in, and with what: users, links, sessions, API keys, failed logins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.db.base import ID, Base, new_id
from portal.db.rights import UserRole


class User(Base):
    """A person. `epoch` grows when every token issued so far must stop working (new password, role,
    disabling).
    """

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    """Lower case: names differ by more than their capitals."""
    password_hash: Mapped[str] = mapped_column(String(256))
    disabled: Mapped[bool] = mapped_column(default=False)
    epoch: Mapped[int] = mapped_column(default=0)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What this user set for themselves, by option name."""
    created_at: Mapped[float]
    last_login_at: Mapped[float | None]
    purge_at: Mapped[float | None]
    """When the disabled user is to be deleted with all that is theirs; None where that is not planned."""

    held: Mapped[list[UserRole]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", passive_deletes=True, order_by=UserRole.role
    )

    @property
    def roles(self) -> tuple[str, ...]:
        """The names of the roles this user holds, in order."""
        return tuple(sorted(each.role for each in self.held))

    def hold(self, roles: Iterable[str]) -> None:
        """Hold exactly `roles` from now on."""
        wanted = set(roles)
        kept = [each for each in self.held if each.role in wanted]
        known = {each.role for each in kept}
        self.held = [*kept, *(UserRole(role=name) for name in sorted(wanted - known))]


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


class Invitation(Base):
    """A link by which somebody new comes in, or `user_id` sets a new password: by the SHA-256 of its secret.
    It goes as it is used.
    """

    __tablename__ = "invitations"

    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[str | None] = mapped_column(ID, ForeignKey("users.id", ondelete="CASCADE"))
    roles: Mapped[list[str]]
    teams: Mapped[list[str]]
    made_by: Mapped[str] = mapped_column(String(64))
    created: Mapped[float]
    expires: Mapped[float]


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
