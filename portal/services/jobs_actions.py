"""Clicks on running work: what they end at once, and how a worker learns of the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from atelier.contract import keys
from atelier.contract.errors import NotFound, NotPermitted
from atelier.contract.jobs import JobState, PartState
from atelier.contract.parts import Action, EndpointControl, PartControl
from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.db.identity import User
from portal.db.work import Attempt, Job, Part, Picture
from portal.domain.states import UNFINISHED_PARTS, after, on_action, outranks, tells_worker
from portal.services import audit
from portal.services.callers import Caller
from portal.services.changes import WORK, Changes
from portal.services.completion import ABANDONED, LOST, derive
from portal.services.ports import Clock
from portal.services.sharing import sees

_ABSENT = "There is no such job."


class Actions:
    """Carries out finish_current, stop_now, skip and cancel."""

    def __init__(self, database: Database, store: BlobStore, clock: Clock, changes: Changes) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._changes = changes
        self._publishing = threading.Lock()
        self._published: dict[str, tuple[bytes, str]] = {}
        """By endpoint: what was written last, and its etag, by which another writer's hand is noticed."""

    def act(self, caller: Caller, job_id: str, action: Action, *, origin: audit.Origin | None = None) -> None:
        """Do `action` to a job of the caller's, or of anybody's with jobs.control_all. Raises NotFound.

        A job that is final already is left alone: the click came too late, which is no error. What waits
        ends at once, running work within the second in which its worker reads the control object.
        """
        self._act(caller, job_id, action, origin, partial(controlled, caller=caller, job_id=job_id))

    def prioritise(
        self, caller: Caller, job_id: str, priority: int, *, origin: audit.Origin | None = None
    ) -> None:
        """Let what waits of a job of the caller's own be taken before, or after, others of theirs. Raises
        NotFound. A job that is final already is left alone, as by a click that came too late.
        """
        with self._database.session() as session:
            job = _locked(session, job_id)
            if job.owner_id != caller.user_id:
                raise NotFound(_ABSENT)
            before = job.priority
            if JobState(job.state).final or before == priority:
                return
            job.priority, job.version = priority, job.version + 1
            session.execute(
                update(Part)
                .where(Part.job_id == job_id, Part.state.in_(UNFINISHED_PARTS))
                .values(priority=priority)
            )
            told = {"before": before, "priority": priority}
            audit.record(session, caller, "job.priority", f"job:{job_id}", origin=origin, details=told)
        self._changes.notify(job_id, WORK)

    def end_work_of_the_disabled(self) -> int:
        """Stop the unfinished jobs of users who may not come in any more; how many there were. What they
        finished is kept.
        """
        query = (
            select(Job.id)
            .join(User, User.id == Job.owner_id)
            .join(Part, Part.job_id == Job.id)
            .where(User.disabled, Part.state.in_(UNFINISHED_PARTS), Part.action.is_(None))
        )
        with self._database.reading() as session:
            jobs = set(session.scalars(query))
        for job_id in jobs:
            self._act(audit.SYSTEM, job_id, Action.STOP_NOW, None, partial(_locked, job_id=job_id))
        return len(jobs)

    def _act(
        self,
        actor: audit.Actor,
        job_id: str,
        action: Action,
        origin: audit.Origin | None,
        found: Callable[[Session], Job],
    ) -> None:
        told: list[tuple[str, PartControl]] = []
        dropped: list[str] = []
        endpoints: set[str] = set()
        with self._database.session() as session:
            job = found(session)
            if JobState(job.state).final:
                return
            for part in session.scalars(select(Part).where(Part.job_id == job_id).with_for_update()):
                control = _apply(part, action)
                if control is not None and part.endpoint is not None:
                    told.append((part.id, control))
                    endpoints.add(part.endpoint)
            if action is Action.CANCEL:
                dropped = _discard(session, job_id)
            derive(session, job_id, self._clock.now())
            audit.record(
                session,
                actor,
                f"job.{action.value}",
                f"job:{job_id}",
                subject=_whose(session, actor, job),
                origin=origin,
            )
        for part_id, control in told:
            self._store.put(keys.part_control(job_id, part_id), control.model_dump_json().encode())
        for endpoint in endpoints:
            self.publish(endpoint)
        for key in dropped:
            self._store.delete(key)
        self._changes.notify(job_id, WORK)

    def publish(self, endpoint: str) -> None:
        """Write all open actions of an endpoint to its control object, if they are others than last time."""
        with self._publishing:
            with self._database.reading() as session:
                parts = _controls(session, endpoint)
            content = EndpointControl(parts=parts).model_dump_json().encode()
            key = keys.endpoint_control(endpoint)
            there = self._store.stat(key)
            if there is None and not parts:
                return
            if there is not None and self._published.get(endpoint) == (content, there.etag):
                return
            self._published[endpoint] = content, self._store.put(key, content).etag

    def republish(self) -> None:
        """Let every endpoint's control object say what the database says: mends what two writers at once
        have mixed up.
        """
        with self._database.reading() as session:
            names = set(session.scalars(select(Attempt.endpoint).where(Attempt.open).distinct()))
            names |= set(session.scalars(_lost().with_only_columns(Attempt.endpoint)))
        for endpoint in names | set(self._published):
            self.publish(endpoint)


