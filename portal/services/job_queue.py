"""Where jobs stand in the queue: in the order in which the dispatcher takes their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from atelier.contract.jobs import PartState
from portal.db.work import Part
from portal.domain.fairness import Turns
from portal.services.turns import turns


@dataclass(frozen=True)
class Place:
    """A job that has waiting parts: `number` 1 is the next. `begins` and `ends` are its place in the order of
    portal.domain.fairness, `work` and `parts` what waits of it, `before` its owner's work in front of it.
    """

    job: str
    owner: str
    begins: float
    ends: float
    work: float
    parts: int
    before: float
    number: int = 0

    @property
    def last(self) -> float:
        """Where its last part begins."""
        return self.ends - (self.ends - self.begins) / self.parts


@dataclass(frozen=True)
class Line:
    """What waits of one user: where it begins in the order, all its work, and its owner's weight."""

    begins: float
    work: float
    weight: float

    def before(self, place: float) -> float:
        """The work in it that comes before a place in the order."""
        return min(self.work, max(0.0, (place - self.begins) * self.weight))


@dataclass(frozen=True)
class Queue:
    """The jobs that have a waiting part, by their ids, and the lines of their owners."""

    places: Mapping[str, Place] = field(default_factory=dict)
    lines: Mapping[str, Line] = field(default_factory=dict)

    @classmethod
    def of(cls, session: Session) -> Queue:
        """The queue as it is now, in one query, whose rows are the waiting jobs, and few for users' turns."""
        since, work = func.min(Part.created), func.sum(Part.work)
        query = (
            select(Part.job_id, Part.owner_id, func.max(Part.priority), since, work, func.count())
            .where(Part.state == PartState.QUEUED.value)
            .group_by(Part.job_id, Part.owner_id)
        )
        by_owner: dict[str, list[_Row]] = {}
        for row in session.execute(query):
            by_owner.setdefault(row[1], []).append(_Row(*row))
        stand = turns(session, by_owner)
        lines: dict[str, Line] = {}
        found: list[tuple[float, float, Place]] = []
        for owner, rows in by_owner.items():
            came, line = min(row.since for row in rows), _line(rows, owner, stand)
            lines[owner] = Line(line[0].begins, sum(each.work for each in line), stand.weight(owner))
            found += [(round(each.begins, 6), came, each) for each in line]
        found.sort(key=lambda each: (each[0], each[1], each[2].begins))
        return cls({each.job: replace(each, number=at) for at, (*_, each) in enumerate(found, 1)}, lines)

    def position(self, job_id: str) -> int | None:
        """1 for the job whose part is taken next; None for one that waits for nothing."""
        place = self.places.get(job_id)
        return place.number if place is not None else None

    def ahead(self, job_id: str) -> float:
        """The waiting work that is sent before the job's last part is, its own others included. Of another's
        long queue only what comes first counts.
        """
        place = self.places.get(job_id)
        if place is None:
            return 0.0
        others = sum(line.before(place.last) for owner, line in self.lines.items() if owner != place.owner)
        return others + place.before + place.work * (1.0 - 1.0 / place.parts)

    def seen_by(self, user_id: str) -> list[str | None]:
        """Every place in its order: the id of the job that stands there where it is the user's, else None."""
        ordered = sorted(self.places.values(), key=lambda each: each.number)
        return [each.job if each.owner == user_id else None for each in ordered]


@dataclass(frozen=True)
class _Row:
    """What waits of a job."""

    job: str
    owner: str
    priority: int
    since: float
    work: float
    parts: int


def _line(rows: Sequence[_Row], owner: str, stand: Turns) -> list[Place]:
    """One user's jobs in their order."""
    placed: list[Place] = []
    before = 0.0
    for row in sorted(rows, key=lambda each: (-each.priority, each.since, each.job)):
        begins = placed[-1].ends if placed else stand.start(owner, row.work / row.parts)
        ends = begins + row.work / stand.weight(owner)
        placed.append(Place(row.job, owner, begins, ends, row.work, row.parts, before))
        before += row.work
    return placed
