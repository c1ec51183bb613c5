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
    UnknownName,
)
from portal.db.base import Database
from portal.db.identity import User
from portal.db.work import Job
from portal.services import audit
from portal.services.audit import ANONYMOUS, Actor, Named, Origin
from portal.services.passwords import Passwords
from portal.services.permissions import ADMIN, ROLES
from portal.services.ports import Clock
from portal.services.sessions import Sessions, Tokens
from portal.services.throttle import LoginThrottle

log = logging.getLogger(__name__)

_USERNAME = re.compile(r"[a-z0-9](?:[a-z0-9._@-]{0,62}[a-z0-9])?\Z")
WRONG = "The user name or the password is wrong."


@dataclass(frozen=True)
class Change:
    """What an administrator changes of a user; None leaves it as it is."""

    role: str | None = None
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
        if wait := self._throttle.admit(origin.ip, name):
            log.warning("request %s: login throttled for %.0f s, from %s", origin.request_id, wait, origin.ip)
            raise TooManyRequests(
                f"Too many tries. Wait {_spoken(wait)}, then try again.", detail={"retry_after": round(wait)}
            )
        with self._database.reading() as session:
            user = session.scalars(select(User).where(User.username == name)).one_or_none()
        right, renewed = self._passwords.verify(password, user.password_hash if user else None)
        if user is None or not right or user.disabled:
            self._note_failure(name, origin)
            raise NotAuthenticated(WRONG)
        self._throttle.forgive(origin.ip, name)
        if renewed:
            with self._database.session() as session:
                session.get_one(User, user.id).password_hash = renewed
        return user

    def create(
        self,
        actor: Actor,
        username: str,
        password: str,
        role: str,
        origin: Origin = Origin(),
        *,
        min_length: int | None = None,
    ) -> User:
        """A new user. Raises InvalidRequest for a bad name, role or password, Conflict where the name is
        taken.
        """
        name = username.strip().lower()
        if not _USERNAME.match(name):
            raise InvalidRequest(
                "A user name has 1 to 64 letters a-z, digits, or . _ @ - "
                "and begins and ends with a letter or digit."
            )
        _check_role(role)
        self._passwords.check_policy(password, name, min_length=min_length)
        user = User(
            username=name,
            password_hash=self._passwords.hash(password),
            role=role,
            created_at=self._clock.now(),
        )
        try:
            with self._database.session() as session:
                session.add(user)
                session.flush()
                self._note(session, actor, "user.create", f"user:{user.id}", "done", origin, name, role=role)
        except IntegrityError as error:
            raise Conflict(f"There is already a user named {name!r}.") from error
        return user

    def change(self, actor: Actor, user_id: str, change: Change, origin: Origin = Origin()) -> User:
        """Change role, password or standing. The user's logins end, and the last administrator stays one
        (Conflict).
        """
        with self._database.session() as session:
            admins = [*_locked_admins(session), _locked(session, user_id)]
            user = admins[-1]
            changed = self._apply(user, change)
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

    def _apply(self, user: User, change: Change) -> dict[str, object]:
        """Make the change on the row; what changed, as the audit trail tells it."""
        changed: dict[str, object] = {}
        if change.role is not None and change.role != user.role:
            _check_role(change.role)
            changed["role"] = [user.role, change.role]
            user.role = change.role
        if change.disabled is not None and change.disabled != user.disabled:
            changed["disabled"] = user.disabled = change.disabled
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
        origin: Origin,
        subject: str = "",
        **details: object,
    ) -> None:
        now = self._clock.now()
        audit.record(
            session, actor, action, object, result, subject=subject, origin=origin, details=details, at=now
        )


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise UnknownName.of("role", role, ROLES)


def _rules(user: User) -> bool:
    return user.role == ADMIN and not user.disabled


def _locked_admins(session: Session) -> Sequence[User]:
    """Every administrator, locked in one order before anybody is changed: two who demote each other must not
    both succeed.
    """
    return session.scalars(select(User).where(User.role == ADMIN).order_by(User.id).with_for_update()).all()


def _locked(session: Session, user_id: str) -> User:
    user = session.get(User, user_id, with_for_update=True)
    if user is None:
        raise NotFound("There is no such user.")
    return user


def _spoken(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{round(seconds)} seconds" if seconds < 90 else f"{minutes} minutes"
