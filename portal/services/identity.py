"""Users: made, changed, disabled, and logged in. The last administrator stays."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from atelier.contract.errors import (
    Conflict,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    TooManyRequests,
)
from portal.db.base import Database
from portal.db.identity import User
from portal.db.rights import UserRole
from portal.db.work import Job
from portal.services import audit
from portal.services.audit import ANONYMOUS, Actor, Named, Origin
from portal.services.passwords import Passwords
from portal.services.permissions import ADMIN
from portal.services.ports import Clock
from portal.services.rights import demand_no_more_than_own, known, permissions_of
from portal.services.sessions import Sessions, Tokens
from portal.services.throttle import LoginThrottle

log = logging.getLogger(__name__)

_USERNAME = re.compile(r"[a-z0-9](?:[a-z0-9._@-]{0,62}[a-z0-9])?\Z")
WRONG = "The user name or the password is wrong."


@dataclass(frozen=True)
class Change:
    """What an administrator changes of a user; None leaves it as it is."""

    roles: Iterable[str] | None = None
    disabled: bool | None = None
    password: str | None = None


class Identity:
    """The use cases about users. Every one of them leaves an audit entry in its own transaction."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        sessions: Sessions,
        throttle: LoginThrottle,
        clock: Clock,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._sessions = sessions
        self._throttle = throttle
        self._clock = clock

    def log_in(self, username: str, password: str, origin: Origin) -> tuple[User, Tokens]:
        """A new login. Raises NotAuthenticated, or TooManyRequests with the seconds to wait."""
        user = self.verify(username, password, origin)
        with self._database.session() as session:
            found = session.get_one(User, user.id)
            if found.disabled:
                raise NotAuthenticated(WRONG)
            found.last_login_at = self._clock.now()
            tokens = self._sessions.begin(session, found, origin)
            self._note(session, Named(found.id, found.username), "login", f"user:{found.id}", "done", origin)
        return found, tokens

    def verify(self, username: str, password: str, origin: Origin) -> User:
        """The enabled user whose password this is, at the same cost whoever it is. Raises as `log_in`
        does.
        """
        name = username.strip().lower()[:256]
        # A place comes before the turn: who is sent away has not tried.
        with self._passwords.in_line(), self._throttle.turn(origin.ip, name) as blocked:
            _refuse_where_throttled(blocked, origin)
            with self._database.reading() as session:
                user = session.scalars(select(User).where(User.username == name)).one_or_none()
            right, renewed = self._passwords.verify(password, user.password_hash if user else None)
            if user is None or not right or user.disabled:
                _refuse_where_throttled(self._throttle.failed(origin.ip, name), origin)
                self._note_failure(name, origin)
                raise NotAuthenticated(WRONG)
            _refuse_where_throttled(self._throttle.succeeded(origin.ip, name), origin)
        if renewed:
            with self._database.session() as session:
                session.get_one(User, user.id).password_hash = renewed
        return user

    def create(
        self,
        actor: Actor,
        username: str,
        password: str,
        roles: str | Iterable[str],
        origin: Origin | None = None,
        *,
        min_length: int | None = None,
    ) -> User:
        """A new user with one role or several. Raises InvalidRequest for a bad name, role or password,
        Conflict where the name is taken, NotPermitted for more than the actor has.
        """
        name = username.strip().lower()
        if not _USERNAME.match(name):
            raise InvalidRequest(
                "A user name has 1 to 64 letters a-z, digits, or . _ @ - "
                "and begins and ends with a letter or digit."
            )
        wanted = [roles] if isinstance(roles, str) else list(roles)
        with self._database.reading() as session:
            _may_give(session, actor, wanted)
        self._passwords.check_policy(password, name, min_length=min_length)
        user = User(username=name, password_hash=self._passwords.hash(password), created_at=self._clock.now())
        user.hold(wanted)
        try:
            with self._database.session() as session:
                session.add(user)
                session.flush()
                about = f"user:{user.id}"
                self._note(session, actor, "user.create", about, "done", origin, name, roles=user.roles)
        except IntegrityError as error:
            raise Conflict(f"There is already a user named {name!r}.") from error
        return user

    def change(self, actor: Actor, user_id: str, change: Change, origin: Origin | None = None) -> User:
        """Change roles, password or standing. The user's logins end. Raises Conflict for the last
        administrator's, NotPermitted where the actor would touch more rights than they have.
        """
        with self._database.session() as session:
            admins = [*_locked_admins(session), _locked(session, user_id)]
            user = admins[-1]
            demand_no_more_than_own(actor, permissions_of(session, user.roles), f"The user {user.username!r}")
            changed = self._apply(session, actor, user, change)
            if changed:
                if not any(_rules(each) for each in admins):
                    raise Conflict("This is the last administrator. Make somebody else one first.")
                self._sessions.end_all(session, user, "changed")
                self._note(
                    session,
                    actor,
                    "user.change",
                    f"user:{user.id}",
                    "done",
                    origin,
                    user.username,
                    **changed,
                )
        self._sessions.forget()
        return user

    def change_own_password(self, user_id: str, current: str, new: str, origin: Origin) -> None:
        """A user's own new password; all their logins end. Raises NotAuthenticated where `current` is
        wrong.
        """
        user = self.verify(self.user(user_id).username, current, origin)
        self.change(Named(user.id, user.username), user.id, Change(password=new), origin)

    def user(self, user_id: str) -> User:
        """Raises NotFound."""
        with self._database.reading() as session:
            found = session.get(User, user_id)
        if found is None:
            raise NotFound("There is no such user.")
        return found

    def users(self) -> Sequence[User]:
        """Everybody, by name."""
        with self._database.reading() as session:
            return session.scalars(select(User).order_by(User.username)).all()

    def owners_of(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Who each of these jobs belongs to: user names by job id."""
        query = (
            select(Job.id, User.username).join(User, User.id == Job.owner_id).where(Job.id.in_(list(job_ids)))
        )
        with self._database.reading() as session:
            return {job_id: username for job_id, username in session.execute(query)}

    def empty(self) -> bool:
        """Whether nobody has an account yet."""
        with self._database.reading() as session:
            return session.scalar(select(func.count()).select_from(User)) == 0

    def log_out(self, access: str | None, refresh: str | None, origin: Origin) -> None:
        """End the login that an access or a refresh token belongs to; nothing happens where neither is one of
        ours.
        """
        with self._database.session() as session:
            if family := self._sessions.family_of(session, access, refresh):
                self._sessions.end(session, family)
                actor = Named(family.user.id, family.user.username)
                self._note(session, actor, "logout", f"session:{family.id}", "done", origin)
        self._sessions.forget()

    def note_denied(self, actor: Actor, permission: str) -> None:
        """Somebody tried what they may not."""
        with self._database.session() as session:
            self._note(
                session, actor, "permission.denied", f"permission:{permission}", "refused", actor.origin
            )

    def _apply(self, session: Session, actor: Actor, user: User, change: Change) -> dict[str, object]:
        """Make the change on the row; what changed, as the audit trail tells it."""
        changed: dict[str, object] = {}
        if change.roles is not None and set(wanted := list(change.roles)) != set(user.roles):
            before = user.roles
            user.hold(_may_give(session, actor, wanted))
            changed["roles"] = [list(before), list(user.roles)]
        if change.disabled is not None and change.disabled != user.disabled:
            changed["disabled"] = user.disabled = change.disabled
            user.purge_at = None
        if change.password is not None:
            self._passwords.check_policy(change.password, user.username)
            user.password_hash = self._passwords.hash(change.password)
            changed["password"] = "changed"  # noqa: S105  # that it changed, not to what
        return changed

    def _note_failure(self, name: str, origin: Origin) -> None:
        """The name only where it is one: people type passwords into the wrong field."""
        with self._database.session() as session:
            known = session.scalar(select(User.id).where(User.username == name))
            actor = Named(known, name) if known else ANONYMOUS
            self._note(session, actor, "login", f"user:{known or 'unknown'}", "refused", origin)

    def _note(
        self,
        session: Session,
        actor: Actor,
        action: str,
        object: str,
        result: str,
        origin: Origin | None,
        subject: str = "",
        **details: object,
    ) -> None:
        now = self._clock.now()
        audit.record(
            session, actor, action, object, result, subject=subject, origin=origin, details=details, at=now
        )


def _refuse_where_throttled(wait: float, origin: Origin) -> None:
    """Raise TooManyRequests where there are seconds to wait."""
    if wait:
        log.warning("login throttled for %.0f s, from %s", wait, origin.ip)
        raise TooManyRequests(
            f"Too many tries. Wait {_spoken(wait)}, then try again.", detail={"retry_after": round(wait)}
        )


def _may_give(session: Session, actor: Actor, roles: Iterable[str]) -> tuple[str, ...]:
    """The roles, which exist and allow no more than the actor may do."""
    names = known(session, roles)
    if not names:
        raise InvalidRequest("A user holds one role at least.")
    demand_no_more_than_own(actor, permissions_of(session, names), f"The role {', '.join(names)}")
    return names


def _rules(user: User) -> bool:
    return ADMIN in user.roles and not user.disabled


def _locked_admins(session: Session) -> Sequence[User]:
    """Every administrator, locked in one order before anybody is changed: two who demote each other must not
    both succeed.
    """
    query = select(User).join(UserRole, UserRole.user_id == User.id).where(UserRole.role == ADMIN)
    return session.scalars(query.order_by(User.id).with_for_update(of=User)).all()


def _locked(session: Session, user_id: str) -> User:
    user = session.get(User, user_id, with_for_update=True)
    if user is None:
        raise NotFound("There is no such user.")
    return user


def _spoken(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{round(seconds)} seconds" if seconds < 90 else f"{minutes} minutes"
