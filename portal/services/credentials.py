"""What programs send along: an API key or an access token as bearer, or a password or an API key by Basic."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from atelier.contract.errors import InvalidRequest, NotAuthenticated, NotFound
from portal.db.base import Database
from portal.db.identity import ApiKey, User
from portal.services import audit
from portal.services.audit import Origin
from portal.services.callers import Caller
from portal.services.identity import Identity
from portal.services.permissions import PERMISSIONS
from portal.services.ports import Clock
from portal.services.rights import permissions_of
from portal.services.sessions import Sessions

KEY_PREFIX = "atl_"
REMEMBERED = 60.0
"""Seconds a verified password is remembered, as an HMAC in memory: argon2 at every call would be the slowest
part of a call.
"""
LAST_USED_STEP = 60.0
MAX_REMEMBERED = 10_000
TURNS = 64
"""Locks by which equal credentials are verified one after the other."""
INCORRECT = "Incorrect username or password"
"""The peer's own words, which its clients look for."""


@dataclass(frozen=True)
class _Verified:
    user_id: str
    epoch: int
    until: float


class Credentials:
    """Turns what a program sends into a Caller."""

    def __init__(self, database: Database, identity: Identity, sessions: Sessions, clock: Clock) -> None:
        self._database = database
        self._identity = identity
        self._sessions = sessions
        self._clock = clock
        self._pepper = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._lock = Lock()
        self._turns = tuple(Lock() for _ in range(TURNS))

    def by_bearer(self, token: str) -> Caller:
        """The caller of an API key or an access token. Raises NotAuthenticated."""
        return self._by_key(token, None) if token.startswith(KEY_PREFIX) else self._sessions.caller_of(token)

    def by_password(self, username: str, password: str, origin: Origin) -> Caller:
        """The caller of a user name with a password or one of that user's API keys. Raises NotAuthenticated,
        TooManyRequests.
        """
        name = username.strip().lower()
        if password.startswith(KEY_PREFIX):
            return self._by_key(password, name)
        mark = hmac.digest(self._pepper, f"{len(name)}:{name}:{password}".encode(), "sha256")
        if caller := self._remembered(mark):
            return caller
        with self._turns[mark[0] % TURNS]:
            # A program that begins with many requests at once has its password verified once, not throttled
            # as so many logins.
            return self._remembered(mark) or self._verify(name, password, mark, origin)

    def _verify(self, name: str, password: str, mark: bytes, origin: Origin) -> Caller:
        try:
            user = self._identity.verify(name, password, origin)
        except NotAuthenticated as error:
            raise NotAuthenticated(INCORRECT) from error
        with self._lock:
            self._verified[mark] = _Verified(user.id, user.epoch, self._clock.now() + REMEMBERED)
            while len(self._verified) > MAX_REMEMBERED:
                self._verified.popitem(last=False)
        return self._caller(user)

    def make_key(
        self,
        caller: Caller,
        name: str,
        scopes: Iterable[str] | None,
        expires_at: float | None,
        origin: Origin,
    ) -> tuple[ApiKey, str]:
        """A new API key of the caller's own: the row, and the secret that is told this once."""
        wanted = self._granted(caller, scopes)
        if expires_at is not None and expires_at <= self._clock.now():
            raise InvalidRequest("The key would have expired already. Give a time to come.")
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        key = ApiKey(
            user_id=caller.user_id,
            name=name,
            key_hash=_hash(secret),
            scopes=wanted,
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        with self._database.session() as session:
            session.add(key)
            session.flush()
            self._note(session, caller, "key.create", key, origin)
        return key, secret

    def keys_of(self, user_id: str) -> Sequence[ApiKey]:
        """The user's keys that are not revoked, oldest first."""
        with self._database.reading() as session:
            query = (
                select(ApiKey)
                .where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
                .order_by(ApiKey.id)
            )
            return session.scalars(query).all()

    def revoke_key(self, caller: Caller, key_id: str, origin: Origin) -> None:
        """Revoke one of the caller's own keys. Raises NotFound."""
        with self._database.session() as session:
            key = session.get(ApiKey, key_id)
            if key is None or key.user_id != caller.user_id or key.revoked_at is not None:
                raise NotFound("There is no such key.")
            key.revoked_at = self._clock.now()
            self._note(session, caller, "key.revoke", key, origin)

    def _remembered(self, mark: bytes) -> Caller | None:
        with self._lock:
            known = self._verified.get(mark)
        if known is None or known.until <= self._clock.now():
            return None
        with self._database.reading() as session:
            user = session.get(User, known.user_id)
        if user is None or user.disabled or user.epoch != known.epoch:
            return None
        return self._caller(user)

    def _by_key(self, secret: str, username: str | None) -> Caller:
        now = self._clock.now()
        with self._database.reading() as session:
            key = session.scalars(select(ApiKey).where(ApiKey.key_hash == _hash(secret))).one_or_none()
            user = key.user if key else None
        if (
            key is None
            or user is None
            or user.disabled
            or (username is not None and username != user.username)
        ):
            raise NotAuthenticated(INCORRECT)
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            raise NotAuthenticated("This API key has expired or was revoked. Make a new one.")
        if key.last_used_at is None or now - key.last_used_at >= LAST_USED_STEP:
            with self._database.session() as session:
                session.execute(update(ApiKey).where(ApiKey.id == key.id).values(last_used_at=now))
        return self._caller(user, key.scopes, key.expires_at)

    def _caller(
        self, user: User, scopes: Iterable[str] | None = None, expires_at: float | None = None
    ) -> Caller:
        """The user as a caller; `scopes` narrow what their roles allow."""
        granted = self._permissions(user.roles)
        narrowed = granted if scopes is None else granted & frozenset(scopes)
        return Caller(user.id, user.username, user.roles, narrowed, user.epoch, None, expires_at)

    def _permissions(self, roles: Iterable[str]) -> frozenset[str]:
        with self._database.reading() as session:
            return permissions_of(session, roles)

    def _granted(self, caller: Caller, scopes: Iterable[str] | None) -> list[str] | None:
        """What a new key may do: never more than who makes it. None is everything the owner's roles
        allow, now and later.
        """
        if scopes is None:
            whole = caller.permissions == self._permissions(caller.roles)
            return None if whole else sorted(caller.permissions)
        wanted = sorted(set(scopes))
        if unknown := [each for each in wanted if each not in PERMISSIONS]:
            raise InvalidRequest(f"There is no permission {unknown[0]!r} to give a key.")
        for each in wanted:
            caller.demand(each)
        return wanted

    def _note(self, session: Session, caller: Caller, action: str, key: ApiKey, origin: Origin) -> None:
        audit.record(
            session,
            caller,
            action,
            f"key:{key.id}",
            origin=origin,
            details={"name": key.name, "scopes": key.scopes},
            at=self._clock.now(),
        )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
