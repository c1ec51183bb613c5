"""Guessing passwords is slow: failures are counted in the database, so every replica counts alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.db.base import Database
from portal.db.identity import LoginFailure
from portal.services.ports import Clock

WINDOW = 60.0
PER_NAME = 5
"""Failures within a minute from one address for one name."""
PER_ADDRESS = 20
"""Failures within a minute from one address for all names together."""
LONGEST_BLOCK = 900.0
FORGET_AFTER = 3600.0
"""Seconds of quiet after which earlier blocks count no more."""
TURNS = 64
"""Locks by which tries for one name from one address are looked at one after the other."""


@dataclass(frozen=True)
class _Count:
    key: str
    limit: int


class LoginThrottle:
    """Counts failures, never what succeeds. Many tries at once gain nothing: those of one name and address
    take turns, and of those that several replicas look at, each counts before its result is told.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._turns = tuple(Lock() for _ in range(TURNS))

    @contextmanager
    def turn(self, ip: str, username: str) -> Iterator[float]:
        """Wait for this name's turn; the seconds it is still blocked, 0.0 where it may go on."""
        with self._turns[int(_key("name", ip, username), 16) % TURNS]:
            with self._database.reading() as session:
                blocked = max(_blocked(session, each, self._clock.now()) for each in _counts(ip, username))
            yield blocked

    def failed(self, ip: str, username: str) -> float:
        """Count a failure. 0.0 where it may be told, else the seconds for which others' have blocked it
        meanwhile: 60, doubling to 15 minutes.
        """
        now = self._clock.now()
        with self._database.session() as session:
            return max(_count(session, each, now) for each in _counts(ip, username))

    def succeeded(self, ip: str, username: str) -> float:
        """The password was right: forget this name's failures. The seconds to wait where they, or the
        address's, came to a block meanwhile: then this was one guess among many.
        """
        now = self._clock.now()
        with self._database.session() as session:
            blocked = max(_blocked(session, each, now, lock=True) for each in _counts(ip, username))
            if not blocked:
                session.execute(delete(LoginFailure).where(LoginFailure.key == _key("name", ip, username)))
        return blocked

    def unlock(self, session: Session) -> None:
        """Forget what is over, in the caller's transaction."""
        session.execute(
            delete(LoginFailure).where(LoginFailure.window_started < self._clock.now() - 2 * FORGET_AFTER)
        )


def _counts(ip: str, username: str) -> tuple[_Count, _Count]:
    return _Count(_key("name", ip, username), PER_NAME), _Count(_key("address", ip), PER_ADDRESS)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).casefold().encode()).hexdigest()


def _blocked(session: Session, count: _Count, now: float, *, lock: bool = False) -> float:
    """Seconds for which the count still blocks."""
    row = session.get(LoginFailure, count.key, with_for_update=lock)
    return max(0.0, row.blocked_until - now) if row and row.blocked_until else 0.0


def _count(session: Session, count: _Count, now: float) -> float:
    row = _row(session, count.key, now)
    if row.blocked_until and row.blocked_until > now:
        return row.blocked_until - now
    if row.blocked_until and now - row.blocked_until > FORGET_AFTER:
        row.strikes = 0
    if now - row.window_started >= WINDOW or row.blocked_until:
        row.window_started, row.attempts, row.blocked_until = now, 0, None
    row.attempts += 1
    if row.attempts >= count.limit:
        row.strikes += 1
        row.blocked_until = now + min(WINDOW * 2.0 ** min(row.strikes - 1, 10), LONGEST_BLOCK)
    return 0.0


def _row(session: Session, key: str, now: float) -> LoginFailure:
    """The row of `key`, locked; made where there is none, also when another replica makes it at the same
    moment.
    """
    if row := session.get(LoginFailure, key, with_for_update=True):
        return row
    try:
        with session.begin_nested():
            session.add(LoginFailure(key=key, window_started=now, attempts=0, strikes=0))
    except IntegrityError:
        pass
    return session.get_one(LoginFailure, key, with_for_update=True)
