"""/portal/audit: who did what, for whom and from where; and whether the trail holds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from portal.api.security import Caller, require, services_of
from portal.pages.rendering import page
from portal.services.container import Services
from portal.services.trail import Wanted

router = APIRouter(prefix="/portal/audit", include_in_schema=False)

PAGE = 100
RESULTS = ("done", "refused", "revoked")
FIELDS = ("action", "actor", "subject", "object", "request_id", "result")


@router.get("")
def audit(
    request: Request,
    _caller: Annotated[Caller, Depends(require("audit.read"))],
    services: Annotated[Services, Depends(services_of)],
    action: Annotated[str, Query(max_length=64)] = "",
    actor: Annotated[str, Query(max_length=64)] = "",
    subject: Annotated[str, Query(max_length=64)] = "",
    object: Annotated[str, Query(max_length=160)] = "",
    request_id: Annotated[str, Query(max_length=64)] = "",
    result: Annotated[str, Query(max_length=32)] = "",
    first_day: Annotated[str, Query(max_length=10)] = "",
    last_day: Annotated[str, Query(max_length=10)] = "",
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    verify: bool = False,
) -> Response:
    """The newest entries of those asked for."""
    told = dict(
        zip(
            FIELDS,
            (value.strip() for value in (action, actor, subject, object, request_id, result)),
            strict=True,
        )
    )
    since, until = _day(first_day), _day(last_day, days=1)
    wanted = Wanted(**{name: value or None for name, value in told.items()}, since=since, until=until)
    found = services.trail.entries(wanted, before=before, limit=PAGE)
    days = {
        "first_day": first_day if since is not None else "",
        "last_day": last_day if until is not None else "",
    }
    bounds = {"since": since, "until": until}
    return page(
        request,
        "audit.html",
        trail=found,
        results=RESULTS,
        asked={**told, **days},
        query=_query({**told, **days}),
        export=_query(
            {**told, **{name: f"{at:.0f}" if at is not None else "" for name, at in bounds.items()}}
        ),
        following=found[-1].id if len(found) == PAGE else None,
        verified=services.trail.verify() if verify else None,
    )


def _day(text: str, *, days: int = 0) -> float | None:
    """The unix seconds at which a day (2026-01-31, UTC) begins, `days` later; None where it is no day."""
    try:
        day = date.fromisoformat(text) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _query(values: dict[str, str]) -> str:
    return urlencode({name: value for name, value in values.items() if value})
