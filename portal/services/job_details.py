"""What administrators look at when a job does not do what it should: its parts and every attempt at them,
without prompts and pictures; and how much is going on in the studio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from atelier.contract.jobs import PartState
from portal.db.base import Database
from portal.db.identity import User
from portal.db.work import Attempt, Endpoint, Part
from portal.services.callers import Caller
from portal.services.jobs import readable
from portal.services.ports import Clock


@dataclass(frozen=True)
class TryView:
    """An attempt at a part. Times in unix seconds; `worked` are seconds of computing."""

    number: int
    endpoint: str
    started: float
    ended: float | None
    outcome: str
    worked: float


@dataclass(frozen=True)
class PartView:
    """A part of a job."""

    ordinal: int
    state: str
    pictures: int
    error: str
    attempts: tuple[TryView, ...]


@dataclass(frozen=True)
class Detail:
    """A job's owner, its parts, and when it reached which phase."""

    owner: str
    parts: tuple[PartView, ...]


@dataclass(frozen=True)
class Load:
    """What goes on: parts in work and waiting, for how long the oldest waits (seconds), and workers."""

    running: int
    waiting: int
    oldest: float
    instances: int
    most: int


class JobDetails:
    """Reads them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def of(self, caller: Caller, job_id: str) -> Detail:
        """The parts of a job that the caller may see. Raises NotFound."""
        with self._database.reading() as session:
            job = readable(session, caller, job_id)
            owner = session.scalar(select(User.username).where(User.id == job.owner_id)) or ""
            return Detail(owner, _parts(session, job_id))

    def load(self) -> Load:
        """How much goes on now."""
        now = self._clock.now()
        queued = Part.state == PartState.QUEUED.value
        with self._database.reading() as session:
            running = session.scalar(select(func.count()).where(Attempt.open)) or 0
            waiting, since = session.execute(select(func.count(), func.min(Part.created)).where(queued)).one()
            instances, most = session.execute(
                select(func.sum(Endpoint.instances), func.sum(Endpoint.max_instances))
            ).one()
        return Load(running, waiting, max(0.0, now - since) if waiting else 0.0, instances or 0, most or 0)


def _parts(session: Session, job_id: str) -> tuple[PartView, ...]:
    rows = session.scalars(select(Part).where(Part.job_id == job_id).order_by(Part.ordinal)).all()
    tries: dict[str, list[TryView]] = {}
    query = (
        select(Attempt)
        .join(Part, Part.id == Attempt.part_id)
        .where(Part.job_id == job_id)
        .order_by(Attempt.number)
    )
    for row in session.scalars(query):
        outcome = "open" if row.open else row.outcome or "ended"
        tries.setdefault(row.part_id, []).append(
            TryView(row.number, row.endpoint, row.started, row.ended, outcome, row.worked)
        )
    return tuple(
        PartView(row.ordinal, row.state, row.pictures, _message(row.error), tuple(tries.get(row.id, ())))
        for row in rows
    )


def _message(error: dict[str, Any] | None) -> str:
    return str(error.get("message", "")) if error else ""
