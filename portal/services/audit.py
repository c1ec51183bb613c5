"""The audit trail: who did what to what, with which result. An entry stands in the transaction of what it
tells of.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.db.base import Database
from portal.db.identity import AuditEntry


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


@dataclass(frozen=True)
class Named:
    """An actor who is no caller."""

    user_id: str | None
    username: str


SYSTEM = Named(None, "system")
ANONYMOUS = Named(None, "anonymous")


@dataclass(frozen=True)
class Origin:
    """Where a request came from: what every audit entry of it says."""

    request_id: str = ""
    ip: str = ""
    user_agent: str = ""


def record(
    session: Session,
    actor: Actor,
    action: str,
    object: str,
    result: str = "done",
    *,
    request_id: str = "",
    ip: str = "",
    details: dict[str, Any] | None = None,
    at: float | None = None,
) -> None:
    """Add one entry to the caller's transaction. No secret, prompt or picture belongs into `details`."""
    session.add(
        AuditEntry(
            at=time.time() if at is None else at,
            actor_id=actor.user_id,
            actor_name=actor.username[:64],
            action=action,
            object=object[:160],
            result=result,
            request_id=request_id[:64],
            ip=ip[:64],
            details=details or {},
        )
    )


class Trail:
    """The audit trail as administrators read it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(
        self,
        *,
        action: str | None = None,
        actor_name: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[AuditEntry]:
        """The newest entries first, at most `limit`, older than the entry with id `before`."""
        query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
        if action:
            query = query.where(AuditEntry.action == action)
        if actor_name:
            query = query.where(AuditEntry.actor_name == actor_name)
        if before is not None:
            query = query.where(AuditEntry.id < before)
        with self._database.reading() as session:
            return session.scalars(query).all()
