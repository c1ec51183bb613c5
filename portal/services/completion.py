"""The end of an attempt, however it is learned of: one transaction, guarded by the attempt's number, so
twice is once.

What counts is what lies in the blob store: `result.json` beats a notification of failure that came because
a connection broke after it was written. An attempt that is no longer the part's current one is closed and
its blobs are dropped.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from atelier import logs
from atelier.contract import keys
from atelier.contract.errors import (
    AtelierError,
    InternalError,
    NotFound,
    StorageFull,
    WorkerUnavailable,
    WorkReturned,
    from_body,
)
from atelier.contract.jobs import PartState
from atelier.contract.parts import MapResult, PartResult, PictureResult
from atelier.storage.base import BlobStore
from portal.db.base import Database, new_id
from portal.db.work import MAPS_FROM, Attempt, Job, Part, Picture
from portal.domain import retry
from portal.domain.states import PartEvent, after, job_state
from portal.services.changes import WORK, Changes
from portal.services.measures import Measures
from portal.services.ports import Clock

log = logging.getLogger(__name__)

ABANDONED = "abandoned"
"""Outcome of an attempt that was lost with the process that had sent it: no fault of the part, so it does
not count.
"""
LOST = "lost"
"""Outcome of an attempt whose worker went away or fell silent. Others may have been lost with it, so it
counts as the part's fault only where the part was alone.
"""
RETURNED = "returned"
"""Outcome of an attempt that a worker gave back, that never reached one, or that met a full disk: no fault of
the part either.
"""

_GIVEN_UP = (PartState.FAILED, PartState.EXPIRED)
VISIBLE = ("succeeded", "stopped")
"""Outcomes whose pictures people see. What any other attempt stored is deleted."""


@dataclass(frozen=True)
class Ending:
    """What an attempt came to: a result, or the error that ended it. `outcome` names a failure in the
    attempt's row.
    """

    result: PartResult | None = None
    error: AtelierError | None = None
    outcome: str = "failed"


class Completions:
    """Makes ended attempts visible. Every method may be called twice, late, and from several threads."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        clock: Clock,
        changes: Changes,
        spread: Callable[[], float] = random.random,
        measures: Measures | None = None,
    ) -> None:
        self._measures = measures or Measures()
        self._database = database
        self._store = store
        self._clock = clock
        self._changes = changes
        self._spread = spread

    def notified(self, job: str, part: str, attempt: int, error: dict[str, Any] | None) -> bool:
        """A notification came. Returns whether it changed something."""
        ending = self.stored(job, part, attempt)
        if ending is None:
            said = (
                from_body(error)
                if error
                else WorkerUnavailable("The worker ended the work without leaving a result.")
            )
            ending = Ending(error=said)
        return self.end(job, part, attempt, ending)

    def stored(self, job: str, part: str, attempt: int) -> Ending | None:
        """The ending the attempt left in the blob store, if any."""
        try:
            result = PartResult.model_validate_json(self._store.get(keys.result(job, part, attempt)))
            _check(result, job, part, attempt)
            return Ending(result=result)
        except NotFound:
            pass
        except (ValidationError, ValueError) as error:
            ids = {"job_id": job, "part_id": part, "attempt": attempt}
            log.error("the attempt left a result that cannot be read: %s", error, extra=ids)
            return Ending(error=InternalError("The worker's result cannot be read."))
        try:
            body = json.loads(self._store.get(keys.error(job, part, attempt)))
            return Ending(error=from_body(body["error"]))
        except NotFound:
            return None
        except (ValueError, KeyError, TypeError):
            return Ending(error=InternalError("The worker failed and its reason cannot be read."))

    def end(self, job: str, part: str, attempt: int, ending: Ending) -> bool:
        """Close the attempt and, if it is still the one that counts, end or requeue its part. Returns
        whether anything changed.
        """
        with logs.bound(job_id=job, part_id=part, attempt=attempt):
            with self._database.session() as session:
                row = session.scalar(
                    select(Attempt)
                    .where(Attempt.part_id == part, Attempt.number == attempt, Attempt.job_id == job)
                    .with_for_update()
                )
                if row is None:
                    return False
                changed, visible = row.open, row.outcome in VISIBLE
                if changed:
                    visible = self._close(session, row, ending)
                    state = session.get_one(Part, part).state
            if changed:
                _tell(row, state, ending)
                self._measures.ended(row.endpoint, row.outcome, row.worked)
            if not visible:
                self.drop(job, part, attempt)
        if changed:
            self._changes.notify(job, WORK)
        return changed

    def _close(self, session: Session, attempt: Attempt, ending: Ending) -> bool:
        """End an open attempt. Returns whether its pictures are shown."""
        part = session.get_one(Part, attempt.part_id, with_for_update=True)
        attempt.open, attempt.ended = False, self._clock.now()
        if part.attempt == attempt.number and not PartState(part.state).final:
            self._settle(session, part, attempt, ending)
        else:
            attempt.outcome = "stale"
        return attempt.outcome in VISIBLE

    def drop(self, job: str, part: str, attempt: int) -> None:
        """Delete what an attempt wrote: nobody will see it."""
        for blob in list(self._store.list(keys.attempt(job, part, attempt))):
            self._store.delete(blob.key)

    def _settle(self, session: Session, part: Part, attempt: Attempt, ending: Ending) -> None:
        now = self._clock.now()
        if ending.result is not None and not ending.result.cancelled:
            self._make_visible(session, part, ending.result, now)
            event = PartEvent.STOP if ending.result.stopped else PartEvent.SUCCEED
            attempt.outcome = "stopped" if ending.result.stopped else "succeeded"
            part.timeline = _timeline(part, attempt, ending.result.timeline, now)
            attempt.worked = _worked(ending.result.timeline)
        elif ending.result is not None:
            event, attempt.outcome = PartEvent.CANCEL, "cancelled"
        else:
            error = ending.error or InternalError("The work ended for no known reason.")
            attempt.outcome, attempt.error = ending.outcome, error.body()
            event = self._after_failure(session, part, attempt, error, now)
        part.state = after(PartState(part.state), event)
        if event is PartEvent.FAIL and (part.error or {}).get("retryable"):
            part.died = now
        derive(session, part.job_id, now)

    def _make_visible(self, session: Session, part: Part, result: PartResult, now: float) -> None:
        warnings = list(result.warnings)
        if warnings:
            job = session.get_one(Job, part.job_id)
            told = job.info.get("atelier", {})
            both = list(dict.fromkeys([*told.get("warnings", []), *warnings]))
            job.info = {**job.info, "atelier": {**told, "warnings": both}}
        session.add_all(_picture(part, each, now) for each in result.pictures)
        maps = enumerate(result.maps, start=MAPS_FROM + part.first_index)
        session.add_all(_map(part, index, each, now) for index, each in maps)

    def _after_failure(
        self, session: Session, part: Part, attempt: Attempt, error: AtelierError, now: float
    ) -> PartEvent:
        if part.action is not None:
            # Somebody asked for the end: trying again would compute what nobody wants any more.
            return PartEvent.STOP
        if attempt.outcome == ABANDONED:
            part.not_before = now
            return PartEvent.REQUEUE
        part.error = error.body()
        if isinstance(error, WorkReturned | StorageFull):
            attempt.outcome = RETURNED
            number = 1 + _count(session, attempt, RETURNED)
            part.not_before = now + retry.delay(number, spread=self._spread())
            return PartEvent.REQUEUE
        if isinstance(error, WorkerUnavailable):
            return self._after_loss(session, part, attempt, now)
        number = 1 + _count(session, attempt, "failed")
        if retry.again(number, retryable=error.retryable):
            part.not_before = now + retry.delay(number, spread=self._spread())
            return PartEvent.REQUEUE
        return PartEvent.FAIL

    def _after_loss(self, session: Session, part: Part, attempt: Attempt, now: float) -> PartEvent:
        """Its worker is gone. With company anybody may be the reason: it is sent again, and from the second
        time on alone. A part that ends its workers all alone fails, having taken nobody with it.
        """
        attempt.outcome = LOST
        if attempt.alone:
            lost = select(func.count()).where(Attempt.part_id == part.id, Attempt.alone)
            number = session.scalar(lost.where(Attempt.outcome == LOST)) or 0
        else:
            part.losses += 1
            number = part.losses
        if attempt.alone and retry.blamed(number):
            said = (
                f"The worker went away {number} times while it had nothing but this work, so it was given "
                "up. Change the settings, or ask an administrator to look into the worker's log."
            )
            part.error = WorkerUnavailable(said).body()
            return PartEvent.FAIL
        part.not_before = now + retry.delay(number, spread=self._spread())
        return PartEvent.REQUEUE


