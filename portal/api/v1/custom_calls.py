"""/api/v1/endpoints/{name}/invocations: custom endpoints, called with an untouched body."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from portal.api.apart import Apart
from portal.api.arrival import arrived
from portal.api.following import patience
from portal.api.schema import also
from portal.api.security import Caller, require, services_of
from portal.services.container import Services
from portal.services.custom_calls import Answered, Left

router = APIRouter(prefix="/api/v1/endpoints", tags=["endpoints"])
ServicesOf = Annotated[Services, Depends(services_of)]
Sender = Annotated[Caller, Depends(require("jobs.submit"))]
Reader = Annotated[Caller, Depends(require("jobs.read"))]
HARMLESS = ("application/json", "image/png", "image/jpeg", "image/webp", "text/plain")
"""Media types that an answer keeps; whatever else an image answers is a file to save."""
COME_AGAIN = {"Retry-After": "2"}
_APART = Apart("custom endpoints", 16)


class CallOut(BaseModel):
    """A call that was taken: its answer will be at `status_url`."""

    id: str
    endpoint: str
    status_url: str


@router.post(
    "/{name}/invocations",
    response_class=Response,
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}},
    responses=also(413) | {202: {"model": CallOut}},
)
async def invoke(
    name: str,
    request: Request,
    caller: Sender,
    services: ServicesOf,
    content_type: Annotated[str, Header(max_length=200)] = "application/octet-stream",
    accept: Annotated[str, Header(max_length=200)] = "*/*",
    prefer: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Pass the body on to a custom endpoint as it is. One whose callers wait answers; another's answer is
    fetched from the address that comes back (202). `Prefer: wait=SECONDS` or the studio bounds the wait.
    """
    body = await request.body()
    found = await _APART.run(
        lambda: services.custom.send(caller, name, body, content_type, accept),
        patience(services.settings, prefer),
    )
    return _answer(request, name, found)


@router.get(
    "/{name}/invocations/{call_id}",
    response_class=Response,
    responses=also(424) | {202: {"model": CallOut}},
)
def answer(name: str, call_id: str, request: Request, caller: Reader, services: ServicesOf) -> Response:
    """The answer to one's own call of an asynchronous custom endpoint; 202 while there is none, 424 where the
    endpoint failed. Kept for seven days.
    """
    return _answer(request, name, services.custom.read(caller, name, call_id))


def _answer(request: Request, name: str, found: Answered | Left) -> Response:
    if isinstance(found, Left):
        url = f"{arrived(request).site}/api/v1/endpoints/{name}/invocations/{found.id}"
        said = CallOut(id=found.id, endpoint=name, status_url=url)
        return JSONResponse(said.model_dump(), 202, {"Location": url, **COME_AGAIN})
    kind = found.content_type.partition(";")[0].strip().lower()
    harmless = kind in HARMLESS
    headers = {} if harmless else {"Content-Disposition": "attachment"}
    return Response(found.body, media_type=kind if harmless else "application/octet-stream", headers=headers)
