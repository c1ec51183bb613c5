"""Teams: who works together. Rules on endpoints and models, and settings, may be a team's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from atelier.contract.errors import Conflict, InvalidRequest, NotFound, UnknownName
from portal.db.base import Database, new_id
from portal.db.identity import User
from portal.db.rights import Membership, Team
from portal.domain.access import SubjectKind
from portal.services import audit
from portal.services.audit import Actor
from portal.services.ports import Clock
from portal.services.sharing import withdraw
from portal.services.subjects import forget


@dataclass(frozen=True)
class TeamView:
    """A team with the names of its members."""

    id: str
    name: str
    description: str
    members: tuple[str, ...]


class Teams:
    """The use cases about teams. Each leaves an audit entry in its own transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def listed(self) -> Sequence[TeamView]:
        """Every team, by name."""
        with self._database.reading() as session:
            teams = session.scalars(select(Team).order_by(Team.name)).all()
            return [_view(session, team) for team in teams]

    def of(self, user_id: str) -> Sequence[TeamView]:
        """The teams of a user, by name."""
        theirs = select(Membership.team_id).where(Membership.user_id == user_id)
        with self._database.reading() as session:
            teams = session.scalars(select(Team).where(Team.id.in_(theirs)).order_by(Team.name)).all()
            return [_view(session, team) for team in teams]

    def get(self, team_id: str) -> TeamView:
        """Raises NotFound."""
        with self._database.reading() as session:
            return _view(session, _found(session, team_id))

    def create(
        self, actor: Actor, name: str, description: str = "", members: Collection[str] = ()
    ) -> TeamView:
        """A new team of the users with the names `members`. Raises InvalidRequest, UnknownName, Conflict
        for a taken name.
        """
        team = Team(id=new_id(), name=_name(name), description=_line(description), created=self._clock.now())
        try:
            with self._database.session() as session:
                session.add(team)
                session.flush()
                joined, _ = _set_members(session, team, members)
                audit.record(
                    session, actor, "team.create", f"team:{team.name}", details={"members": sorted(joined)}
                )
        except IntegrityError as error:
            raise Conflict(f"There is already a team named {name!r}.") from error
        return self.get(team.id)

    def change(
        self,
        actor: Actor,
        team_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        members: Collection[str] | None = None,
    ) -> TeamView:
        """Other words for it, or other people in it; None leaves what it is. Raises as `create`, and
        NotFound.
        """
        try:
            with self._database.session() as session:
                team = _found(session, team_id, lock=True)
                told: dict[str, object] = {}
                if name is not None and name != team.name:
                    told["name"] = [team.name, name]
                    team.name = _name(name)
                if description is not None:
                    team.description = _line(description)
                if members is not None:
                    joined, left = _set_members(session, team, members)
                    told |= {"joined": sorted(joined), "left": sorted(left)}
                audit.record(session, actor, "team.change", f"team:{team.name}", details=told)
        except IntegrityError as error:
            raise Conflict(f"There is already a team named {name!r}.") from error
        return self.get(team_id)

    def delete(self, actor: Actor, team_id: str) -> None:
        """Take a team away, with the rules that name it; its people stay, and what was shared with it is
        private again. Raises NotFound.
        """
        with self._database.session() as session:
            team = _found(session, team_id, lock=True)
            withdraw(session, team_id)
            session.delete(team)
            session.flush()
            forget(session, SubjectKind.TEAM, team_id)
            audit.record(session, actor, "team.delete", f"team:{team.name}")


def _set_members(session: Session, team: Team, names: Collection[str]) -> tuple[set[str], set[str]]:
    """Let exactly the users `names` belong to the team; who joined and who left."""
    wanted = {name.strip().lower() for name in names}
    ids = {
        name: user_id
        for user_id, name in session.execute(select(User.id, User.username).where(User.username.in_(wanted)))
    }
    for name in sorted(wanted):
        if name not in ids:
            raise UnknownName.of("user", name, session.scalars(select(User.username).order_by(User.username)))
    before = {
        name: user_id
        for user_id, name in session.execute(
            select(User.id, User.username)
            .join(Membership, Membership.user_id == User.id)
            .where(Membership.team_id == team.id)
        )
    }
    joined, left = ids.keys() - before.keys(), before.keys() - ids.keys()
    session.add_all(Membership(team_id=team.id, user_id=ids[name]) for name in joined)
    gone = [before[name] for name in left]
    session.execute(delete(Membership).where(Membership.team_id == team.id, Membership.user_id.in_(gone)))
    return joined, left


def _found(session: Session, team_id: str, *, lock: bool = False) -> Team:
    team = session.get(Team, team_id, with_for_update=lock)
    if team is None:
        raise NotFound("There is no such team.")
    return team


def _view(session: Session, team: Team) -> TeamView:
    names = session.scalars(
        select(User.username)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.team_id == team.id)
        .order_by(User.username)
    ).all()
    return TeamView(team.id, team.name, team.description, tuple(names))


def _name(text: str) -> str:
    name = text.strip()
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise InvalidRequest("A team's name has from 1 to 64 printable characters.")
    return name


def _line(text: str) -> str:
    if len(text) > 200 or any(ord(char) < 32 for char in text):
        raise InvalidRequest("A team's description is one line of up to 200 characters.")
    return text