def _tell(attempt: Attempt, state: str, ending: Ending) -> None:
    """Log how an attempt ended, and what became of its part."""
    said: dict[str, object] = {"outcome": attempt.outcome, "state": state, "endpoint": attempt.endpoint}
    if ending.error is not None:
        said["code"] = ending.error.code
    if attempt.worked:
        said["worked_s"] = round(attempt.worked, 3)
    level = logging.INFO if attempt.outcome in (*VISIBLE, "cancelled", "stale") else logging.WARNING
    log.log(level, "attempt ended: %s", attempt.outcome, extra=said)


def derive(session: Session, job_id: str, now: float, *, waking: bool = False) -> None:
    """Bring a job's row up to what its parts say, in the caller's transaction."""
    session.flush()
    parts = session.execute(
        select(Part.state, Part.error).where(Part.job_id == job_id).order_by(Part.ordinal)
    ).all()
    job = session.get_one(Job, job_id, with_for_update=True)
    state = job_state((PartState(state) for state, _ in parts), waking=waking)
    job.state, job.version = state.value, job.version + 1
    if state.final and job.finished is None:
        job.finished = now
        job.error = next((error for part, error in parts if part in _GIVEN_UP and error), None)


def _count(session: Session, attempt: Attempt, *outcomes: str) -> int:
    """How many other attempts of the same part came to one of `outcomes`."""
    same_part = select(func.count()).where(Attempt.part_id == attempt.part_id, Attempt.id != attempt.id)
    return session.scalar(same_part.where(Attempt.outcome.in_(outcomes))) or 0


