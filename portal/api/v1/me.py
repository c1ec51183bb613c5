"""/api/v1/me: the caller's own account, settings, password and API keys."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from portal.api.arrival import arrived
from portal.api.schema import also
from portal.api.security import Caller, require, services_of
from portal.services.container import Services

router = APIRouter(prefix="/api/v1/me", tags=["account"])
ServicesOf = Annotated[Services, Depends(services_of)]


class MeView(BaseModel):
    """Who the caller is and what they may do."""

    id: str
    username: str
    role: str
    roles: list[str]
    permissions: list[str]
    settings: dict[str, Any]


class OwnTeam(BaseModel):
    """A team of the caller's, and who is in it: who would see what is shared with it."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    members: tuple[str, ...]


class PasswordChange(BaseModel):
    """A new password, and the current one as proof."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    current: str = Field(max_length=1024)
    new: str = Field(max_length=1024)


class KeyRequest(BaseModel):
    """A new API key. `scopes` are permissions; null gives all of the owner's. `expires_at` in unix seconds;
    null never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")
    scopes: list[str] | None = None
    expires_at: float | None = Field(None, allow_inf_nan=False)


class KeyView(BaseModel):
    """An API key without its secret. Times in unix seconds."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    scopes: list[str] | None
    created_at: float
    expires_at: float | None
    last_used_at: float | None


class NewKeyView(KeyView):
    """A key just made: `secret` is told this once."""

    secret: str


@router.get("", response_model=MeView)
def me(caller: Annotated[Caller, Depends(require("account.read"))], services: ServicesOf) -> MeView:
    """The caller's own account."""
    return MeView(
        id=caller.user_id,
        username=caller.username,
        role=caller.role,
        roles=list(caller.roles),
        permissions=sorted(caller.permissions),
        settings=services.identity.user(caller.user_id).settings,
    )


@router.get("/teams", response_model=list[OwnTeam])
def own_teams(
    caller: Annotated[Caller, Depends(require("account.read"))], services: ServicesOf
) -> list[OwnTeam]:
    """The teams the caller belongs to."""
    return [OwnTeam.model_validate(each) for each in services.teams.of(caller.user_id)]


@router.put("/password", status_code=204, responses=also(429))
def change_password(
    body: PasswordChange,
    request: Request,
    caller: Annotated[Caller, Depends(require("account.change"))],
    services: ServicesOf,
) -> None:
    """Change the caller's own password. Every login of theirs ends, this one too."""
    services.identity.change_own_password(caller.user_id, body.current, body.new, arrived(request).origin)


@router.get("/keys", response_model=list[KeyView])
def keys(caller: Annotated[Caller, Depends(require("account.keys"))], services: ServicesOf) -> list[KeyView]:
    """The caller's API keys."""
    return [KeyView.model_validate(each) for each in services.credentials.keys_of(caller.user_id)]


@router.post("/keys", status_code=201, response_model=NewKeyView)
def make_key(
    body: KeyRequest,
    request: Request,
    caller: Annotated[Caller, Depends(require("account.keys"))],
    services: ServicesOf,
) -> NewKeyView:
    """Make an API key. It can do no more than the caller."""
    key, secret = services.credentials.make_key(
        caller, body.name, body.scopes, body.expires_at, arrived(request).origin
    )
    return NewKeyView(secret=secret, **KeyView.model_validate(key).model_dump())


@router.delete("/keys/{key_id}", status_code=204)
def revoke_key(
    key_id: str,
    request: Request,
    caller: Annotated[Caller, Depends(require("account.keys"))],
    services: ServicesOf,
) -> None:
    """Revoke one of the caller's API keys, at once."""
    services.credentials.revoke_key(caller, key_id, arrived(request).origin)
