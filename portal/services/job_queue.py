"""Where jobs stand in the queue."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from atelier.contract.jobs import PartState
from portal.db.work import Job, Part


@dataclass(frozen=True)
class Queue:
    """The jobs that have a waiting part: their ids, and by owner when they came, the first one first."""

    jobs: frozenset[str]
    by_owner: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, session: Session) -> Queue:
        """The queue as it is now, in one query, whose rows are the waiting jobs."""
        query = (
            select(Part.job_id, Part.owner_id, func.min(Part.created))
            .where(Part.state == PartState.QUEUED.value)
            .group_by(Part.job_id, Part.owner_id)
        )
        jobs, came = set(), dict[str, list[float]]()
        for job_id, owner_id, created in session.execute(query):
            jobs.add(job_id)
            came.setdefault(owner_id, []).append(created)
        return cls(frozenset(jobs), {owner: sorted(times) for owner, times in came.items()})

    def position(self, job: Job) -> int | None:
        """1 for the job whose part is taken next; None for one that waits for nothing. With users served in
        turn, another's long queue counts only as far as one's own is.
        """
        if job.id not in self.jobs:
            return None
        own = bisect_left(self.by_owner[job.owner_id], job.created)
        others = (
            min(len(times), own + (1 if times[0] <= job.created else 0))
            for owner, times in self.by_owner.items()
            if owner != job.owner_id
        )
        return own + 1 + sum(others)
