"""/healthz and /readyz: what a supervisor and a load balancer ask."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from portal.api.security import public, services_of
from portal.services.container import Services

router = APIRouter(tags=["health"])


@router.get("/healthz")
@public
def healthz() -> dict[str, str]:
    """The process is up."""
    return {"status": "ok"}


@router.get("/readyz")
@public
def readyz(services: Annotated[Services, Depends(services_of)]) -> dict[str, str]:
    """The process can do its work: the database answers."""
    services.database.ping()
    return {"status": "ready"}
