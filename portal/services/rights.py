"""What roles allow, in a session of the caller's; and the rule that nobody gives away more than they have."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from atelier.contract.errors import NotPermitted, UnknownName
from portal.db.rights import Role
from portal.services.audit import Actor
from portal.services.callers import Caller
from portal.services.permissions import PERMISSIONS, ROLES


def permissions_of(session: Session, roles: Iterable[str]) -> frozenset[str]:
    """What somebody who holds `roles` may do: what any of them allows. A role that is gone allows nothing."""
    names = set(roles)
    own = names - ROLES.keys()
    allowed = [ROLES[name] for name in names & ROLES.keys()]
    if own:
        found = session.scalars(select(Role.permissions).where(Role.name.in_(own)))
        allowed += [frozenset(permissions) & PERMISSIONS.keys() for permissions in found]
    return frozenset().union(*allowed)


def role_names(session: Session) -> list[str]:
    """Every role there is, the built-in ones first."""
    return [*ROLES, *session.scalars(select(Role.name).order_by(Role.name))]


def known(session: Session, roles: Iterable[str]) -> tuple[str, ...]:
    """`roles` without repetition, in order. Raises UnknownName."""
    names, there_are = sorted(set(roles)), role_names(session)
    for name in names:
        if name not in there_are:
            raise UnknownName.of("role", name, there_are)
    return tuple(names)


def demand_no_more_than_own(actor: Actor, permissions: Collection[str], what: str) -> None:
    """Raise NotPermitted where a caller would give, take or touch more than they have themselves: whoever
    manages users does not become an administrator by it. The system and the command line may.
    """
    if not isinstance(actor, Caller):
        return
    missing = sorted(set(permissions) - actor.permissions)
    if missing:
        named = ", ".join(missing[:3]) + (", ..." if missing[3:] else "")
        raise NotPermitted(
            f"{what} has rights that you do not have ({named}). Ask somebody who has them.",
            detail={"permissions": missing},
        )
