"""/portal/: the overview: what runs, what waits, and what it costs; and /portal/health."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from portal.api.security import Caller, require, services_of
from portal.pages.rendering import page
from portal.services.container import Services
from portal.services.jobs import Shown
from portal.services.permissions import main_role

router = APIRouter(prefix="/portal", include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]


@router.get("/")
def overview(
    request: Request, caller: Annotated[Caller, Depends(require("account.read"))], services: ServicesOf
) -> Response:
    """What there is to see, as far as the caller may see it."""
    jobs, _ = services.work.jobs.listed(caller, limit=8)
    values: dict[str, Any] = {"jobs": jobs, "users": None, "endpoints": [], "models": None, "trail": []}
    values |= {"load": None, "costs": None, "active": [], "owners": {}}
    if caller.may("portal.view"):
        values |= {"load": services.work.details.load(), "costs": services.costs.read()}
    if caller.may("jobs.read_all"):
        active, _ = services.work.jobs.listed(caller, state="active", limit=12, shown=Shown.EVERYBODY)
        owners = services.identity.owners_of(each.id for each in active)
        values |= {"active": active, "owners": owners}
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


@router.get("/health")
def health(
    request: Request, _caller: Annotated[Caller, Depends(require("portal.view"))], services: ServicesOf
) -> Response:
    """Everything the studio leans on: whether it works, and what to do where it does not."""
    return page(request, "health.html", report=services.checkup.report())
