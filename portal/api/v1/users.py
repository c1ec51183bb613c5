"""/api/v1/users: accounts, for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from portal.api.arrival import arrived
from portal.api.schema import also
from portal.api.security import Caller, require, services_of
from portal.services.container import Services
from portal.services.departures import LONGEST_DAYS
from portal.services.identity import Change
from portal.services.invitations import LONGEST_HOURS, Offer
from portal.services.permissions import DESIGNER

router = APIRouter(prefix="/api/v1/users", tags=["users"])
ServicesOf = Annotated[Services, Depends(services_of)]
Manager = Annotated[Caller, Depends(require("users.manage"))]


class UserView(BaseModel):
    """A user as administrators see one. Times in unix seconds; `purge_at` is when a user
    who is to be deleted goes.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    username: str
    roles: tuple[str, ...]
    disabled: bool
    created_at: float
    last_login_at: float | None
    purge_at: float | None


class NewUser(BaseModel):
    """A user to create."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    username: str = Field(max_length=64)
    password: str = Field(max_length=1024)
    roles: tuple[str, ...] = Field((DESIGNER,), max_length=32)
    role: str | None = None
    """One role, in the place of `roles`."""


class UserChange(BaseModel):
    """What to change; what is left out stays. Every change ends the user's logins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roles: tuple[str, ...] | None = Field(None, max_length=32)
    role: str | None = None
    """One role, in the place of `roles`."""
    disabled: bool | None = None
    password: str | None = Field(None, max_length=1024)


class InvitationBody(BaseModel):
    """An invitation to make: `teams` are ids, `hours` how long it works."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    roles: tuple[str, ...] = Field((DESIGNER,), max_length=32)
    teams: tuple[str, ...] = Field((), max_length=100)
    hours: float = Field(72.0, gt=0, le=LONGEST_HOURS)


class LinkView(BaseModel):
    """A link: for a new account with `roles` and `teams`, or for a new password of `username`. `expires` in
    unix seconds.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    username: str | None
    roles: tuple[str, ...]
    teams: tuple[str, ...]
    made_by: str
    expires: float


class LinkMade(LinkView):
    """A link just made: `url` is told this once."""

    url: str


class DeletionView(BaseModel):
    """Who has what the user had, or when it goes (unix seconds)."""

    deleted_at: float | None
    heir: str | None


@router.get("", response_model=list[UserView])
def users(_caller: Manager, services: ServicesOf) -> list[UserView]:
    """Everybody, by name."""
    return [UserView.model_validate(each) for each in services.identity.users()]


@router.post("", status_code=201, response_model=UserView, responses=also(409))
def create(body: NewUser, request: Request, caller: Manager, services: ServicesOf) -> UserView:
    """Create a user."""
    made = services.identity.create(
        caller,
        body.username,
        body.password,
        body.roles if body.role is None else (body.role,),
        arrived(request).origin,
    )
    return UserView.model_validate(made)


@router.post("/invitations", status_code=201, response_model=LinkMade, responses=also(404))
def invite(body: InvitationBody, request: Request, caller: Manager, services: ServicesOf) -> LinkMade:
    """Make a link by which somebody new chooses a name and a password. It is told this once."""
    offer, secret = services.invitations.invite(caller, body.roles, body.teams, body.hours)
    return _made(request, offer, secret)


@router.get("/invitations", response_model=list[LinkView])
def invitations(_caller: Manager, services: ServicesOf) -> list[LinkView]:
    """Every link that still works, without its address."""
    return [LinkView.model_validate(each) for each in services.invitations.open()]


@router.delete("/invitations/{invitation_id}", status_code=204)
def take_back(invitation_id: str, caller: Manager, services: ServicesOf) -> None:
    """Let a link stop working."""
    services.invitations.take_back(caller, invitation_id)


@router.post("/{user_id}/password-link", status_code=201, response_model=LinkMade)
def password_link(user_id: str, request: Request, caller: Manager, services: ServicesOf) -> LinkMade:
    """Make a link by which the user sets a new password, within a day. Earlier ones stop working."""
    offer, secret = services.invitations.reset(caller, user_id)
    return _made(request, offer, secret)


@router.delete("/{user_id}", response_model=DeletionView, responses=also(409))
def delete(
    user_id: str,
    caller: Manager,
    services: ServicesOf,
    heir: Annotated[str | None, Query(max_length=64)] = None,
    days: Annotated[float, Query(ge=0, le=LONGEST_DAYS, allow_inf_nan=False)] = 30.0,
) -> DeletionView:
    """Delete a user. With `heir`, a user name, at once: jobs, pictures and styles become theirs. Without, the
    account is disabled now and deleted with all of it in so many days, unless it is enabled until then.
    """
    if heir is not None:
        services.departures.hand_over(caller, user_id, heir)
        return DeletionView(deleted_at=None, heir=heir)
    return DeletionView(deleted_at=services.departures.schedule(caller, user_id, days), heir=None)


@router.get("/{user_id}", response_model=UserView)
def user(user_id: str, _caller: Manager, services: ServicesOf) -> UserView:
    """One user."""
    return UserView.model_validate(services.identity.user(user_id))


@router.patch("/{user_id}", response_model=UserView, responses=also(409))
def change(
    user_id: str, body: UserChange, request: Request, caller: Manager, services: ServicesOf
) -> UserView:
    """Set a user's roles or password, disable or enable them. The last administrator stays one."""
    wanted = Change(
        roles=body.roles if body.role is None else (body.role,),
        disabled=body.disabled,
        password=body.password,
    )
    return UserView.model_validate(services.identity.change(caller, user_id, wanted, arrived(request).origin))


def _made(request: Request, offer: Offer, secret: str) -> LinkMade:
    view = LinkView.model_validate(offer)
    return LinkMade(url=f"{arrived(request).site}/portal/join?link={secret}", **view.model_dump())
