"""Logins: an access token for minutes, a refresh token for days, and one question asked at every request: is
it still honoured?
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from atelier.contract.errors import NotAuthenticated
from portal.db.base import Database
from portal.db.identity import RefreshToken, SessionFamily, User
from portal.services import audit
from portal.services.audit import Named, Origin
from portal.services.callers import Caller
from portal.services.ports import Clock
from portal.services.rights import permissions_of
from portal.services.tokens import AccessClaims, AccessTokens

GRACE = 30.0
"""Seconds in which a used refresh token may come again: tabs that woke up together, an answer lost on the
way.
"""
STANDING_CACHE = 5.0
"""Seconds after which a disabled account, a new role or a logout is noticed at the latest."""
CACHED = 10_000


@dataclass(frozen=True)
class Tokens:
    """What a login or a refresh yields. Seconds are lifetimes from now."""

    access: str
    refresh: str
    access_seconds: float
    session_seconds: float


@dataclass(frozen=True)
class _Standing:
    """What the database says of a user and a login, and when it was asked."""

    username: str
    roles: tuple[str, ...]
    permissions: frozenset[str]
    epoch: int
    honoured: bool
    asked_at: float


class Sessions:
    """Issues, renews, checks and ends logins."""

    def __init__(
        self,
        database: Database,
        tokens: AccessTokens,
        clock: Clock,
        *,
        access_seconds: float,
        session_seconds: float,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._clock = clock
        self._access_seconds = access_seconds
        self._session_seconds = session_seconds
        self._standings: OrderedDict[tuple[str, str | None], _Standing] = OrderedDict()
        self._lock = Lock()

    def begin(self, session: Session, user: User, origin: Origin) -> Tokens:
        """A new login of `user`, in the caller's transaction."""
        now = self._clock.now()
        family = SessionFamily(
            user_id=user.id,
            created_at=now,
            expires_at=now + self._session_seconds,
            ip=origin.ip,
            user_agent=origin.user_agent,
        )
        session.add(family)
        session.flush()
        return self._issue(session, family, user, now)

    def refresh(self, refresh_token: str, origin: Origin) -> Tokens:
        """Exchange a refresh token for fresh tokens. One that was used before, outside the grace, ends its
        whole family.

        Raises NotAuthenticated.
        """
        now = self._clock.now()
        with self._database.session() as session:
            row = session.scalars(
                select(RefreshToken).where(RefreshToken.token_hash == _hash(refresh_token)).with_for_update()
            ).one_or_none()
            tokens = self._exchange(session, row, now, origin) if row else None
        if tokens is None:
            self.forget()
            raise NotAuthenticated("You are not logged in any more. Log in again.")
        return tokens

    def _exchange(self, session: Session, row: RefreshToken, now: float, origin: Origin) -> Tokens | None:
        family, user = row.family, row.family.user
        if family.revoked_at is not None or family.expires_at <= now or user.disabled:
            return None
        if row.used_at is not None and now - row.used_at > GRACE:
            self._revoke(session, SessionFamily.id == family.id, "reuse", now)
            audit.record(
                session,
                Named(user.id, user.username),
                "session.reuse",
                f"session:{family.id}",
                "revoked",
                origin=origin,
                at=now,
            )
            return None
        if row.used_at is None:
            row.used_at = now
        return self._issue(session, family, user, now)

    def family_of(self, session: Session, access: str | None, refresh: str | None) -> SessionFamily | None:
        """The login that a valid access token or any known refresh token belongs to."""
        if refresh:
            row = session.scalars(
                select(RefreshToken).where(RefreshToken.token_hash == _hash(refresh))
            ).one_or_none()
            if row:
                return row.family
        try:
            claims = self._tokens.read(access or "", self._clock.now())
        except NotAuthenticated:
            return None
        return session.get(SessionFamily, claims.session_id)

    def end(self, session: Session, family: SessionFamily) -> None:
        """Log out, in the caller's transaction: this login's tokens stop working everywhere."""
        self._revoke(session, SessionFamily.id == family.id, "logout", self._clock.now())

    def end_all(self, session: Session, user: User, because: str) -> None:
        """End every login of `user` and every token issued so far, in the caller's transaction."""
        user.epoch += 1
        self._revoke(session, SessionFamily.user_id == user.id, because, self._clock.now())

    def caller_of(self, access_token: str) -> Caller:
        """The caller of a valid access token whose user and login are still honoured. Raises
        NotAuthenticated.
        """
        claims = self._tokens.read(access_token, self._clock.now())
        standing = self._standing(claims.user_id, claims.session_id)
        if not standing.honoured or standing.epoch != claims.epoch:
            raise NotAuthenticated("You are not logged in any more. Log in again.")
        return Caller(
            claims.user_id,
            standing.username,
            standing.roles,
            standing.permissions,
            standing.epoch,
            claims.session_id,
            claims.expires_at,
        )

    def still_honoured(self, caller: Caller) -> bool:
        """Whether what was true when `caller` came in still is. Long answers (streams) ask this every few
        seconds.
        """
        standing = self._standing(caller.user_id, caller.session_id)
        return (
            standing.honoured
            and standing.epoch == caller.epoch
            and caller.permissions <= standing.permissions
        )

    def forget(self) -> None:
        """Drop the cache: the next request of everybody asks the database."""
        with self._lock:
            self._standings.clear()

    def purge(self, session: Session) -> None:
        """Remove logins that are long over, in the caller's transaction."""
        session.execute(
            delete(SessionFamily).where(SessionFamily.expires_at < self._clock.now() - self._session_seconds)
        )

    def _issue(self, session: Session, family: SessionFamily, user: User, now: float) -> Tokens:
        secret = secrets.token_urlsafe(32)
        session.add(RefreshToken(family_id=family.id, token_hash=_hash(secret), issued_at=now))
        expires_at = min(now + self._access_seconds, family.expires_at)
        access = self._tokens.issue(AccessClaims(user.id, user.epoch, family.id, expires_at), now)
        return Tokens(access, secret, expires_at - now, family.expires_at - now)

    def _revoke(self, session: Session, which: object, because: str, now: float) -> None:
        session.execute(
            update(SessionFamily)
            .where(which, SessionFamily.revoked_at.is_(None))  # type: ignore[arg-type]
            .values(revoked_at=now, revoked_because=because)
        )

    def _standing(self, user_id: str, session_id: str | None) -> _Standing:
        key, now = (user_id, session_id), self._clock.now()
        with self._lock:
            known = self._standings.get(key)
        if known and 0 <= now - known.asked_at < STANDING_CACHE:
            return known
        found = self._ask(user_id, session_id, now)
        with self._lock:
            self._standings[key] = found
            self._standings.move_to_end(key)
            while len(self._standings) > CACHED:
                self._standings.popitem(last=False)
        return found

    def _ask(self, user_id: str, session_id: str | None, now: float) -> _Standing:
        with self._database.reading() as session:
            user = session.get(User, user_id)
            family = session.get(SessionFamily, session_id) if session_id else None
            permissions = permissions_of(session, user.roles) if user else frozenset()
        if user is None:
            return _Standing("", (), frozenset(), -1, False, now)
        logged_in = session_id is None or (
            family is not None
            and family.user_id == user_id
            and family.revoked_at is None
            and family.expires_at > now
        )
        honoured = logged_in and not user.disabled
        return _Standing(user.username, user.roles, permissions, user.epoch, honoured, now)


def _hash(secret: str) -> str:
    """Plain SHA-256 is enough here: the secret has 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()
