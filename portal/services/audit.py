"""Writing the audit trail: who did what, for whom, on what, with which result, from where. An entry stands in
the transaction of what it tells of.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import event
from sqlalchemy.orm import Session

from portal.db.audit import AuditEntry, AuditHead
from portal.db.base import Database
from portal.domain import chain

_KEY = "audit key"
_PENDING = "audit entries"
_LENGTHS = {"actor_name": 64, "subject": 64, "object": 160, "request_id": 64, "ip": 64, "user_agent": 256}


@dataclass(frozen=True)
class Origin:
    """Where a request came from: what every audit entry of it says."""

    request_id: str = ""
    ip: str = ""
    user_agent: str = ""


NOWHERE = Origin()
"""Of what no request asked for."""


class Actor(Protocol):
    """Who is behind an action: a Caller, a User's name, or one of the two below."""

    @property
    def user_id(self) -> str | None:
        """None for the system itself and for somebody not logged in."""
        ...

    @property
    def username(self) -> str:
        """The name as it stands in the trail."""
        ...

    @property
    def origin(self) -> Origin:
        """Where the request came from that they made."""
        ...


@dataclass(frozen=True)
class Named:
    """An actor who is no caller."""

    user_id: str | None
    username: str
    origin: Origin = NOWHERE


SYSTEM = Named(None, "system")
ANONYMOUS = Named(None, "anonymous")


def keep(database: Database, key: bytes) -> None:
    """Let what is recorded in sessions of `database` be sealed under `key`."""
    database.info[_KEY] = key


def record(
    session: Session,
    actor: Actor,
    action: str,
    object: str,
    result: str = "done",
    *,
    subject: str = "",
    origin: Origin | None = None,
    details: Mapping[str, Any] | None = None,
    at: float | None = None,
) -> None:
    """Add one entry to the caller's transaction: it takes its place in the chain as that commits. No secret,
    prompt or picture belongs into `details`; `origin` is the actor's unless given.
    """
    if _KEY not in session.info:
        raise RuntimeError("an audit entry was recorded on a database without a trail (audit.keep)")
    where = origin or actor.origin
    texts = {
        "actor_name": actor.username,
        "subject": subject,
        "object": object,
        "request_id": where.request_id,
        "ip": where.ip,
        "user_agent": where.user_agent,
    }
    entry = AuditEntry(
        at=time.time() if at is None else at,
        actor_id=actor.user_id,
        action=action,
        result=result,
        details=dict(details or {}),
        **{name: _plain(text)[: _LENGTHS[name]] for name, text in texts.items()},
    )
    session.info.setdefault(_PENDING, []).append(entry)


def sealed_part(entry: AuditEntry) -> dict[str, object]:
    """What an entry's hash covers: every column but the hash."""
    return {
        column.key: getattr(entry, column.key) for column in AuditEntry.__table__.c if column.key != "hash"
    }


@event.listens_for(Session, "before_commit")
def _seal(session: Session) -> None:
    """Put what was recorded at the end of the chain.

    Everything else is written first and the head's lock is taken last, so that two transactions never wait
    for each other in a circle, and the lock is held only for the commit itself.
    """
    pending: list[AuditEntry] = session.info.pop(_PENDING, [])
    if not pending:
        return
    session.flush()
    head = session.get_one(AuditHead, 1, with_for_update=True, populate_existing=True)
    for entry in pending:
        head.count += 1
        entry.id = head.count
        entry.hash = head.hash = chain.seal(session.info[_KEY], head.hash, sealed_part(entry))
        session.add(entry)


@event.listens_for(Session, "after_rollback")
def _forget(session: Session) -> None:
    session.info.pop(_PENDING, None)


def _plain(text: str) -> str:
    """Text that every database keeps as it is: no NUL and no lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
