"""/api/v1/audit: the trail, newest first."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict

from portal.api.security import Caller, require, services_of
from portal.services.container import Services

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


class EntryView(BaseModel):
    """One thing somebody did, or tried. `at` in unix seconds."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: float
    actor_id: str | None
    actor_name: str
    action: str
    object: str
    result: str
    request_id: str
    ip: str
    details: dict[str, Any]


class AuditPage(BaseModel):
    """Entries, and the `before` that asks for the next, older ones; null where there are none."""

    entries: list[EntryView]
    next: int | None


@router.get("", response_model=AuditPage)
def entries(
    _caller: Annotated[Caller, Depends(require("audit.read"))],
    services: Annotated[Services, Depends(services_of)],
    action: str | None = None,
    actor: str | None = None,
    before: int | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> AuditPage:
    """The newest entries, of one action or one actor where asked."""
    rows = services.trail.entries(action=action, actor_name=actor, before=before, limit=limit)
    views = [EntryView.model_validate(row) for row in rows]
    return AuditPage(entries=views, next=views[-1].id if len(views) == limit else None)
