"""Guessing passwords is slow: tries are counted in the database, so every replica counts alike."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.db.base import Database
from portal.db.identity import LoginFailure
from portal.services.ports import Clock

WINDOW = 60.0
PER_NAME = 5
"""Tries a minute from one address for one name."""
PER_ADDRESS = 20
"""Tries a minute from one address for all names together."""
LONGEST_BLOCK = 900.0
FORGET_AFTER = 3600.0
"""Seconds of quiet after which earlier blocks count no more."""


@dataclass(frozen=True)
class _Count:
    key: str
    limit: int


class LoginThrottle:
    """Counts a try before its password is looked at, so that many at once gain nothing."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def admit(self, ip: str, username: str) -> float:
        """Count one try. 0.0 where it may go on, else the seconds to wait: 60, then doubling to 15
        minutes.
        """
        now = self._clock.now()
        counts = (_Count(_key("name", ip, username), PER_NAME), _Count(_key("address", ip), PER_ADDRESS))
        with self._database.session() as session:
            return max(_count(session, each, now) for each in counts)

    def forgive(self, ip: str, username: str) -> None:
        """The password was right: forget this name's tries, and take this one off the address's."""
        with self._database.session() as session:
            session.execute(delete(LoginFailure).where(LoginFailure.key == _key("name", ip, username)))
            address = session.get(LoginFailure, _key("address", ip), with_for_update=True)
            if address and address.attempts:
                address.attempts -= 1

    def unlock(self, session: Session) -> None:
        """Forget what is over, in the caller's transaction."""
        session.execute(
            delete(LoginFailure).where(LoginFailure.window_started < self._clock.now() - 2 * FORGET_AFTER)
        )


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).casefold().encode()).hexdigest()


def _count(session: Session, count: _Count, now: float) -> float:
    row = _row(session, count.key, now)
    if row.blocked_until and row.blocked_until > now:
        return row.blocked_until - now
    if row.blocked_until and now - row.blocked_until > FORGET_AFTER:
        row.strikes = 0
    if now - row.window_started >= WINDOW or row.blocked_until:
        row.window_started, row.attempts, row.blocked_until = now, 0, None
    row.attempts += 1
    if row.attempts <= count.limit:
        return 0.0
    row.strikes += 1
    wait = min(WINDOW * 2.0 ** min(row.strikes - 1, 10), LONGEST_BLOCK)
    row.blocked_until = now + wait
    return wait


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
