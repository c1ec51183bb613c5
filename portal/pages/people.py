"""/portal/users, /portal/roles and /portal/teams: who may come in, as what, and with whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atelier.contract.errors import AtelierError, InvalidRequest, NotAuthenticated
from portal.api.arrival import arrived
from portal.api.security import Caller, require, services_of
from portal.pages.rendering import page
from portal.services.container import Services
from portal.services.identity import Change
from portal.services.permissions import DESIGNER, REGISTRY

router = APIRouter(prefix="/portal", include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]
UserManager = Annotated[Caller, Depends(require("users.manage"))]
RoleManager = Annotated[Caller, Depends(require("roles.manage"))]
TeamManager = Annotated[Caller, Depends(require("teams.manage"))]
Word = Annotated[str, Form(max_length=64)]
Line = Annotated[str, Form(max_length=200)]
Words = Annotated[list[str], Form(max_length=200)]
Secret = Annotated[str, Form(max_length=1024)]

DONE = {
    "created": "The user was created.",
    "roles": "The roles were changed, and the user's logins have ended.",
    "disabled": "The account is disabled: the user's logins have ended, and their jobs stop.",
    "enabled": "The account is enabled again.",
    "password": "The password was set, and the user's logins have ended.",
    "heir": "The user is gone, and what was theirs is their heir's now.",
    "later": "The account is disabled and will be deleted. Enable it to keep everything.",
    "taken_back": "The link does not work any more.",
    "role": "The role was kept. Whoever holds it has its permissions within seconds.",
    "role_gone": "The role is gone.",
    "team": "The team was kept.",
    "team_gone": "The team is gone. Its people stay.",
}
"""What a page says after a change, by the word in its address: no text of anybody's stands in a link."""


@router.get("/users")
def users(request: Request, _caller: UserManager, services: ServicesOf, done: str = "") -> Response:
    """Everybody, with what can be done about them."""
    return _users(request, services, said=DONE.get(done, ""))


@router.post("/users")
def create_user(
    request: Request,
    caller: UserManager,
    services: ServicesOf,
    username: Word = "",
    password: Secret = "",
    roles: Words = [DESIGNER],  # noqa: B006  # FastAPI copies it
) -> Response:
    """Create a user, or say why not."""

    def work() -> str:
        services.identity.create(caller, username, password, roles, arrived(request).origin)
        return "created"

    return _done(request, services, work, username=username)


@router.post("/users/invitations")
def invite(
    request: Request,
    caller: UserManager,
    services: ServicesOf,
    roles: Words = [DESIGNER],  # noqa: B006  # FastAPI copies it
    teams: Words = [],  # noqa: B006  # FastAPI copies it
) -> Response:
    """Make a link for somebody new, shown this once."""
    try:
        _, secret = services.invitations.invite(caller, roles, teams)
    except AtelierError as error:
        return _users(request, services, error.http_status, wrong=_words(error))
    return _users(request, services, 201, link=_address(request, secret))


@router.post("/users/invitations/{invitation_id}")
def take_back(invitation_id: str, request: Request, caller: UserManager, services: ServicesOf) -> Response:
    """Let a link stop working."""

    def work() -> str:
        services.invitations.take_back(caller, invitation_id)
        return "taken_back"

    return _done(request, services, work)


@router.post("/users/{user_id}")
def change_user(
    user_id: str,
    request: Request,
    caller: UserManager,
    services: ServicesOf,
    what: Annotated[str, Form(max_length=16)],
    roles: Words = [],  # noqa: B006  # FastAPI copies it
    password: Secret = "",
    heir: Word = "",
    days: Annotated[float, Form(ge=0, le=365, allow_inf_nan=False)] = 30.0,
) -> Response:
    """Change, disable, enable or delete an account, or make a password link; or say why not."""
    if what == "link":
        try:
            _, secret = services.invitations.reset(caller, user_id)
        except AtelierError as error:
            return _users(request, services, error.http_status, wrong=_words(error))
        return _users(request, services, 201, link=_address(request, secret))
    changes = {
        "roles": Change(roles=roles),
        "disabled": Change(disabled=True),
        "enabled": Change(disabled=False),
        "password": Change(password=password),
    }

    def work() -> str:
        if what == "heir":
            services.departures.hand_over(caller, user_id, heir)
        elif what == "later":
            services.departures.schedule(caller, user_id, days)
        elif what in changes:
            services.identity.change(caller, user_id, changes[what], arrived(request).origin)
        else:
            raise InvalidRequest("That is nothing that can be done to a user.")
        return what

    return _done(request, services, work)


