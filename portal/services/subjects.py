"""Whom rules and quotas may be about: users, teams, roles, everybody, by the names people know."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from atelier.contract.errors import InvalidRequest
from portal.db.identity import User
from portal.db.preferences import SettingsVersion
from portal.db.rights import AccessRule, Membership, Quota, Share, Team
from portal.domain.access import EVERYBODY, Subject, SubjectKind
from portal.services.rights import role_names


def subject_of(session: Session, user_id: str) -> Subject:
    """A user as rules and quotas see them."""
    user = session.get(User, user_id)
    teams = session.scalars(select(Membership.team_id).where(Membership.user_id == user_id))
    return Subject(user_id, frozenset(teams), frozenset(user.roles if user else ()))


def forget(session: Session, kind: SubjectKind, subject: str) -> None:
    """Take what was made for somebody away, in the transaction that deletes them and after that: the database
    keeps versions of settings for as long as there is somebody whose they are.
    """
    for table in (AccessRule, Quota, Share, SettingsVersion):
        session.execute(delete(table).where(table.subject_kind == kind.value, table.subject == subject))


class Subjects:
    """Everybody there is, read once."""

    def __init__(self, session: Session) -> None:
        self._names: dict[SubjectKind, dict[str, str]] = {
            SubjectKind.USER: {
                each.id: each.username for each in session.execute(select(User.id, User.username))
            },
            SubjectKind.TEAM: {each.id: each.name for each in session.execute(select(Team.id, Team.name))},
            SubjectKind.ROLE: {name: name for name in role_names(session)},
            SubjectKind.EVERYBODY: {EVERYBODY: "everybody"},
        }

    def check(self, kind: SubjectKind, subject: str) -> None:
        """Raise InvalidRequest for a subject that does not exist."""
        if subject not in self._names[kind]:
            raise InvalidRequest(f"There is no {kind.value} {subject[:80]!r} to make this for.")

    def name(self, kind: SubjectKind, subject: str) -> str:
        """What the subject is called; who is gone goes by their id."""
        return self._names[kind].get(subject, subject)
