"""Links by which somebody comes in for the first time, or again after forgetting a password. Each works
once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from atelier.contract.errors import InvalidRequest, NotFound
from portal.db.base import Database
from portal.db.identity import Invitation, User
from portal.db.rights import Membership, Team
from portal.services import audit
from portal.services.audit import Actor, Named, Origin
from portal.services.identity import Change, Identity
from portal.services.ports import Clock
from portal.services.rights import demand_no_more_than_own, known, permissions_of

HOUR = 3600.0
LONGEST_HOURS = 30 * 24
GONE = "This link does not work any more: it was used, taken back or has expired. Ask for a new one."


@dataclass(frozen=True)
class Offer:
    """What a link is good for: a new account, or a new password for `username`."""

    id: str
    username: str | None
    roles: tuple[str, ...]
    teams: tuple[str, ...]
    made_by: str
    expires: float


class Invitations:
    """The use cases about links. Each leaves an audit entry in its own transaction."""

    def __init__(self, database: Database, identity: Identity, clock: Clock) -> None:
        self._database = database
        self._identity = identity
        self._clock = clock

    def invite(
        self, actor: Actor, roles: Collection[str], teams: Collection[str] = (), hours: float = 72.0
    ) -> tuple[Offer, str]:
        """A link for somebody new, who will hold `roles` and belong to the teams with the ids `teams`;
        and its secret, told this once. Raises UnknownName, NotFound, NotPermitted, InvalidRequest.
        """
        with self._database.session() as session:
            names = known(session, roles)
            if not names:
                raise InvalidRequest("A user holds one role at least.")
            demand_no_more_than_own(actor, permissions_of(session, names), f"The role {', '.join(names)}")
            for team in teams:
                if session.get(Team, team) is None:
                    raise NotFound("There is no such team.")
            return self._make(session, actor, hours, roles=list(names), teams=sorted(set(teams)))

    def reset(self, actor: Actor, user_id: str, hours: float = 24.0) -> tuple[Offer, str]:
        """A link by which a user sets a new password; earlier ones of theirs stop working. Raises NotFound,
        NotPermitted.
        """
        with self._database.session() as session:
            user = session.get(User, user_id, with_for_update=True)
            if user is None:
                raise NotFound("There is no such user.")
            demand_no_more_than_own(actor, permissions_of(session, user.roles), f"The user {user.username!r}")
            session.execute(delete(Invitation).where(Invitation.user_id == user_id))
            return self._make(session, actor, hours, user_id=user_id, roles=[], teams=[])

    def open(self) -> Sequence[Offer]:
        """Every link that still works, the newest first."""
        query = select(Invitation).where(Invitation.expires > self._clock.now())
        with self._database.reading() as session:
            rows = session.scalars(query.order_by(Invitation.id.desc())).all()
            return [_offer(session, row) for row in rows]

    def take_back(self, actor: Actor, offer_id: str) -> None:
        """Let a link stop working. Raises NotFound."""
        with self._database.session() as session:
            row = session.get(Invitation, offer_id, with_for_update=True)
            if row is None:
                raise NotFound("There is no such link.")
            session.delete(row)
            audit.record(session, actor, "invitation.take_back", f"invitation:{offer_id}")

    def look(self, secret: str) -> Offer:
        """What the link with this secret is good for. Raises NotFound."""
        with self._database.reading() as session:
            return _offer(session, self._valid(session, secret))

    def join(self, secret: str, username: str, password: str, origin: Origin) -> User:
        """The account that the link promises. Raises NotFound, and as Identity.create does: then the link
        still works.
        """
        with self._database.reading() as session:
            row = self._valid(session, secret)
        if row.user_id is not None:
            raise NotFound(GONE)
        guest = Named(None, f"invitation by {row.made_by}"[:64], origin)
        user = self._identity.create(guest, username, password, row.roles, origin)
        with self._database.session() as session:
            used = session.execute(delete(Invitation).where(Invitation.id == row.id)).rowcount  # type: ignore[attr-defined]
            if not used:
                session.delete(session.get_one(User, user.id))
            else:
                teams = session.scalars(select(Team.id).where(Team.id.in_(row.teams)))
                session.add_all(Membership(team_id=team, user_id=user.id) for team in teams)
        if not used:
            raise NotFound(GONE)
        return user

    def set_password(self, secret: str, password: str, origin: Origin) -> User:
        """Give the user of a password link a new password; every login of theirs ends. Raises NotFound, and
        InvalidRequest for a weak one: then the link still works.
        """
        with self._database.reading() as session:
            row = self._valid(session, secret)
            user = session.get(User, row.user_id) if row.user_id else None
        if user is None:
            raise NotFound(GONE)
        changed = self._identity.change(
            Named(user.id, user.username, origin), user.id, Change(password=password), origin
        )
        with self._database.session() as session:
            session.execute(delete(Invitation).where(Invitation.id == row.id))
        return changed

    def _make(
        self, session: Session, actor: Actor, hours: float, **what: str | list[str]
    ) -> tuple[Offer, str]:
        if not 0 < hours <= LONGEST_HOURS:
            raise InvalidRequest(f"A link works for up to {LONGEST_HOURS} hours.")
        secret, now = secrets.token_urlsafe(32), self._clock.now()
        row = Invitation(
            token_hash=_hash(secret), made_by=actor.username, created=now, expires=now + hours * HOUR, **what
        )
        session.execute(delete(Invitation).where(Invitation.expires < now))
        session.add(row)
        session.flush()
        offer = _offer(session, row)
        action = "user.password_link" if row.user_id else "user.invite"
        about = f"user:{row.user_id}" if row.user_id else f"invitation:{row.id}"
        told = {"roles": row.roles, "hours": hours}
        audit.record(session, actor, action, about, subject=offer.username or "", details=told)
        return offer, secret

    def _valid(self, session: Session, secret: str) -> Invitation:
        row = session.scalar(select(Invitation).where(Invitation.token_hash == _hash(secret)))
        if row is None or row.expires <= self._clock.now():
            raise NotFound(GONE)
        return row


def _offer(session: Session, row: Invitation) -> Offer:
    name = session.scalar(select(User.username).where(User.id == row.user_id)) if row.user_id else None
    teams = session.scalars(select(Team.name).where(Team.id.in_(row.teams)).order_by(Team.name)).all()
    return Offer(row.id, name, tuple(row.roles), tuple(teams), row.made_by, row.expires)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
