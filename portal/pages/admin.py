"""/portal/: the overview, and everybody's jobs."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from portal.api.security import Caller, require, services_of
from portal.pages.rendering import page
from portal.services.container import Services
from portal.services.permissions import main_role

router = APIRouter(prefix="/portal", include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]


@router.get("/")
def overview(
    request: Request, caller: Annotated[Caller, Depends(require("account.read"))], services: ServicesOf
) -> Response:
    """What there is to see, as far as the caller may see it."""
    jobs, _ = services.work.jobs.listed(caller, limit=10)
    values: dict[str, Any] = {"jobs": jobs, "users": None, "endpoints": [], "models": None, "trail": []}
    if caller.may("users.manage"):
        values["users"] = Counter(
            "disabled" if each.disabled else main_role(each.roles) for each in services.identity.users()
        )
    if caller.may("endpoints.read"):
        values["endpoints"] = services.work.endpoints.listed(caller)
    if caller.may("models.read"):
        values["models"] = Counter(
            each.model.kind.value for each in services.work.desk.records(viewer=caller)
        )
    if caller.may("audit.read"):
        values["trail"] = services.trail.entries(limit=8)
    return page(request, "overview.html", **values)


@router.get("/jobs")
def jobs(
    request: Request,
    caller: Annotated[Caller, Depends(require("jobs.read_all"))],
    services: ServicesOf,
    cursor: Annotated[str | None, Query(max_length=32)] = None,
) -> Response:
    """Everybody's jobs, without their pictures and prompts."""
    found, following = services.work.jobs.listed(caller, cursor=cursor, limit=50, everybody=True)
    owners = services.identity.owners_of(each.id for each in found)
    return page(request, "jobs.html", jobs=found, owners=owners, following=following)
