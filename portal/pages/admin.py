"""/portal/: the overview, and what administrators look after: users, endpoints and jobs."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atelier.contract.errors import Conflict, InvalidRequest
from portal.api.arrival import arrived
from portal.api.security import Caller, require, services_of
from portal.pages.rendering import page
from portal.services.container import Services
from portal.services.identity import Change
from portal.services.permissions import DESIGNER, main_role

router = APIRouter(prefix="/portal", include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]
UserManager = Annotated[Caller, Depends(require("users.manage"))]

DONE = {
    "created": "The user was created.",
    "role": "The role was changed, and the user's logins have ended.",
    "disabled": "The account is disabled, and the user's logins have ended.",
    "enabled": "The account is enabled again.",
    "password": "The password was set, and the user's logins have ended.",
}
"""What a page says after a change, by the word in its address: no text of anybody's stands in a link."""


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


@router.get("/users")
def users(request: Request, _caller: UserManager, services: ServicesOf, done: str = "") -> Response:
    """Everybody, with what can be done about them."""
    return _users(request, services, said=DONE.get(done, ""))


@router.post("/users")
def create_user(
    request: Request,
    caller: UserManager,
    services: ServicesOf,
    username: Annotated[str, Form(max_length=64)] = "",
    password: Annotated[str, Form(max_length=1024)] = "",
    role: Annotated[str, Form(max_length=32)] = DESIGNER,
) -> Response:
    """Create a user, or say why not."""
    try:
        services.identity.create(caller, username, password, role, arrived(request).origin)
    except (InvalidRequest, Conflict) as error:
        return _users(
            request, services, status_code=error.http_status, wrong=error.message, username=username
        )
    return _back("created")


@router.post("/users/{user_id}")
def change_user(
    user_id: str,
    request: Request,
    caller: UserManager,
    services: ServicesOf,
    what: Annotated[str, Form(max_length=16)],
    role: Annotated[str | None, Form(max_length=32)] = None,
    password: Annotated[str | None, Form(max_length=1024)] = None,
) -> Response:
    """Change a role or password, disable or enable an account; or say why not."""
    changes = {
        "role": Change(roles=(role or "",)),
        "disabled": Change(disabled=True),
        "enabled": Change(disabled=False),
        "password": Change(password=password or ""),
    }
    try:
        if what not in changes:
            raise InvalidRequest("That is nothing that can be done to a user.")
        services.identity.change(caller, user_id, changes[what], arrived(request).origin)
    except (InvalidRequest, Conflict) as error:
        return _users(request, services, status_code=error.http_status, wrong=error.message)
    return _back(what)


@router.get("/endpoints")
def endpoints(
    request: Request, _caller: Annotated[Caller, Depends(require("endpoints.manage"))], services: ServicesOf
) -> Response:
    """Where pictures are made, and how it goes there."""
    return page(request, "endpoints.html", endpoints=services.work.endpoints.listed())


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


def _users(request: Request, services: Services, *, status_code: int = 200, **values: str) -> Response:
    shown = {"said": "", "wrong": "", "username": "", **values}
    return page(
        request,
        "users.html",
        status_code,
        users=services.identity.users(),
        roles=[each.name for each in services.roles.listed()],
        **shown,
    )


def _back(done: str) -> Response:
    return RedirectResponse(f"/portal/users?done={done}", 303)
