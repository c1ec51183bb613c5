"""/api/v1/jobs: have pictures made, watch them appear, and stop what is no longer wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import StreamingResponse

from atelier.contract.errors import AtelierError
from atelier.contract.jobs import JobRequest, JobView
from atelier.contract.parts import Action
from portal.api.arrival import arrived
from portal.api.following import follow
from portal.api.schema import also, content
from portal.api.security import Caller, require, services_of
from portal.services.container import Services
from portal.services.jobs import Shown

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])
ServicesOf = Annotated[Services, Depends(services_of)]
Reader = Annotated[Caller, Depends(require("jobs.read"))]


class ActionRequest(BaseModel):
    """What to do with a job: finish_current and stop_now keep finished pictures, skip passes over one,
    cancel discards all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action


class JobChange(BaseModel):
    """What to change of a job that waits: its priority among its owner's own jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    priority: int = Field(strict=True, ge=-100, le=100)


class JobsPage(BaseModel):
    """Jobs, the newest first. `next` is the cursor of the page after this one, null on the last."""

    jobs: list[JobView]
    next: str | None = None


@router.post("", status_code=202, response_model=JobView, responses=also(409, 429))
def submit(
    body: JobRequest,
    request: Request,
    response: Response,
    caller: Annotated[Caller, Depends(require("jobs.submit"))],
    services: ServicesOf,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JobView:
    """Accept a job. With an Idempotency-Key the same request sent again within 24 hours is the same job."""
    job_id = services.work.acceptance.accept(
        caller, body, idempotency_key=idempotency_key, origin=arrived(request).origin
    )
    response.headers["Location"] = f"/api/v1/jobs/{job_id}"
    return services.work.jobs.get(caller, job_id)


@router.get("", response_model=JobsPage)
def listed(
    caller: Reader,
    services: ServicesOf,
    state: Annotated[str | None, Query(description='A state, or "active" for those not yet final.')] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=32)] = None,
    shown: Annotated[
        Shown,
        Query(
            description="mine; shared: others' that the caller sees; team: shared with a team of theirs; "
            "studio: shared with all; everybody: all (administrators), with pictures where shared."
        ),
    ] = Shown.MINE,
    everybody: Annotated[bool, Query(description="The same as shown=everybody.")] = False,
) -> JobsPage:
    """The caller's jobs, or those that others share."""
    jobs, following = services.work.jobs.listed(
        caller, state=state, limit=limit, cursor=cursor, shown=Shown.EVERYBODY if everybody else shown
    )
    return JobsPage(jobs=jobs, next=following)


class QueueEntry(BaseModel):
    """A place in the queue, 1 for the next to run. `job` is null for what is another's: it shows no more."""

    position: int
    job: str | None


class QueueView(BaseModel):
    """The jobs that wait, the whole studio's."""

    waiting: int
    entries: list[QueueEntry]


@router.get("/queue", response_model=QueueView)
def queue(caller: Reader, services: ServicesOf) -> QueueView:
    """The queue with the caller's own jobs in it. Of others' there is the place and nothing else."""
    places = services.work.jobs.queue(caller)
    entries = [QueueEntry(position=number, job=job) for number, job in enumerate(places, 1)]
    return QueueView(waiting=len(entries), entries=entries)


@router.get("/{job_id}", response_model=JobView)
def job(job_id: str, caller: Reader, services: ServicesOf) -> JobView:
    """One job."""
    return services.work.jobs.get(caller, job_id)


@router.patch("/{job_id}", response_model=JobView)
def change(
    job_id: str,
    body: JobChange,
    request: Request,
    caller: Annotated[Caller, Depends(require("jobs.control"))],
    services: ServicesOf,
) -> JobView:
    """Let what waits of one's own job be taken before one's others (a higher priority) or after them. Nobody
    else waits longer or shorter for it; a job that is final already stays as it is.
    """
    services.work.actions.prioritise(caller, job_id, body.priority, origin=arrived(request).origin)
    return services.work.jobs.get(caller, job_id)


@router.post("/{job_id}/actions", response_model=JobView)
def act(
    job_id: str,
    body: ActionRequest,
    request: Request,
    caller: Annotated[Caller, Depends(require("jobs.control"))],
    services: ServicesOf,
) -> JobView:
    """Interrupt, skip or cancel. A job that is final already stays as it is."""
    services.work.actions.act(caller, job_id, body.action, origin=arrived(request).origin)
    return services.work.jobs.get(caller, job_id)


@router.get("/{job_id}/events", response_class=StreamingResponse, responses=content("text/event-stream"))
def events(job_id: str, caller: Reader, services: ServicesOf) -> StreamingResponse:
    """Server-sent events: `job` with the whole JobView at each change, a comment every 10 s, the end once
    the job is final.
    """
    services.work.jobs.get(caller, job_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(
        _stream(services, caller, job_id), media_type="text/event-stream", headers=headers
    )


@router.get("/{job_id}/preview/{seq}", response_class=Response, responses=content("image/jpeg"))
def preview(job_id: str, seq: int, caller: Reader, services: ServicesOf) -> Response:
    """The newest preview of a running job, a small JPEG."""
    data = services.work.jobs.preview(caller, job_id, seq)
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})


async def _stream(services: Services, caller: Caller, job_id: str) -> AsyncIterator[str]:
    try:
        async for view in follow(services, caller, job_id):
            yield ": still here\n\n" if view is None else _event(view)
    except AtelierError:
        # Too late for a status: the stream ends, and the client, asking again, is told why.
        return


def _event(view: JobView) -> str:
    return f"event: job\nid: {view.version}\ndata: {view.model_dump_json()}\n\n"