def _check(result: PartResult, job: str, part: str, attempt: int) -> None:
    prefix = keys.attempt(job, part, attempt)
    if (result.job, result.part, result.attempt) != (job, part, attempt):
        raise ValueError("the result is of another attempt")
    if not all(key.startswith(prefix) for key in _stored(result)):
        raise ValueError("the result names a picture outside its attempt")


def _stored(result: PartResult) -> list[str]:
    """The keys of everything an attempt made."""
    return [*(each.key for each in result.pictures), *(each.key for each in result.maps)]


def _picture(part: Part, made: PictureResult, now: float) -> Picture:
    return Picture(
        **_of(part, made, now),
        index=part.first_index + made.index,
        seed=str(made.seed),
        subseed=str(made.subseed),
        infotext=made.infotext,
        recipe_hash=made.recipe_hash,
        complete=made.complete,
    )


def _map(part: Part, index: int, made: MapResult, now: float) -> Picture:
    return Picture(
        **_of(part, made, now),
        index=index,
        seed="0",
        subseed="0",
        infotext="",
        recipe_hash=part.recipe_hash,
        complete=True,
    )


def _of(part: Part, made: PictureResult | MapResult, now: float) -> dict[str, Any]:
    """What every file of a part has in its row."""
    file = {name: getattr(made, name) for name in ("key", "sha256", "size", "width", "height")}
    owned = {"owner_id": part.owner_id, "job_id": part.job_id, "part_id": part.id}
    return {"id": new_id(), **owned, **file, "created": now}


def _worked(timeline: dict[str, float]) -> float:
    """Seconds by the worker's own clock, so that another clock cannot make them more."""
    return max(0.0, timeline.get("stored", 0.0) - timeline.get("received", timeline.get("stored", 0.0)))


def _timeline(part: Part, attempt: Attempt, worker: dict[str, float], now: float) -> dict[str, float]:
    """Written once: the portal's own times around the worker's."""
    own = {"accepted": part.created, "queued": part.created, "dispatched": attempt.started}
    if attempt.woke:
        own["waking"] = attempt.started
    return {**worker, **own, "visible": now}
