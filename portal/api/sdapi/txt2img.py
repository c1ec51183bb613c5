"""POST /sdapi/v1/txt2img: one request, one answer with the pictures, as the peer's clients expect. Inside
it is a job like any other.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Body, Depends
from pydantic import BaseModel
from starlette.requests import Request

from atelier.contract.errors import AtelierError, InternalError, from_body
from atelier.contract.jobs import JobRequest, JobState, JobView
from portal.api.arrival import arrived
from portal.api.following import followed_to_the_end
from portal.api.schema import also
from portal.api.security import Caller, require_basic, services_of
from portal.services.container import Services

router = APIRouter(prefix="/sdapi/v1", tags=["sdapi"])


class ImagesResponse(BaseModel):
    """The peer's answer: pictures as base64, the request with every field, and `info` as JSON text."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


@router.post("/txt2img", response_model=ImagesResponse, responses=also(410))
async def txt2img(
    payload: Annotated[dict[str, Any], Body()],
    request: Request,
    caller: Annotated[Caller, Depends(require_basic("jobs.submit"))],
    services: Annotated[Services, Depends(services_of)],
) -> ImagesResponse:
    """Make pictures and wait for them. A client that leaves has its job go on; /api/v1/jobs shows it."""
    wanted = JobRequest(txt2img_payload=payload)
    job_id = await to_thread.run_sync(
        lambda: services.work.acceptance.accept(
            caller, wanted, origin=arrived(request).origin, answering=True
        )
    )
    view = await followed_to_the_end(services, caller, job_id)
    return await to_thread.run_sync(lambda: _answer(services, caller, view))


def _answer(services: Services, caller: Caller, view: JobView) -> ImagesResponse:
    if view.state in (JobState.FAILED, JobState.EXPIRED) and not view.pictures:
        raise _failure(view)
    parameters = services.work.jobs.request(caller, view.id)
    wanted = parameters.get("send_images") is not False
    files = services.work.jobs.shown(view) if wanted else []
    info = {**view.info, "infotexts": _infotexts(view)}
    if view.error:
        said = str(view.error.get("message", "unknown reason"))
        notices = dict(info.get("atelier") or {})
        notices["warnings"] = [*notices.get("warnings", ()), f"Not every picture was made: {said}"]
        info["atelier"] = notices
    return ImagesResponse(
        images=[base64.b64encode(data).decode() for data in files],
        parameters=parameters,
        info=json.dumps(info),
    )


def _infotexts(view: JobView) -> list[str]:
    """Those of the images, in their order, then those of pictures that are kept but not shown, as the peer
    has it.
    """
    shown = [picture.infotext for picture in view.pictures if picture.shown]
    return shown + [picture.infotext for picture in view.pictures if not picture.shown]


def _failure(view: JobView) -> AtelierError:
    return (
        from_body(view.error)
        if view.error
        else InternalError(f"The job {view.id} ended as {view.state.value}.")
    )
