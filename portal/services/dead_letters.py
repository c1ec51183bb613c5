"""Dead letters: parts whose attempts are used up, with what became of each, and their way back into work.

A part that was given up stays as it is: final states are never left. Trying it again makes a job of its own,
once: the part's row names it, so that a second click finds the job of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from atelier.contract.errors import Conflict, InvalidRequest, ModelUnusable, NotFound, NotPermitted
from atelier.contract.jobs import JobState, PartState
from atelier.contract.parts import ResolvedPart
from portal.db.base import Database, new_id
from portal.db.identity import User
from portal.db.work import Attempt, Job, Model, Part
from portal.services import audit, model_presence
from portal.services.callers import Caller
from portal.services.changes import WORK, Changes
from portal.services.jobs_actions import controlled
from portal.services.ports import Clock
from portal.services.quotas import Quotas
from portal.services.rights import permissions_of

MOST_LISTED = 200
SUBMIT = "jobs.submit"
"""A retry is a job of its owner's, who must be allowed one."""


@dataclass(frozen=True)
class Try:
    """One attempt at a part. Times in unix seconds; `error` is an error body, None where none was left."""

    number: int
    endpoint: str
    started: float
    ended: float | None
    outcome: str | None
    error: dict[str, Any] | None


@dataclass(frozen=True)
class DeadLetter:
    """A part that was given up at `died`, unix seconds. `error` is the reason; `retried_as` the job in which
    it was tried again.
    """

    part: str
    job: str
    ordinal: int
    owner: str
    model: str | None
    endpoint: str | None
    died: float
    error: dict[str, Any]
    attempts: tuple[Try, ...]
    retried_as: str | None


@dataclass(frozen=True)
class Sought:
    """Which dead letters: of a job, of a user by name, of an endpoint, with an error's code; `waiting`: those
    that were not tried again yet.
    """

    job: str | None = None
    owner: str | None = None
    endpoint: str | None = None
    code: str | None = None
    waiting: bool = False


class DeadLetters:
    """The use cases about parts that were given up."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        changes: Changes,
        quotas: Quotas,
        take_room: Callable[[Session, str], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes
        self._quotas = quotas
        self._take_room = take_room

    def listed(
        self,
        caller: Caller,
        sought: Sought = Sought(),
        *,
        everybody: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[DeadLetter], str | None]:
        """The caller's dead letters, the newest first, and the cursor of the next page. `everybody` needs
        jobs.read_all.
        """
        if everybody:
            caller.demand("jobs.read_all")
        limit = max(1, min(limit, MOST_LISTED))
        query = select(Part).where(Part.died.is_not(None), *_conditions(sought))
        if not everybody:
            query = query.where(Part.owner_id == caller.user_id)
        with self._database.reading() as session:
            if cursor is not None:
                query = query.where(_after(session, cursor))
            rows = session.scalars(query.order_by(Part.died.desc(), Part.id.desc()).limit(limit + 1)).all()
            page = rows[:limit]
            return _views(session, page), page[-1].id if len(rows) > limit else None

    def get(self, caller: Caller, part_id: str) -> DeadLetter:
        """One of them, the caller's own or with jobs.read_all anybody's. Raises NotFound."""
        with self._database.reading() as session:
            part = session.get(Part, part_id)
            mine = part is not None and (part.owner_id == caller.user_id or caller.may("jobs.read_all"))
            if part is None or part.died is None or not mine:
                raise NotFound("There is no such dead letter.")
            return _views(session, [part])[0]

    def retry(self, caller: Caller, part_id: str) -> str:
        """Try a part again, of the caller's own or with jobs.control_all of anybody's; the job that does so,
        the same one however often this is asked. Raises NotFound, and what `retry_job` raises.
        """
        with self._database.reading() as session:
            part = session.get(Part, part_id)
            job_id = None if part is None or part.died is None else part.job_id
        if job_id is None:
            raise NotFound("There is no such dead letter.")
        jobs = self._retry(caller, job_id, Part.id == part_id)
        return jobs[part_id]

    def retry_job(self, caller: Caller, job_id: str) -> list[str]:
        """Try everything again that was given up of a job, in one job; the jobs that do so, those of earlier
        clicks included, none where nothing was given up. The work is its owner's as before. Raises NotFound,
        TooManyRequests, QuotaExceeded, ModelUnusable for a model that is gone, Conflict where the owner
        is disabled, NotPermitted where they may not have pictures made any more.
        """
        jobs = self._retry(caller, job_id, Part.died.is_not(None))
        return list(dict.fromkeys(jobs.values()))

    def _retry(self, caller: Caller, job_id: str, which: ColumnElement[bool]) -> dict[str, str]:
        """By part: the job in which it is tried again."""
        with self._database.session() as session:
            job = controlled(session, caller, job_id)
            query = select(Part).where(Part.job_id == job_id, Part.died.is_not(None), which)
            parts = session.scalars(query.order_by(Part.ordinal).with_for_update()).all()
            fresh = [part for part in parts if part.retried_as is None]
            if fresh:
                self._again(session, caller, job, fresh)
            jobs = {part.id: str(part.retried_as) for part in parts}
        if fresh:
            self._changes.notify(job_id, WORK)
        return jobs

    def _again(self, session: Session, caller: Caller, job: Job, parts: Sequence[Part]) -> None:
        owner = session.get_one(User, job.owner_id)
        if owner.disabled:
            raise Conflict(f"The account {owner.username!r} is disabled: nothing is made for it.")
        if SUBMIT not in permissions_of(session, owner.roles):
            raise NotPermitted(
                f"{owner.username!r} may not have pictures made any more. Ask an administrator.",
                detail={"permission": SUBMIT},
            )
        resolved = [ResolvedPart.model_validate(part.resolved) for part in parts]
        model_presence.check(session, resolved)
        _still_registered(session, resolved)
        self._take_room(session, job.owner_id)
        self._quotas.demand(session, job.owner_id, sum(part.pictures for part in parts))
        now = self._clock.now()
        again = _copy(job, parts, now)
        session.add(again)
        session.flush()
        session.add_all(_copies(again, parts, now))
        for part in parts:
            part.retried_as = again.id
        job.version += 1
        audit.record(
            session,
            caller,
            "job.retry",
            f"job:{job.id}",
            subject="" if owner.id == caller.user_id else owner.username,
            details={"as": again.id, "parts": len(parts)},
        )


def _still_registered(session: Session, parts: Sequence[ResolvedPart]) -> None:
    """Raise ModelUnusable where a model was deleted since: its file may be gone with it."""
    needed = {ref.blob_sha256: ref for part in parts for ref in part.models}
    there = set(session.scalars(select(Model.blob_sha256).where(Model.blob_sha256.in_(needed))))
    missing = next((ref for blob, ref in needed.items() if blob not in there), None)
    if missing is not None:
        raise ModelUnusable(
            f"The model {missing.filename} was deleted since. Send the request again with another."
        )


def _copy(job: Job, parts: Sequence[Part], now: float) -> Job:
    """A job that asks for the same. Its pictures stand alone: what arranged them stays with the first job."""
    return Job(
        id=new_id(),
        owner_id=job.owner_id,
        task=job.task,
        state=JobState.QUEUED.value,
        endpoint=job.endpoint,
        priority=job.priority,
        model=job.model,
        request=job.request,
        info=_info(job, parts),
        version=1,
        created=now,
    )


def _info(job: Job, parts: Sequence[Part]) -> dict[str, Any]:
    """The peer's `info` of the pictures of `parts` alone, and which job they come from."""
    pictures = [part.first_index + number for part in parts for number in range(part.pictures)]
    info = dict(job.info)
    for name, value in job.info.items():
        if name.startswith("all_") and isinstance(value, list) and len(value) > max(pictures):
            info[name] = [value[index] for index in pictures]
    for name, every in (("seed", "all_seeds"), ("subseed", "all_subseeds"), ("prompt", "all_prompts")):
        if info.get(every):
            info[name] = info[every][0]
    return {**info, "atelier": {**job.info.get("atelier", {}), "retry_of": job.id}}


