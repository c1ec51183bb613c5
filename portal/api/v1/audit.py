"""/api/v1/audit: the trail, newest first; all of it as a file; and whether it is still what was written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict
from starlette.responses import StreamingResponse

from portal.api.schema import content
from portal.api.security import Caller, require, services_of
from portal.services.container import Services
from portal.services.trail import Wanted

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])
Auditor = Annotated[Caller, Depends(require("audit.read"))]
ServicesOf = Annotated[Services, Depends(services_of)]


class EntryView(BaseModel):
    """One thing somebody did, or tried. `at` in unix seconds; `subject` is for whom, where that is somebody
    else than the actor; `hash` binds the entry to the one before it.
    """

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: float
    actor_id: str | None
    actor_name: str
    subject: str
    action: str
    object: str
    result: str
    request_id: str
    ip: str
    user_agent: str
    details: dict[str, Any]
    hash: str


class AuditPage(BaseModel):
    """Entries, and the `before` that asks for the next, older ones; null where there are none."""

    entries: list[EntryView]
    next: int | None


class VerifiedView(BaseModel):
    """Whether the trail holds. `broken` says what is wrong first, null where nothing is; `count` and `hash`
    are its end, to be kept elsewhere and given to a later verification.
    """

    model_config = ConfigDict(from_attributes=True)

    entries: int
    unsealed: int
    count: int
    hash: str
    broken: str | None


def asked(
    action: Annotated[str | None, Query(max_length=64)] = None,
    actor: Annotated[str | None, Query(max_length=64)] = None,
    subject: Annotated[str | None, Query(max_length=64)] = None,
    object: Annotated[str | None, Query(max_length=160)] = None,
    result: Annotated[str | None, Query(max_length=32)] = None,
    request_id: Annotated[str | None, Query(max_length=64)] = None,
    since: Annotated[float | None, Query(ge=0, allow_inf_nan=False)] = None,
    until: Annotated[float | None, Query(ge=0, allow_inf_nan=False)] = None,
) -> Wanted:
    """What a request's query asks for. `action` and `object` match from their beginning: `job.` is all about
    jobs.
    """
    return Wanted(action, actor, subject, object, result, request_id, since, until)


Asked = Annotated[Wanted, Depends(asked)]


@router.get("", response_model=AuditPage)
def entries(
    _caller: Auditor,
    services: ServicesOf,
    wanted: Asked,
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> AuditPage:
    """The newest entries of those asked for."""
    rows = services.trail.entries(wanted, before=before, limit=limit)
    views = [EntryView.model_validate(row) for row in rows]
    return AuditPage(entries=views, next=views[-1].id if len(views) == limit else None)


@router.get(
    "/export", response_class=StreamingResponse, responses=content("text/csv", "application/x-ndjson")
)
def export(
    caller: Auditor, services: ServicesOf, wanted: Asked, format: Literal["csv", "jsonl"] = "csv"
) -> StreamingResponse:
    """Everything asked for, the oldest first, as a file. That somebody took it stands in the trail too."""
    services.trail.note_export(caller, format)
    lines, media_type = (
        (services.trail.as_csv(wanted), "text/csv; charset=utf-8")
        if format == "csv"
        else (services.trail.as_json_lines(wanted), "application/x-ndjson")
    )
    headers = {"Content-Disposition": f'attachment; filename="atelier-audit.{format}"'}
    return StreamingResponse(lines, media_type=media_type, headers=headers)


@router.get("/verify", response_model=VerifiedView)
def verify(
    _caller: Auditor,
    services: ServicesOf,
    count: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    hash: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
) -> VerifiedView:
    """Read the whole trail and say whether it holds; with an earlier end's `count` and `hash`, whether it
    still goes through there.
    """
    expected = (count, hash) if count is not None and hash is not None else None
    return VerifiedView.model_validate(services.trail.verify(expected))
