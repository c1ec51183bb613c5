"""Who is asking: the one answer of authentication, whatever the credential was."""

from __future__ import annotations

from dataclasses import dataclass, field

from atelier.contract.errors import NotPermitted
from portal.services.audit import NOWHERE, Origin
from portal.services.permissions import main_role


@dataclass(frozen=True)
class Caller:
    """A user who proved who they are. `permissions` are the roles', narrowed by an API key's scopes."""

    user_id: str
    username: str
    roles: tuple[str, ...]
    permissions: frozenset[str] = field(repr=False)
    epoch: int = 0
    session_id: str | None = None
    """The login this came from; None for a password or API key sent along."""
    expires_at: float | None = None
    """Unix seconds until which the credential itself is good; None where it has no end."""
    origin: Origin = field(default=NOWHERE, repr=False, compare=False)
    """Where this request came from."""

    @property
    def role(self) -> str:
        """The roles as one word or a few."""
        return main_role(self.roles)

    def may(self, permission: str) -> bool:
        """Whether the caller has `permission`."""
        return permission in self.permissions

    def demand(self, permission: str) -> None:
        """Raise NotPermitted unless the caller has `permission`."""
        if not self.may(permission):
            raise NotPermitted(
                f"Your account {self.username!r} may not do this: it needs the permission {permission!r}. "
                "Ask an administrator.",
                detail={"permission": permission},
            )