@router.get("/roles")
def roles_page(request: Request, _caller: RoleManager, services: ServicesOf, done: str = "") -> Response:
    """Every role with what it allows."""
    return _roles(request, services, said=DONE.get(done, ""))


@router.post("/roles")
def put_role(
    request: Request,
    caller: RoleManager,
    services: ServicesOf,
    name: Word = "",
    description: Line = "",
    permissions: Words = [],  # noqa: B006  # FastAPI copies it
    what: Annotated[str, Form(max_length=16)] = "put",
) -> Response:
    """Make a role, change it, or take it away; or say why not."""
    try:
        if what == "delete":
            services.roles.delete(caller, name)
        else:
            services.roles.put(caller, name.strip(), description, permissions)
    except AtelierError as error:
        return _roles(request, services, error.http_status, wrong=_words(error), name=name)
    return _to("roles", "role_gone" if what == "delete" else "role")


@router.get("/teams")
def teams_page(request: Request, _caller: TeamManager, services: ServicesOf, done: str = "") -> Response:
    """Every team with its people."""
    return _teams(request, services, said=DONE.get(done, ""))


@router.post("/teams")
def put_team(
    request: Request,
    caller: TeamManager,
    services: ServicesOf,
    name: Word = "",
    description: Line = "",
    members: Annotated[list[str], Form(max_length=1000)] = [],  # noqa: B006  # FastAPI copies it
    team_id: Word = "",
    what: Annotated[str, Form(max_length=16)] = "put",
) -> Response:
    """Make a team, change it, or take it away; or say why not."""
    try:
        if what == "delete":
            services.teams.delete(caller, team_id)
        elif team_id:
            services.teams.change(caller, team_id, name=name, description=description, members=members)
        else:
            services.teams.create(caller, name, description, members)
    except AtelierError as error:
        return _teams(request, services, error.http_status, wrong=_words(error), name=name)
    return _to("teams", "team_gone" if what == "delete" else "team")


def _done(request: Request, services: Services, work: Callable[[], str], username: str = "") -> Response:
    """Do something about users: back to the list that says so, or the list with the reason why not."""
    try:
        return _to("users", work())
    except AtelierError as error:
        return _users(request, services, error.http_status, wrong=_words(error), username=username)


def _words(error: AtelierError) -> str:
    """The reason, for a failure that a form can answer; a login that ended is the login page's."""
    if isinstance(error, NotAuthenticated):
        raise error
    return error.message


def _to(what: str, done: str) -> Response:
    return RedirectResponse(f"/portal/{what}?done={done}", 303)


def _address(request: Request, secret: str) -> str:
    return f"{arrived(request).site}/portal/join?{urlencode({'link': secret})}"


def _users(request: Request, services: Services, status_code: int = 200, **values: str) -> Response:
    shown = {"said": "", "wrong": "", "username": "", "link": "", **values}
    return page(
        request,
        "users.html",
        status_code,
        users=services.identity.users(),
        roles=[each.name for each in services.roles.listed()],
        teams=services.teams.listed(),
        links=services.invitations.open(),
        **shown,
    )


def _roles(request: Request, services: Services, status_code: int = 200, **values: str) -> Response:
    groups: dict[str, list[object]] = {}
    for each in REGISTRY:
        groups.setdefault(each.group, []).append(each)
    shown = {"said": "", "wrong": "", "name": "", **values}
    return page(request, "roles.html", status_code, roles=services.roles.listed(), groups=groups, **shown)


def _teams(request: Request, services: Services, status_code: int = 200, **values: str) -> Response:
    shown = {"said": "", "wrong": "", "name": "", **values}
    users = [each.username for each in services.identity.users()]
    return page(request, "teams.html", status_code, teams=services.teams.listed(), users=users, **shown)
