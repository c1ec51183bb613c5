"""What people see of jobs: views put together from rows, progress and the queue, for their owners."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, func, select, tuple_
from sqlalchemy.orm import Session

from atelier.contract import keys
from atelier.contract.errors import InvalidRequest, NotFound
from atelier.contract.jobs import JobState, JobView, PartState, PictureView, ProgressView
from atelier.contract.timeline import PHASES
from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.db.identity import User
from portal.db.work import MAPS_FROM, Job, Part, Picture
from portal.domain.sharing import Visibility
from portal.domain.states import UNFINISHED_JOBS
from portal.services.callers import Caller
from portal.services.estimates import Estimates
from portal.services.grids import Grids
from portal.services.job_queue import Queue
from portal.services.ports import Clock
from portal.services.progress import ProgressBoard, Seen
from portal.services.sharing import Standing, seen, sees, shared_with, shared_with_teams, standings
from portal.services.waiting import Outlook, Waiting, told

ACTIVE = "active"
MOST_LISTED = 200
_PROGRESS_VERSIONS = 100_000
"""Room for progress between two versions of a job's row, so that a view's version always grows."""


class Shown(StrEnum):
    """Which jobs a list has: one's own, what others share with one, what is shared with one's teams, what is
    shared with the whole studio, everybody's.
    """

    MINE = "mine"
    SHARED = "shared"
    TEAM = "team"
    STUDIO = "studio"
    EVERYBODY = "everybody"


class Jobs:
    """Reads jobs. Every method takes who is asking and answers NotFound for what is somebody else's."""

    def __init__(
        self, database: Database, store: BlobStore, clock: Clock, board: ProgressBoard, grids: Grids
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._board = board
        self._grids = grids
        self._estimates = Estimates(clock)

    def get(self, caller: Caller, job_id: str) -> JobView:
        """One job; a final one with its grids. Raises NotFound."""
        with self._database.reading() as session:
            job = readable(session, caller, job_id)
            if not _lacks_grids(job):
                return self._views(session, caller, [job])[0]
        self._grids.ensure(job_id)
        with self._database.reading() as session:
            return self._views(session, caller, [readable(session, caller, job_id)])[0]

    def listed(
        self,
        caller: Caller,
        *,
        state: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        shown: Shown = Shown.MINE,
        owner: str | None = None,
        endpoint: str | None = None,
    ) -> tuple[list[JobView], str | None]:
        """The newest jobs first, and the cursor of the next page. `state` is a state or "active" (not yet
        final), `owner` a user's name, `endpoint` one that was asked for or did some of it.

        `shown` EVERYBODY needs jobs.read_all and shows without their pictures what is not shared.
        """
        query = (
            select(Job).order_by(Job.created.desc(), Job.id.desc()).limit(max(1, min(limit, MOST_LISTED)) + 1)
        )
        query = query.where(*_asked_for(caller, shown))
        if state is not None:
            query = query.where(Job.state.in_(_states(state)))
        query = query.where(*_of(owner, endpoint))
        with self._database.reading() as session:
            if cursor is not None:
                last = session.get(Job, cursor)
                if last is None:
                    raise InvalidRequest(
                        "The cursor does not belong to a list of jobs. Begin again without it."
                    )
                # As one comparison of rows, so that the index is entered there and not read up to there.
                query = query.where(tuple_(Job.created, Job.id) < tuple_(last.created, last.id))
            rows = session.scalars(query).all()
            page = rows[: query._limit - 1] if query._limit else rows
            following = page[-1].id if len(rows) > len(page) else None
            due = [job.id for job in page if _lacks_grids(job)]
            if not due:
                return self._views(session, caller, page), following
            listed = [job.id for job in page]
        for job_id in due:
            self._grids.ensure(job_id)
        with self._database.reading() as session:
            jobs = [session.get_one(Job, job_id) for job_id in listed]
            return self._views(session, caller, jobs), following

    def preview(self, caller: Caller, job_id: str, seq: int) -> bytes:
        """The newest preview of a running job as JPEG; `seq` names the one that was announced. Raises
        NotFound.
        """
        with self._database.reading() as session:
            job = session.get(Job, job_id)
            if job is None or not sees(session, caller.user_id, job):
                raise NotFound("There is no such job.")
            flying = _flying(session, job_id)
        for part in flying:
            seen = self._board.latest(job_id, part.id, part.attempt)
            newest = seen.state.preview if seen.state else None
            for candidate in dict.fromkeys(each for each in (seq, newest) if each is not None):
                key = keys.preview(job_id, part.id, part.attempt, candidate)
                if self._store.stat(key) is not None:
                    return self._store.get(key)
        raise NotFound("There is no preview of this job now.")

    def queue(self, caller: Caller) -> list[str | None]:
        """The jobs that wait, in their order: the ids of the caller's own, None for others'."""
        with self._database.reading() as session:
            return Queue.of(session).seen_by(caller.user_id)

    def request(self, caller: Caller, job_id: str) -> dict[str, Any]:
        """The request as it was accepted, every field named. Raises NotFound."""
        with self._database.reading() as session:
            job = session.get(Job, job_id)
            if job is None or job.owner_id != caller.user_id:
                raise NotFound("There is no such job.")
            return dict(job.request)

    def shown(self, view: JobView) -> list[bytes]:
        """The files of what the answer to a job shows: its grids, then its pictures, in order."""
        wanted = [picture.id for picture in view.pictures if picture.shown]
        with self._database.reading() as session:
            rows = session.scalars(select(Picture).where(Picture.job_id == view.id)).all()
            keys_by_id = {row.id: row.key for row in rows}
        return [self._store.get(keys_by_id[each]) for each in wanted]

    def _views(self, session: Session, caller: Caller, jobs: Sequence[Job]) -> list[JobView]:
        """The jobs as the caller sees them, in as many queries for a hundred as for one: without their
        pictures where they are neither theirs nor shared.
        """
        ids = [job.id for job in jobs]
        parts: dict[str, list[Part]] = {each: [] for each in ids}
        for part in session.scalars(select(Part).where(Part.job_id.in_(ids)).order_by(Part.ordinal)):
            parts[part.job_id].append(part)
        pictures: dict[str, list[Picture]] = {each: [] for each in ids}
        for row in session.scalars(select(Picture).where(Picture.job_id.in_(ids)).order_by(Picture.index)):
            pictures[row.job_id].append(row)
        outlook = Outlook.of(session, self._estimates, jobs)
        return [
            self._view(job, parts[job.id], pictures[job.id], outlook, standing, pictures_too=mine)
            for job, standing, mine in zip(
                jobs, standings(session, jobs), seen(session, caller.user_id, jobs), strict=True
            )
        ]

    def _view(
        self,
        job: Job,
        parts: Sequence[Part],
        rows: Sequence[Picture],
        outlook: Outlook,
        standing: Standing,
        *,
        pictures_too: bool,
    ) -> JobView:
        state = JobState(job.state)
        seen = {} if state.final else {part.id: self._seen(part) for part in parts if part.state in _FLYING}
        if state in (JobState.QUEUED, JobState.WAKING) and any(each.state for each in seen.values()):
            state = JobState.RUNNING  # its worker says so; the row follows within a moment
        elif state is JobState.QUEUED and any(outlook.waking(part, seen.get(part.id)) for part in parts):
            state = JobState.WAKING
        position = outlook.queue.position(job.id) if state is JobState.QUEUED else None
        now = None if state.final else told(job, state, parts, seen, outlook, self._clock.now())
        return JobView(
            id=job.id,
            task=job.task,
            owner=standing.owner,
            visibility=standing.visibility.value,
            team=standing.team,
            state=state,
            created=job.created,
            endpoint=next((part.endpoint for part in parts if part.endpoint), job.endpoint),
            model=job.model,
            priority=job.priority,
            queue_position=position,
            progress=_progress(
                job.id, state, parts, seen, now, sum(0 <= row.index < MAPS_FROM for row in rows)
            ),
            pictures=tuple(_picture_view(row, job) for row in rows) if pictures_too else (),
            info=_info(job, rows) if pictures_too else {},
            error=job.error,
            timeline=_timeline(parts),
            version=job.version * _PROGRESS_VERSIONS
            + sum(each.state.seq for each in seen.values() if each.state),
        )

    def _seen(self, part: Part) -> Seen:
        return self._board.latest(part.job_id, part.id, part.attempt)


def _progress(
    job_id: str,
    state: JobState,
    parts: Sequence[Part],
    seen: dict[str, Seen],
    now: Waiting | None,
    done: int,
) -> ProgressView:
    """How far a job is; `now` is what it does, None where it is final."""
    pictures = sum(len(part.resolved["seeds"]) for part in parts)
    steps = sum(_steps(part) for part in parts)
    if now is None:
        return ProgressView(
            fraction=1.0,
            phase=state.value,
            step=steps,
            steps=steps,
            pictures_done=done,
            pictures=pictures,
        )
    fractions = [
        1.0 if PartState(part.state).final else seen[part.id].fraction if part.id in seen else 0.0
        for part in parts
    ]
    made = sum(round(share * _steps(part)) for share, part in zip(fractions, parts, strict=True))
    running = [each.state for each in seen.values() if each.state]
    preview = next((each.preview for each in running if each.preview is not None), None)
    return ProgressView(
        fraction=sum(fractions) / len(fractions),
        phase=now.phase,
        step=made,
        steps=steps,
        pictures_done=done + sum(each.pictures_done for each in running),
        pictures=pictures,
        eta_s=now.eta_s,
        preview_url=None if preview is None else f"/api/v1/jobs/{job_id}/preview/{preview}",
        note=now.note,
    )


_FLYING = (PartState.DISPATCHED.value, PartState.RUNNING.value)


def readable(session: Session, caller: Caller, job_id: str) -> Job:
    """The job, if the caller may see it. Raises NotFound: what is somebody else's does not exist."""
    job = session.get(Job, job_id)
    if job is None or not (sees(session, caller.user_id, job) or caller.may("jobs.read_all")):
        raise NotFound("There is no such job.")
    return job


def _asked_for(caller: Caller, shown: Shown) -> tuple[ColumnElement[bool], ...]:
    """The conditions of a list. Raises NotPermitted."""
    me = caller.user_id
    if shown is Shown.EVERYBODY:
        caller.demand("jobs.read_all")
        return ()
    return {
        Shown.MINE: (Job.owner_id == me,),
        Shown.SHARED: (Job.owner_id != me, shared_with(Job, me)),
        Shown.TEAM: (shared_with_teams(Job, me),),
        Shown.STUDIO: (Job.visibility == Visibility.STUDIO.value,),
    }[shown]


def _flying(session: Session, job_id: str) -> Sequence[Part]:
    return session.scalars(
        select(Part).where(Part.job_id == job_id, Part.state.in_(_FLYING)).order_by(Part.ordinal)
    ).all()


def _steps(part: Part) -> int:
    """Steps of all passes of a part."""
    second = part.resolved.get("hires") or {}
    return int(part.resolved["steps"]) + int(second.get("steps", 0))


def _states(wanted: str) -> tuple[str, ...]:
    if wanted == ACTIVE:
        return UNFINISHED_JOBS
    if wanted not in {each.value for each in JobState}:
        raise InvalidRequest(f"There is no job state {wanted[:40]!r}. Known: active, {', '.join(JobState)}.")
    return (wanted,)


def _of(owner: str | None, endpoint: str | None) -> list[ColumnElement[bool]]:
    """What a job fulfils whose owner has that name, and some of which is that endpoint's."""
    wanted: list[ColumnElement[bool]] = []
    if owner:
        named = select(User.id).where(func.lower(User.username) == owner.lower())
        wanted.append(Job.owner_id == named.scalar_subquery())
    if endpoint:
        there = select(Part.id).where(Part.job_id == Job.id, Part.endpoint == endpoint)
        wanted.append((Job.endpoint == endpoint) | there.exists())
    return wanted


def _lacks_grids(job: Job) -> bool:
    return job.grids_due and JobState(job.state).final


def _info(job: Job, rows: Sequence[Picture]) -> dict[str, Any]:
    """The peer's `info` with the infotexts of `rows`: where grids stand in front, pictures begin behind the
    first one.
    """
    front = {"index_of_first_image": int(any(row.index < 0 for row in rows))}
    return {**job.info, **front, "infotexts": [row.infotext for row in rows if row.index < MAPS_FROM]}


def _picture_view(row: Picture, job: Job) -> PictureView:
    url = f"/files/{row.id}"
    return PictureView(
        id=row.id,
        url=url,
        download_url=f"{url}?download=1",
        seed=int(row.seed),
        subseed=int(row.subseed),
        width=row.width,
        height=row.height,
        infotext=row.infotext,
        complete=row.complete,
        grid=row.index < 0,
        control_map=row.index >= MAPS_FROM,
        shown=row.index < 0 or job.arrangement.get("lone_pictures", True),
    )


def _timeline(parts: Sequence[Part]) -> dict[str, float]:
    """When the job reached each phase first, but for the last ones, which it reached when its last part
    did.
    """
    merged: dict[str, float] = {}
    for phase in PHASES:
        times: list[float] = [part.timeline[phase] for part in parts if phase in (part.timeline or {})]
        if times:
            merged[phase] = max(times) if phase in ("stored", "visible") else min(times)
    return merged
