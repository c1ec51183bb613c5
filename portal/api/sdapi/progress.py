"""GET /sdapi/v1/progress: how far the caller's own work is. The peer tells it of whoever's job runs; ours
of nobody else's.
"""

from __future__ import annotations

import base64
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from atelier.contract.errors import NotFound
from atelier.contract.jobs import JobState, JobView
from portal.api.security import Caller, require_basic, services_of
from portal.services.container import Services
from portal.services.jobs import ACTIVE

router = APIRouter(prefix="/sdapi/v1", tags=["sdapi"])


class ProgressResponse(BaseModel):
    """The peer's answer. progress 0..1, eta_relative in seconds, current_image base64 (a JPEG here) or
    null.
    """

    progress: float = 0.0
    eta_relative: float = 0.0
    state: dict[str, Any]
    current_image: str | None = None
    textinfo: str | None = None


@router.get("/progress", response_model=ProgressResponse)
def progress(
    caller: Annotated[Caller, Depends(require_basic("jobs.read"))],
    services: Annotated[Services, Depends(services_of)],
    skip_current_image: Annotated[bool, Query()] = False,
) -> ProgressResponse:
    """The caller's running job, else the one that waits the longest; zeros where there is none."""
    current = current_job(services, caller)
    if current is None:
        return ProgressResponse(state=_state(None))
    return ProgressResponse(
        progress=min(current.progress.fraction, 1.0),
        eta_relative=current.progress.eta_s or 0.0,
        state=_state(current),
        current_image=None if skip_current_image else _preview(services, caller, current),
        textinfo=current.progress.note or None,
    )


def current_job(services: Services, caller: Caller) -> JobView | None:
    """The caller's running job, else the one that waits the longest; None where there is none."""
    jobs, _ = services.work.jobs.listed(caller, state=ACTIVE, limit=200)
    if not jobs:
        return None
    return next((job for job in reversed(jobs) if job.state is JobState.RUNNING), jobs[-1])


def _preview(services: Services, caller: Caller, job: JobView) -> str | None:
    url = job.progress.preview_url
    if url is None:
        return None
    try:
        data = services.work.jobs.preview(caller, job.id, int(url.rsplit("/", 1)[1]))
    except NotFound:
        return None
    return base64.b64encode(data).decode()


def _state(job: JobView | None) -> dict[str, Any]:
    flags: dict[str, Any] = {"skipped": False, "interrupted": False, "stopping_generation": False}
    if job is None:
        return flags | {
            "job": "",
            "job_count": 0,
            "job_timestamp": "0",
            "job_no": 0,
            "sampling_step": 0,
            "sampling_steps": 0,
        }
    batch = max(1, int(job.info.get("batch_size", 1)))
    rounds = -(-job.progress.pictures // batch)
    steps = job.progress.steps // max(1, rounds)
    return flags | {
        "job": job.id,
        "job_count": rounds,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(job.created)),
        "job_no": job.progress.pictures_done // batch,
        "sampling_step": job.progress.step % steps if steps else 0,
        "sampling_steps": steps,
    }
