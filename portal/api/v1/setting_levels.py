"""/api/v1/settings: what holds for everybody, for a team and for oneself, what is locked, what was before."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field

from atelier.contract.errors import InvalidRequest
from portal.api.schema import also
from portal.api.security import Caller, require, services_of
from portal.domain.levels import Level
from portal.services.container import Services
from portal.services.setting_levels import PLATFORM, Scope, of_team, of_user

router = APIRouter(prefix="/api/v1/settings", tags=["settings"])
ServicesOf = Annotated[Services, Depends(services_of)]
Keeper = Annotated[Caller, Depends(require("settings.manage"))]
Reader = Annotated[Caller, Depends(require("account.read"))]
Self = Annotated[Caller, Depends(require("account.change"))]
Number = Annotated[int, Path(ge=0, lt=2**31)]


class SettingOut(BaseModel):
    """An option as it holds. `level` and `source` say where its value comes from; `own` whether this scope
    sets it, `locks` whether this scope locks it, `locked_by` who has locked it (empty for nobody).
    """

    model_config = ConfigDict(from_attributes=True)

    key: str
    value: Any
    default: Any
    level: Level
    source: str
    own: bool
    locks: bool
    locked_by: str


class ScopeOut(BaseModel):
    """Every option that can be set, as it holds in a scope. `version` is the one that holds, 0 before the
    first.
    """

    model_config = ConfigDict(from_attributes=True)

    name: str
    version: int
    settings: list[SettingOut]


class IgnoredOut(BaseModel):
    """An option that was not stored, and why."""

    field: str
    reason: str


class ChangedOut(ScopeOut):
    """The scope after a change, with what was not stored."""

    ignored: list[IgnoredOut]


class SettingsChange(BaseModel):
    """Options to set, null for the value from below; options to lock (true) or to set free (false)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: dict[str, Any] = Field(default={}, max_length=500)
    locked: dict[str, bool] = Field(default={}, max_length=500)


class VersionOut(BaseModel):
    """What a scope set and locked from `at` (unix seconds) on. `undoes_to`: the version it brought back."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    at: float
    actor_name: str
    changed: list[str]
    values: dict[str, Any]
    locked: list[str]
    undoes_to: int | None


@router.get("/platform", response_model=ScopeOut)
def platform(caller: Keeper, services: ServicesOf) -> ScopeOut:
    """What holds for everybody."""
    return _view(services, caller, PLATFORM)


@router.patch("/platform", response_model=ChangedOut, responses=also(409))
def change_platform(body: SettingsChange, caller: Keeper, services: ServicesOf) -> ChangedOut:
    """Set and lock options for everybody."""
    return _change(services, caller, PLATFORM, body)


@router.get("/platform/versions", response_model=list[VersionOut])
def platform_versions(caller: Keeper, services: ServicesOf) -> list[VersionOut]:
    """The newest 100 versions, newest first."""
    return _versions(services, caller, PLATFORM)


@router.post("/platform/undo/{version}", response_model=ScopeOut, responses=also(409))
def undo_platform(version: Number, caller: Keeper, services: ServicesOf) -> ScopeOut:
    """Bring a version back as a new one; 0 is the time before the first."""
    services.setting_levels.undo(caller, PLATFORM, version)
    return _view(services, caller, PLATFORM)


@router.get("/teams/{team_id}", response_model=ScopeOut)
def team(team_id: str, caller: Keeper, services: ServicesOf) -> ScopeOut:
    """What holds for a team."""
    return _view(services, caller, of_team(team_id))


@router.patch("/teams/{team_id}", response_model=ChangedOut, responses=also(409))
def change_team(team_id: str, body: SettingsChange, caller: Keeper, services: ServicesOf) -> ChangedOut:
    """Set and lock options for a team."""
    return _change(services, caller, of_team(team_id), body)


@router.get("/teams/{team_id}/versions", response_model=list[VersionOut])
def team_versions(team_id: str, caller: Keeper, services: ServicesOf) -> list[VersionOut]:
    """The newest 100 versions of a team's settings, newest first."""
    return _versions(services, caller, of_team(team_id))


@router.post("/teams/{team_id}/undo/{version}", response_model=ScopeOut, responses=also(409))
def undo_team(team_id: str, version: Number, caller: Keeper, services: ServicesOf) -> ScopeOut:
    """Bring a version of a team's settings back as a new one; 0 is the time before the first."""
    services.setting_levels.undo(caller, of_team(team_id), version)
    return _view(services, caller, of_team(team_id))


@router.get("/me", response_model=ScopeOut)
def mine(caller: Reader, services: ServicesOf) -> ScopeOut:
    """What holds for the caller's own requests."""
    return _view(services, caller, of_user(caller.user_id))


@router.patch("/me", response_model=ChangedOut, responses=also(409))
def change_mine(body: SettingsChange, caller: Self, services: ServicesOf) -> ChangedOut:
    """Set options for the caller alone. Nothing can be locked here."""
    return _change(services, caller, of_user(caller.user_id), body)


@router.get("/me/versions", response_model=list[VersionOut])
def my_versions(caller: Reader, services: ServicesOf) -> list[VersionOut]:
    """The newest 100 versions of the caller's own settings, newest first."""
    return _versions(services, caller, of_user(caller.user_id))


@router.post("/me/undo/{version}", response_model=ScopeOut, responses=also(409))
def undo_mine(version: Number, caller: Self, services: ServicesOf) -> ScopeOut:
    """Bring a version of the caller's own settings back as a new one; 0 is the time before the first."""
    services.setting_levels.undo(caller, of_user(caller.user_id), version)
    return _view(services, caller, of_user(caller.user_id))


def _view(services: Services, caller: Caller, scope: Scope) -> ScopeOut:
    return ScopeOut.model_validate(services.setting_levels.view(caller, scope))


def _change(services: Services, caller: Caller, scope: Scope, body: SettingsChange) -> ChangedOut:
    if not body.values and not body.locked:
        raise InvalidRequest("There is nothing to change: give `values`, `locked` or both.")
    ignored = services.setting_levels.change(caller, scope, body.values, body.locked)
    told = [IgnoredOut(**each._asdict()) for each in ignored]
    return ChangedOut(**_view(services, caller, scope).model_dump(), ignored=told)


def _versions(services: Services, caller: Caller, scope: Scope) -> list[VersionOut]:
    return [VersionOut.model_validate(each) for each in services.setting_levels.versions(caller, scope)]