def _copies(job: Job, parts: Sequence[Part], now: float) -> list[Part]:
    rows, first = [], 0
    for ordinal, part in enumerate(parts):
        rows.append(
            Part(
                id=new_id(),
                job_id=job.id,
                owner_id=job.owner_id,
                ordinal=ordinal,
                first_index=first,
                state=PartState.QUEUED.value,
                created=now,
                wanted_endpoint=part.wanted_endpoint,
                checkpoint_blob=part.checkpoint_blob,
                resolved=part.resolved,
                recipe_hash=part.recipe_hash,
                pictures=part.pictures,
                losses=part.losses,  # what may have ended workers is still sent alone
                priority=part.priority,
                work=part.work,
                shape=part.shape,
            )
        )
        first += part.pictures
    return rows


def _conditions(sought: Sought) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if sought.job is not None:
        found.append(Part.job_id == sought.job)
    if sought.owner is not None:
        name = sought.owner.strip().lower()
        found.append(Part.owner_id.in_(select(User.id).where(User.username == name)))
    if sought.endpoint is not None:
        found.append(Part.endpoint == sought.endpoint)
    if sought.code is not None:
        found.append(Part.error["code"].as_string() == sought.code)
    if sought.waiting:
        found.append(Part.retried_as.is_(None))
    return found


def _after(session: Session, cursor: str) -> ColumnElement[bool]:
    last = session.get(Part, cursor)
    if last is None or last.died is None:
        raise InvalidRequest("The cursor does not belong to a list of dead letters. Begin again without it.")
    return or_(Part.died < last.died, and_(Part.died == last.died, Part.id < last.id))


def _views(session: Session, parts: Sequence[Part]) -> list[DeadLetter]:
    ids = [part.id for part in parts]
    tries: dict[str, list[Try]] = {each: [] for each in ids}
    for row in session.scalars(select(Attempt).where(Attempt.part_id.in_(ids)).order_by(Attempt.number)):
        tries[row.part_id].append(
            Try(row.number, row.endpoint, row.started, row.ended, row.outcome, row.error)
        )
    jobs = {row.id: row for row in session.scalars(select(Job).where(Job.id.in_({p.job_id for p in parts})))}
    names = dict(
        session.execute(
            select(User.id, User.username).where(User.id.in_({part.owner_id for part in parts}))
        ).all()
    )
    return [
        DeadLetter(
            part=part.id,
            job=part.job_id,
            ordinal=part.ordinal,
            owner=names.get(part.owner_id, part.owner_id),
            model=jobs[part.job_id].model,
            endpoint=part.endpoint,
            died=part.died or 0.0,
            error=part.error or {},
            attempts=tuple(tries[part.id]),
            retried_as=part.retried_as,
        )
        for part in parts
    ]
