"""POST /sdapi/v1/txt2img: one request, one answer with the pictures, as the peer's clients expect. Inside
it is a job like any other.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Body, Depends, Header
from pydantic import BaseModel
from starlette.requests import Request

from atelier.contract.jobs import JobRequest, JobState, JobView
from portal.api.arrival import arrived
from portal.api.following import followed_to_the_end, patience
from portal.api.schema import also
from portal.api.security import Caller, require_basic, services_of
from portal.services import peer_answers
from portal.services.container import Services

router = APIRouter(prefix="/sdapi/v1", tags=["sdapi"])


class ImagesResponse(BaseModel):
    """The peer's answer: pictures as base64, the request with every field, and `info` as JSON text."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


@router.post("/txt2img", response_model=ImagesResponse, responses=also(410, 504))
async def txt2img(
    payload: Annotated[dict[str, Any], Body()],
    request: Request,
    caller: Annotated[Caller, Depends(require_basic("jobs.submit"))],
    services: Annotated[Services, Depends(services_of)],
    prefer: Annotated[str, Header(max_length=200)] = "",
) -> ImagesResponse:
    """Make pictures and wait for them. A client that leaves has its job go on; /api/v1/jobs shows it. So it
    does after 504, which names it: where `Prefer: wait=SECONDS` or the studio bounds how long a call waits.
    """
    wanted = JobRequest(txt2img_payload=payload)
    job_id = await to_thread.run_sync(
        lambda: services.work.acceptance.accept(
            caller, wanted, origin=arrived(request).origin, answering=True
        )
    )
    view = await followed_to_the_end(services, caller, job_id, patience(services.settings, prefer))
    return await to_thread.run_sync(lambda: _answer(services, caller, view))


def _answer(services: Services, caller: Caller, view: JobView) -> ImagesResponse:
    if view.state is not JobState.CANCELLED and (error := peer_answers.failure(view)):
        raise error
    parameters = services.work.jobs.request(caller, view.id)
    wanted = parameters.get("send_images") is not False
    files = services.work.jobs.shown(view) if wanted else []
    return ImagesResponse(
        images=[base64.b64encode(data).decode() for data in files],
        parameters=parameters,
        info=json.dumps(peer_answers.info(view)),
    )
