"""/portal/jobs: the jobs one may see, what happened to each, and what can be done about it."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atelier.contract.errors import AtelierError, InvalidRequest, NotAuthenticated
from atelier.contract.jobs import JobState
from atelier.contract.parts import Action
from portal.api.arrival import arrived
from portal.api.security import Caller, require, services_of
from portal.pages.rendering import local_path, page
from portal.services.container import Services
from portal.services.jobs import Shown

router = APIRouter(prefix="/portal", include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]
Word = Annotated[str, Query(max_length=64)]

DONE = {
    "finish_current": "What is being made is finished, and the rest is left.",
    "stop_now": "The job stops; finished pictures are kept.",
    "skip": "The picture that is being made is skipped.",
    "cancel": "The job is cancelled, and its pictures are discarded.",
    "raise": "What waits of it is taken before the owner's other jobs of a lower priority.",
    "lower": "What waits of it is taken after the owner's other jobs.",
    "retry": "What was given up is tried again, in a job of its own.",
}
STEPS = {"raise": 10, "lower": -10}
MOST_PRIORITY = 100
PAGE = 50


@router.get("/jobs")
def everybodys(
    request: Request,
    caller: Annotated[Caller, Depends(require("jobs.read_all"))],
    services: ServicesOf,
    state: Word = "",
    user: Word = "",
    endpoint: Word = "",
    cursor: Annotated[str | None, Query(max_length=32)] = None,
    done: Word = "",
) -> Response:
    """Everybody's jobs, without their pictures and prompts."""
    wanted = {"state": state, "user": user, "endpoint": endpoint}
    return _list(request, caller, services, wanted, cursor, done, everybody=True)


@router.get("/mine")
def mine(
    request: Request,
    caller: Annotated[Caller, Depends(require("jobs.read"))],
    services: ServicesOf,
    state: Word = "",
    endpoint: Word = "",
    cursor: Annotated[str | None, Query(max_length=32)] = None,
    done: Word = "",
) -> Response:
    """One's own jobs."""
    wanted = {"state": state, "user": "", "endpoint": endpoint}
    return _list(request, caller, services, wanted, cursor, done, everybody=False)


@router.get("/jobs/{job_id}")
def one(
    job_id: str,
    request: Request,
    caller: Annotated[Caller, Depends(require("jobs.read"))],
    services: ServicesOf,
    done: Word = "",
) -> Response:
    """One job: its way through the studio, its parts and every attempt at them."""
    return _one(request, caller, services, job_id, said=DONE.get(done, ""))


@router.post("/jobs/{job_id}")
def act(
    job_id: str,
    request: Request,
    caller: Annotated[Caller, Depends(require("jobs.control"))],
    services: ServicesOf,
    what: Annotated[str, Form(max_length=16)] = "",
    back: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """Do something about a job, and go back to the page that asked."""
    services.work.jobs.get(caller, job_id)
    if not what:
        return RedirectResponse(f"/portal/jobs/{job_id}", 303)
    try:
        _do(caller, services, job_id, what, request)
    except NotAuthenticated:
        raise
    except AtelierError as error:
        if error.http_status == 404:
            raise
        return _one(request, caller, services, job_id, error.http_status, wrong=error.message)
    target = local_path(back) if back.startswith("/portal/") else f"/portal/jobs/{job_id}"
    mark = "&" if "?" in target else "?"
    return RedirectResponse(f"{target}{mark}{urlencode({'done': what})}", 303)


def _do(caller: Caller, services: Services, job_id: str, what: str, request: Request) -> None:
    actions, origin = services.work.actions, arrived(request).origin
    if what in STEPS:
        wanted = services.work.jobs.get(caller, job_id).priority + STEPS[what]
        priority = max(-MOST_PRIORITY, min(MOST_PRIORITY, wanted))
        actions.prioritise(caller, job_id, priority, origin=origin)
    elif what == "retry":
        if not services.work.dead_letters.retry_job(caller, job_id):
            raise InvalidRequest("Nothing of this job was given up, so there is nothing to try again.")
    elif what in {each.value for each in Action}:
        actions.act(caller, job_id, Action(what), origin=origin)
    else:
        raise InvalidRequest("That is nothing that can be done to a job.")


def _list(
    request: Request,
    caller: Caller,
    services: Services,
    wanted: dict[str, str],
    cursor: str | None,
    done: str,
    *,
    everybody: bool,
) -> Response:
    found, following = services.work.jobs.listed(
        caller,
        state=wanted["state"] or None,
        owner=wanted["user"] or None,
        endpoint=wanted["endpoint"] or None,
        cursor=cursor,
        limit=PAGE,
        shown=Shown.EVERYBODY if everybody else Shown.MINE,
    )
    here = f"/portal/{'jobs' if everybody else 'mine'}"
    kept = urlencode({name: value for name, value in wanted.items() if value})
    names = [each.spec.name for each in services.work.endpoints.listed(caller)]
    values: dict[str, Any] = {
        "jobs": found,
        "owners": services.identity.owners_of(each.id for each in found) if everybody else {},
        "following": f"{here}?{kept + '&' if kept else ''}cursor={following}" if following else "",
        "here": f"{here}?{kept}" if kept else here,
        "action": here,
        "everybody": everybody,
        "states": ["active", *(each.value for each in JobState)],
        "endpoints": names if caller.may("endpoints.read") else [],
        "wanted": wanted,
        "newest": cursor is None,
        "said": DONE.get(done, ""),
    }
    return page(request, "jobs.html", **values)


def _one(
    request: Request,
    caller: Caller,
    services: Services,
    job_id: str,
    status_code: int = 200,
    *,
    said: str = "",
    wrong: str = "",
) -> Response:
    return page(
        request,
        "job.html",
        status_code,
        job=services.work.jobs.get(caller, job_id),
        detail=services.work.details.of(caller, job_id),
        said=said,
        wrong=wrong,
    )
