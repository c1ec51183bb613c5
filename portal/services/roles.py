"""The studio's own roles, made and changed beside the built-in ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from atelier.contract.errors import Conflict, InvalidRequest, NotFound, UnknownName
from portal.db.base import Database
from portal.db.rights import Role, UserRole
from portal.domain.access import SubjectKind
from portal.services import audit
from portal.services.audit import Actor
from portal.services.permissions import PERMISSIONS, ROLES
from portal.services.ports import Clock
from portal.services.rights import demand_no_more_than_own
from portal.services.sessions import Sessions
from portal.services.subjects import forget

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
DESCRIPTIONS = {
    "admin": "Everything.",
    "designer": "Make pictures with what the studio has, and keep what one made.",
}


@dataclass(frozen=True)
class RoleView:
    """A role as administrators see it; `held` counts who holds it."""

    name: str
    description: str
    permissions: tuple[str, ...]
    built_in: bool
    held: int


class Roles:
    """The use cases about roles. Each leaves an audit entry in its own transaction."""

    def __init__(self, database: Database, sessions: Sessions, clock: Clock) -> None:
        self._database = database
        self._sessions = sessions
        self._clock = clock

    def listed(self) -> Sequence[RoleView]:
        """Every role, the built-in ones first."""
        with self._database.reading() as session:
            counted = select(UserRole.role, func.count()).group_by(UserRole.role)
            held = Counter({name: count for name, count in session.execute(counted)})
            own = session.scalars(select(Role).order_by(Role.name)).all()
        built_in = [
            RoleView(name, DESCRIPTIONS[name], tuple(sorted(permissions)), True, held[name])
            for name, permissions in ROLES.items()
        ]
        return [*built_in, *(_view(row, held[row.name]) for row in own)]

    def put(self, actor: Actor, name: str, description: str, permissions: Iterable[str]) -> RoleView:
        """Make a role, or give one other permissions: whoever holds it has them within seconds. Raises
        InvalidRequest, UnknownName, Conflict for a built-in one, NotPermitted for more than the actor has.
        """
        if not _NAME.match(name):
            raise InvalidRequest(
                "A role's name has 1 to 32 letters a-z, digits and hyphens and begins with a letter."
            )
        if name in ROLES:
            raise Conflict(f"The role {name!r} is built in and stays as it is. Make another one.")
        if len(description) > 200 or any(ord(char) < 32 for char in description):
            raise InvalidRequest("A role's description is one line of up to 200 characters.")
        wanted = sorted(set(permissions))
        for each in wanted:
            if each not in PERMISSIONS:
                raise UnknownName.of("permission", each, PERMISSIONS)
        with self._database.session() as session:
            row = session.get(Role, name, with_for_update=True)
            before = list(row.permissions) if row else []
            demand_no_more_than_own(actor, {*wanted, *before}, f"The role {name!r}")
            if row is None:
                row = Role(name=name, created=self._clock.now())
                session.add(row)
            row.description, row.permissions = description, wanted
            told = {
                "added": sorted(set(wanted) - set(before)),
                "removed": sorted(set(before) - set(wanted)),
            }
            audit.record(session, actor, "role.put", f"role:{name}", details=told)
            held = _held(session, name)
        self._sessions.forget()
        return _view(row, held)

    def delete(self, actor: Actor, name: str) -> None:
        """Take a role away, with the rules that name it. Raises NotFound, and Conflict while somebody holds
        it.
        """
        if name in ROLES:
            raise Conflict(f"The role {name!r} is built in and stays.")
        with self._database.session() as session:
            row = session.get(Role, name, with_for_update=True)
            if row is None:
                raise NotFound(f"There is no role named {name[:80]!r}.")
            if held := _held(session, name):
                raise Conflict(f"{held} users hold the role {name!r}. Give them another one first.")
            demand_no_more_than_own(actor, row.permissions, f"The role {name!r}")
            forget(session, SubjectKind.ROLE, name)
            session.delete(row)
            audit.record(session, actor, "role.delete", f"role:{name}")
        self._sessions.forget()


def _held(session: Session, name: str) -> int:
    return session.scalar(select(func.count()).where(UserRole.role == name)) or 0


def _view(row: Role, held: int) -> RoleView:
    return RoleView(row.name, row.description, tuple(row.permissions), False, held)
