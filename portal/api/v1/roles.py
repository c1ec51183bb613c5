"""/api/v1/roles and /api/v1/permissions: what people may do."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from portal.api.schema import also
from portal.api.security import Caller, require, services_of
from portal.services.container import Services
from portal.services.permissions import REGISTRY

router = APIRouter(prefix="/api/v1", tags=["users"])
ServicesOf = Annotated[Services, Depends(services_of)]
Keeper = Annotated[Caller, Depends(require("roles.manage"))]


class RoleOut(BaseModel):
    """A role; `held` counts who holds it."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    description: str
    permissions: tuple[str, ...]
    built_in: bool
    held: int


class RoleBody(BaseModel):
    """What a role is to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field("", max_length=200)
    permissions: tuple[str, ...] = Field(max_length=200)


class PermissionOut(BaseModel):
    """One thing somebody may do; `risk` says what a wrong grant costs."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    group: str
    risk: Literal["low", "medium", "high"]
    description: str


@router.get("/permissions", response_model=list[PermissionOut])
def permissions(_caller: Annotated[Caller, Depends(require("account.read"))]) -> list[PermissionOut]:
    """Every permission there is."""
    return [PermissionOut.model_validate(each) for each in REGISTRY]


@router.get("/roles", response_model=list[RoleOut])
def roles(
    _caller: Annotated[Caller, Depends(require("users.manage"))], services: ServicesOf
) -> list[RoleOut]:
    """Every role, the built-in ones first."""
    return [RoleOut.model_validate(each) for each in services.roles.listed()]


@router.put("/roles/{name}", response_model=RoleOut, responses=also(409))
def put(name: str, body: RoleBody, caller: Keeper, services: ServicesOf) -> RoleOut:
    """Make a role of the studio's own, or give it other permissions. Nobody gives more than they have."""
    return RoleOut.model_validate(services.roles.put(caller, name, body.description, body.permissions))


@router.delete("/roles/{name}", status_code=204, responses=also(409))
def delete(name: str, caller: Keeper, services: ServicesOf) -> None:
    """Take a role that nobody holds away."""
    services.roles.delete(caller, name)
