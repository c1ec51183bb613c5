"""/api/v1/quotas: how much each may use; /api/v1/me/usage: how much the caller may, and has."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from portal.api.security import Caller, require, services_of
from portal.domain.access import SubjectKind
from portal.domain.quotas import Quota
from portal.services.container import Services

router = APIRouter(prefix="/api/v1", tags=["users"])
ServicesOf = Annotated[Services, Depends(services_of)]
Keeper = Annotated[Caller, Depends(require("quotas.manage"))]


class Amounts(BaseModel):
    """Limits or what is used: jobs not yet final, pictures and seconds of computing since midnight UTC, bytes
    of pictures kept. As a limit null is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True, allow_inf_nan=False)

    unfinished_jobs: int | None = Field(None, ge=0, lt=2**31)
    pictures_a_day: int | None = Field(None, ge=0, lt=2**31)
    gpu_seconds_a_day: float | None = Field(None, ge=0, lt=2**53)
    storage_bytes: int | None = Field(None, ge=0, lt=2**53)


class QuotaOut(BaseModel):
    """A quota and whom it is for."""

    model_config = ConfigDict(from_attributes=True)

    subject_kind: SubjectKind
    subject: str
    subject_name: str
    quota: Amounts


class UsageOut(BaseModel):
    """What somebody may use (`quota`) and has used (`usage`). With a `weight` of 2 twice as much is done for
    them as for somebody with 1, while both wait.
    """

    model_config = ConfigDict(from_attributes=True)

    quota: Amounts
    usage: Amounts
    weight: float = 1.0


@router.get("/quotas", response_model=list[QuotaOut])
def quotas(_caller: Keeper, services: ServicesOf) -> list[QuotaOut]:
    """Every quota. A user's own counts before those of their teams and roles, of which the largest, before
    everybody's.
    """
    return [QuotaOut.model_validate(each) for each in services.quotas.listed()]


@router.put("/quotas/{subject_kind}/{subject}", response_model=QuotaOut)
def put(
    subject_kind: SubjectKind, subject: str, body: Amounts, caller: Keeper, services: ServicesOf
) -> QuotaOut:
    """Let a quota be a user's or a team's (by id), a role's (by name) or everybody's (`everybody/*`)."""
    made = services.quotas.put(caller, subject_kind, subject, Quota(**body.model_dump()))
    return QuotaOut.model_validate(made)


@router.delete("/quotas/{subject_kind}/{subject}", status_code=204)
def delete(subject_kind: SubjectKind, subject: str, caller: Keeper, services: ServicesOf) -> None:
    """Take a quota away."""
    services.quotas.delete(caller, subject_kind, subject)


@router.get("/me/usage", response_model=UsageOut)
def usage(caller: Annotated[Caller, Depends(require("account.read"))], services: ServicesOf) -> UsageOut:
    """What the caller may use and has used."""
    used = UsageOut.model_validate(services.quotas.of(caller.user_id))
    return used.model_copy(update={"weight": services.shares.of(caller.user_id)})