def _controls(session: Session, endpoint: str) -> dict[str, PartControl]:
    """What the workers of an endpoint are to know: open actions, and attempts given up whose part goes on
    elsewhere.
    """
    lost = session.execute(
        _lost().where(Attempt.endpoint == endpoint).with_only_columns(Part.id, Attempt.number, Part.attempt)
    ).all()
    asked = session.execute(
        select(Part.id, Attempt.number, Part.action)
        .join(Attempt, Attempt.part_id == Part.id)
        .where(Attempt.open, Attempt.endpoint == endpoint, (Part.action.is_not(None)) | (Attempt.number > 1))
    ).all()
    # An attempt below the one that counts stops by itself: a worker that came back must not compute what
    # another one has.
    superseded = {part: PartControl(attempt=max(current, number + 1)) for part, number, current in lost}
    current = {
        part: PartControl(attempt=number, action=Action(action) if action else None)
        for part, number, action in asked
    }
    return superseded | current


def _lost() -> Select[Any]:
    """Attempts that were given up, with their worker or with the process that had sent them, while their part
    is not final: found from the few unfinished parts.
    """
    return (
        select(Attempt)
        .join(Part, Part.id == Attempt.part_id)
        .where(Part.state.in_(UNFINISHED_PARTS), Attempt.outcome.in_((LOST, ABANDONED)))
    )


def controlled(session: Session, caller: Caller, job_id: str) -> Job:
    """The job, if the caller may control it. Raises NotFound for others' jobs, whose existence is not told;
    NotPermitted for one that they share.
    """
    job = _locked(session, job_id)
    if job.owner_id == caller.user_id or caller.may("jobs.control_all"):
        return job
    if sees(session, caller.user_id, job):
        raise NotPermitted("This job is shared with you to look at. Only its owner can stop it.")
    raise NotFound(_ABSENT)


def _locked(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id, with_for_update=True)
    if job is None:
        raise NotFound(_ABSENT)
    return job


def _whose(session: Session, actor: audit.Actor, job: Job) -> str:
    """The name of the job's owner where that is somebody else than the actor."""
    if job.owner_id == actor.user_id:
        return ""
    return session.scalar(select(User.username).where(User.id == job.owner_id)) or ""


def _apply(part: Part, action: Action) -> PartControl | None:
    """Do to one part what the click does; what its worker is to be told, if anything."""
    state = PartState(part.state)
    if state.final:
        return None
    event = on_action(state, action)
    told = tells_worker(state) and outranks(action, Action(part.action) if part.action else None)
    if told:
        part.action = action.value
    if event is not None:
        part.state = after(state, event).value
    return PartControl(attempt=part.attempt, action=action) if told else None


def _discard(session: Session, job_id: str) -> list[str]:
    """Take the finished pictures of a cancelled job out of sight; their blobs' keys."""
    pictures = session.scalars(select(Picture).where(Picture.job_id == job_id)).all()
    for picture in pictures:
        session.delete(picture)
    return [picture.key for picture in pictures]
