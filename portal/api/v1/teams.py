"""/api/v1/teams: who works together."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from portal.api.schema import also
from portal.api.security import Caller, require, services_of
from portal.services.container import Services

router = APIRouter(prefix="/api/v1/teams", tags=["users"])
ServicesOf = Annotated[Services, Depends(services_of)]
Keeper = Annotated[Caller, Depends(require("teams.manage"))]


class TeamOut(BaseModel):
    """A team with the names of its members."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    description: str
    members: tuple[str, ...]


class TeamBody(BaseModel):
    """A team to make; `members` are user names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=64)
    description: str = Field("", max_length=200)
    members: tuple[str, ...] = Field((), max_length=1000)


class TeamChange(BaseModel):
    """What to change of a team; what is left out stays. `members` are all its members from now on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(None, max_length=64)
    description: str | None = Field(None, max_length=200)
    members: tuple[str, ...] | None = Field(None, max_length=1000)


@router.get("", response_model=list[TeamOut])
def teams(_caller: Keeper, services: ServicesOf) -> list[TeamOut]:
    """Every team, by name."""
    return [TeamOut.model_validate(each) for each in services.teams.listed()]


@router.post("", status_code=201, response_model=TeamOut, responses=also(409))
def create(body: TeamBody, caller: Keeper, services: ServicesOf) -> TeamOut:
    """Make a team."""
    made = services.teams.create(caller, body.name, body.description, body.members)
    return TeamOut.model_validate(made)


@router.get("/{team_id}", response_model=TeamOut)
def team(team_id: str, _caller: Keeper, services: ServicesOf) -> TeamOut:
    """One team."""
    return TeamOut.model_validate(services.teams.get(team_id))


@router.patch("/{team_id}", response_model=TeamOut, responses=also(409))
def change(team_id: str, body: TeamChange, caller: Keeper, services: ServicesOf) -> TeamOut:
    """Change a team's name, words or members."""
    changed = services.teams.change(
        caller, team_id, name=body.name, description=body.description, members=body.members
    )
    return TeamOut.model_validate(changed)


@router.delete("/{team_id}", status_code=204)
def delete(team_id: str, caller: Keeper, services: ServicesOf) -> None:
    """Take a team away, with the rules that name it. Its people stay."""
    services.teams.delete(caller, team_id)
