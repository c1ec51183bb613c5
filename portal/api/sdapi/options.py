"""/sdapi/v1/options: the peer's options. What a caller sets here holds for that caller's own requests."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from starlette.requests import Request

from portal.api.arrival import arrived
from portal.api.schema import also
from portal.api.security import Caller, require_basic, services_of
from portal.services.container import Services

router = APIRouter(prefix="/sdapi/v1", tags=["sdapi"])
ServicesOf = Annotated[Services, Depends(services_of)]


@router.get("/options")
def options(
    caller: Annotated[Caller, Depends(require_basic("options.read"))], services: ServicesOf
) -> dict[str, Any]:
    """Every option of the peer: its default, or what the caller has set, or the studio's standard
    checkpoint.
    """
    return services.own_settings.shown(caller)


@router.post("/options", responses=also(409))
def set_options(
    values: Annotated[dict[str, Any], Body()],
    request: Request,
    caller: Annotated[Caller, Depends(require_basic("account.change"))],
    services: ServicesOf,
) -> dict[str, Any] | None:
    """Set options for the caller alone; null gives a default back. Answers null, as the peer does, or
    {"atelier": {"ignored": [{field, reason}]}} where something was not stored. One unknown name or bad value
    refuses all of them.
    """
    ignored = services.own_settings.change(caller, values, arrived(request).origin)
    return {"atelier": {"ignored": [each._asdict() for each in ignored]}} if ignored else None
