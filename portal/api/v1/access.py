"""/api/v1/access-rules: who may use which endpoint and which model."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from portal.api.security import Caller, require, services_of
from portal.domain.access import Effect, ObjectKind, SubjectKind
from portal.services.container import Services

router = APIRouter(prefix="/api/v1/access-rules", tags=["users"])
ServicesOf = Annotated[Services, Depends(services_of)]
Keeper = Annotated[Caller, Depends(require("access.manage"))]


class RuleOut(BaseModel):
    """A rule: whom it means (`subject`), what it is about (`object`), and what it says."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    object_kind: ObjectKind
    object: str
    object_name: str
    subject_kind: SubjectKind
    subject: str
    subject_name: str
    effect: Effect


class RuleBody(BaseModel):
    """A rule to make. `object` is an endpoint's name or a model's id; `subject` a user's or a team's id, a
    role's name, or `*` with the kind `everybody`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    object_kind: ObjectKind
    object: str = Field(max_length=64)
    subject_kind: SubjectKind
    subject: str = Field("*", max_length=64)
    effect: Effect


@router.get("", response_model=list[RuleOut])
def rules(
    _caller: Keeper,
    services: ServicesOf,
    object_kind: ObjectKind | None = None,
    object: Annotated[str | None, Query(max_length=64)] = None,
) -> list[RuleOut]:
    """Every rule, or those on one object."""
    return [RuleOut.model_validate(each) for each in services.access.listed(object_kind, object)]


@router.put("", response_model=RuleOut)
def put(body: RuleBody, caller: Keeper, services: ServicesOf) -> RuleOut:
    """Let a subject use an object, or not. A rule on the same two is replaced; work that waits is asked
    again as it is sent.
    """
    made = services.access.put(
        caller, body.object_kind, body.object, body.subject_kind, body.subject, body.effect
    )
    return RuleOut.model_validate(made)


@router.delete("/{rule_id}", status_code=204)
def delete(rule_id: str, caller: Keeper, services: ServicesOf) -> None:
    """Take a rule away."""
    services.access.delete(caller, rule_id)
