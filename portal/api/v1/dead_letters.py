"""/api/v1/dead-letters: parts whose attempts are used up, why, and their way back into work."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict

from portal.api.security import Caller, require, services_of
from portal.services.container import Services
from portal.services.dead_letters import Sought

router = APIRouter(prefix="/api/v1", tags=["jobs"])
ServicesOf = Annotated[Services, Depends(services_of)]
Reader = Annotated[Caller, Depends(require("jobs.read"))]
Controller = Annotated[Caller, Depends(require("jobs.control"))]
Word = Annotated[str | None, Query(max_length=64)]


class TryOut(BaseModel):
    """One attempt: where, from when to when (unix seconds), what it came to (`failed`, `lost`: its worker
    went away, `returned`: given back, `abandoned`: its sender was restarted), and the error it left.
    """

    model_config = ConfigDict(from_attributes=True)

    number: int
    endpoint: str
    started: float
    ended: float | None
    outcome: str | None
    error: dict[str, Any] | None


class DeadLetterOut(BaseModel):
    """A part that was given up at `died` (unix seconds) for the reason `error`. `retried_as` is the job in
    which it was tried again.
    """

    model_config = ConfigDict(from_attributes=True)

    part: str
    job: str
    ordinal: int
    owner: str
    model: str | None
    endpoint: str | None
    died: float
    error: dict[str, Any]
    attempts: list[TryOut]
    retried_as: str | None


class DeadLettersPage(BaseModel):
    """Dead letters, the newest first. `next` is the cursor of the page after this one, null on the last."""

    letters: list[DeadLetterOut]
    next: str | None = None


class Retried(BaseModel):
    """The jobs in which what was given up is tried again."""

    jobs: list[str]


@router.get("/dead-letters", response_model=DeadLettersPage)
def listed(
    caller: Reader,
    services: ServicesOf,
    job: Word = None,
    owner: Annotated[str | None, Query(max_length=64, description="A user's name.")] = None,
    endpoint: Word = None,
    code: Annotated[str | None, Query(max_length=64, description="The code of the error.")] = None,
    waiting: Annotated[bool, Query(description="Only those that were not tried again yet.")] = False,
    everybody: Annotated[bool, Query(description="All users' (administrators).")] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=32)] = None,
) -> DeadLettersPage:
    """Parts of the caller's jobs whose attempts are used up. What failed for a reason that another attempt
    cannot mend is no dead letter: it failed.
    """
    sought = Sought(job=job, owner=owner, endpoint=endpoint, code=code, waiting=waiting)
    letters, following = services.work.dead_letters.listed(
        caller, sought, everybody=everybody, limit=limit, cursor=cursor
    )
    return DeadLettersPage(letters=[DeadLetterOut.model_validate(each) for each in letters], next=following)


@router.get("/dead-letters/{part_id}", response_model=DeadLetterOut)
def letter(part_id: str, caller: Reader, services: ServicesOf) -> DeadLetterOut:
    """One of them."""
    return DeadLetterOut.model_validate(services.work.dead_letters.get(caller, part_id))


@router.post("/dead-letters/{part_id}/retry", response_model=Retried)
def retry(part_id: str, caller: Controller, services: ServicesOf) -> Retried:
    """Try a part again, in a job of its own. Asked again, the answer is the same job, and nothing happens."""
    return Retried(jobs=[services.work.dead_letters.retry(caller, part_id)])


@router.post("/jobs/{job_id}/retry", response_model=Retried)
def retry_job(job_id: str, caller: Controller, services: ServicesOf) -> Retried:
    """Try all of a job again that was given up, in one job; no jobs where nothing was. Asked again, the
    answer is the same, and nothing happens.
    """
    return Retried(jobs=services.work.dead_letters.retry_job(caller, job_id))
