"""/healthz and /readyz: what a supervisor and a load balancer ask."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from atelier.contract.errors import NotReady
from portal.api.security import public, services_of
from portal.services.container import Services
from portal.services.health import OK

router = APIRouter(tags=["health"])


@router.get("/healthz")
@public
async def healthz() -> dict[str, str]:
    """The process is up. It needs no thread, so that it is answered when all of them are taken."""
    return {"status": "ok"}


class Readiness(BaseModel):
    """What was looked at, each with "ok"."""

    status: str
    checks: dict[str, str]


@router.get("/readyz")
@public
def readyz(services: Annotated[Services, Depends(services_of)]) -> Readiness:
    """The studio can do its work: database, its version, blob store, dispatcher and endpoints."""
    checks = dict(services.health.checks())
    wrong = [said for said in checks.values() if said != OK]
    if wrong:
        raise NotReady(" ".join(dict.fromkeys(wrong)), detail={"checks": checks})
    return Readiness(status="ready", checks=checks)
