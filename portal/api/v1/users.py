"""/api/v1/users: accounts, for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from portal.api.arrival import arrived
from portal.api.security import Caller, require, services_of
from portal.services.container import Services
from portal.services.identity import Change
from portal.services.permissions import DESIGNER

router = APIRouter(prefix="/api/v1/users", tags=["users"])
ServicesOf = Annotated[Services, Depends(services_of)]
Manager = Annotated[Caller, Depends(require("users.manage"))]


class UserView(BaseModel):
    """A user as administrators see one. Times in unix seconds."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    username: str
    roles: tuple[str, ...]
    disabled: bool
    created_at: float
    last_login_at: float | None


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


@router.get("", response_model=list[UserView])
def users(_caller: Manager, services: ServicesOf) -> list[UserView]:
    """Everybody, by name."""
    return [UserView.model_validate(each) for each in services.identity.users()]


@router.post("", status_code=201, response_model=UserView)
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


@router.get("/{user_id}", response_model=UserView)
def user(user_id: str, _caller: Manager, services: ServicesOf) -> UserView:
    """One user."""
    return UserView.model_validate(services.identity.user(user_id))


@router.patch("/{user_id}", response_model=UserView)
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
