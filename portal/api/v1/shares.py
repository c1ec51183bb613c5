"""/api/v1/shares: how much each counts where several wait for the same workers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from portal.api.security import Caller, require, services_of
from portal.domain.access import SubjectKind
from portal.domain.fairness import HIGHEST_WEIGHT, LOWEST_WEIGHT
from portal.services.container import Services

router = APIRouter(prefix="/api/v1/shares", tags=["users"])
ServicesOf = Annotated[Services, Depends(services_of)]
Keeper = Annotated[Caller, Depends(require("quotas.manage"))]


class ShareBody(BaseModel):
    """How much somebody counts: with 2, twice as much work is done for them as for somebody with 1, while
    both wait.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: float = Field(strict=True, ge=LOWEST_WEIGHT, le=HIGHEST_WEIGHT)


class ShareOut(BaseModel):
    """A weight and whom it is for."""

    model_config = ConfigDict(from_attributes=True)

    subject_kind: SubjectKind
    subject: str
    subject_name: str
    weight: float


@router.get("", response_model=list[ShareOut])
def shares(_caller: Keeper, services: ServicesOf) -> list[ShareOut]:
    """Every share that was given. A user's own counts before those of their teams and roles, of which the
    largest, before everybody's; who has none counts 1.
    """
    return [ShareOut.model_validate(each) for each in services.shares.listed()]


@router.put("/{subject_kind}/{subject}", response_model=ShareOut)
def put(
    subject_kind: SubjectKind, subject: str, body: ShareBody, caller: Keeper, services: ServicesOf
) -> ShareOut:
    """Let a user or a team (by id), a role (by name) or everybody (`everybody/*`) count so much."""
    return ShareOut.model_validate(services.shares.put(caller, subject_kind, subject, body.weight))


@router.delete("/{subject_kind}/{subject}", status_code=204)
def delete(subject_kind: SubjectKind, subject: str, caller: Keeper, services: ServicesOf) -> None:
    """Take a share away."""
    services.shares.delete(caller, subject_kind, subject)
