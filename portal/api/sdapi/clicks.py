"""POST /sdapi/v1/interrupt and skip: the peer's buttons, for the caller's own work and nobody else's."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request

from atelier.contract.parts import Action
from portal.api.arrival import arrived
from portal.api.sdapi.progress import current_job
from portal.api.security import Caller, require_basic, services_of
from portal.services.container import Services

router = APIRouter(prefix="/sdapi/v1", tags=["sdapi"])
Controller = Annotated[Caller, Depends(require_basic("jobs.control"))]
ServicesOf = Annotated[Services, Depends(services_of)]


@router.post("/interrupt")
def interrupt(request: Request, caller: Controller, services: ServicesOf) -> dict[str, str]:
    """End the job that `progress` tells of between two steps; what there is of its pictures is its answer."""
    _act(request, caller, services, Action.STOP_NOW)
    return {}


@router.post("/skip")
def skip(request: Request, caller: Controller, services: ServicesOf) -> None:
    """Pass over what is in the making of the job that `progress` tells of; the rest follows."""
    _act(request, caller, services, Action.SKIP)


def _act(request: Request, caller: Caller, services: Services, action: Action) -> None:
    """Nothing happens where the caller has no job under way, as in the peer."""
    job = current_job(services, caller)
    if job is not None:
        services.work.actions.act(caller, job.id, action, origin=arrived(request).origin)
