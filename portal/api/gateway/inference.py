"""POST /inference: the published asynchronous call. It is answered at once with where the result will be.

`GET /inference/{job}` is that result, for its owner; on AWS it lies in the bucket as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Body, Depends, Header, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from atelier.contract.errors import NotAcceptable
from atelier.contract.jobs import JobState, JobView
from atelier.ownoptions import AUTOMATIC
from portal.api.arrival import arrived
from portal.api.schema import also
from portal.api.security import Caller, require_basic, services_of
from portal.services import wire_requests
from portal.services.container import Services

router = APIRouter(tags=["inference"])
ServicesOf = Annotated[Services, Depends(services_of)]
CHUNK = 256 * 1024
COME_AGAIN = "1"
"""Seconds until it is worth asking again for an answer that is not there yet."""
OUTPUT_LOCATION, FAILURE_LOCATION = "X-Amzn-SageMaker-OutputLocation", "X-Amzn-SageMaker-FailureLocation"
_JSON, _TEXT = ("application/json", "application/*", "*/*"), ("text/plain", "text/*")


class Accepted(BaseModel):
    """A job was made. Its result will lie at `output_location`, or else the reason at `failure_location`: in
    the bucket on AWS (s3://...), elsewhere at `status_url`, which answers it in both cases.
    """

    job: str
    endpoint: str
    status_url: str
    job_url: str
    output_location: str
    failure_location: str


class Pending(BaseModel):
    """The job is not done yet: ask again after the seconds of Retry-After. `progress` is from 0 to 1."""

    job: str
    state: JobState
    queue_position: int | None
    progress: float
    eta_s: float | None
    status_url: str


@router.post(
    "/inference",
    status_code=202,
    response_model=Accepted,
    responses=also(406, 409, 429) | {202: {"content": {"text/plain": {}}}},
)
def infer(
    body: Annotated[dict[str, Any], Body()],
    request: Request,
    response: Response,
    caller: Annotated[Caller, Depends(require_basic("jobs.submit"))],
    services: ServicesOf,
    endpoint_name: Annotated[
        str, Query(max_length=63, description="The endpoint that makes the pictures, or automatic.")
    ] = AUTOMATIC,
    idempotency_key: Annotated[str | None, Header()] = None,
    accept: Annotated[str, Header()] = "*/*",
) -> Accepted | Response:
    """Accept a body of the published wire or of the plain schema. With an Idempotency-Key the same request
    sent again within 24 hours is the same job. `Accept: text/plain` is answered with the output's location
    alone.
    """
    as_text = _wants_text(accept)
    asked, wish = wire_requests.read(body, endpoint_name)
    origin = arrived(request).origin
    job = services.work.acceptance.accept(
        caller, asked, idempotency_key=idempotency_key, origin=origin, wish=wish
    )
    path, places = f"/inference/{job}", services.work.answers.places(job)
    url = arrived(request).site + path
    said = Accepted(
        job=job,
        endpoint=endpoint_name,
        status_url=url,
        job_url=f"{arrived(request).site}/api/v1/jobs/{job}",
        output_location=places.answer if places else url,
        failure_location=places.failure if places else url,
    )
    headers = {
        "Location": path,
        OUTPUT_LOCATION: said.output_location,
        FAILURE_LOCATION: said.failure_location,
    }
    if as_text:
        return PlainTextResponse(said.output_location, 202, headers)
    response.headers.update(headers)
    return said


@router.get("/inference/{job_id}", response_model=None, responses=also(409, 424) | {202: {"model": Pending}})
def result(
    job_id: str,
    request: Request,
    caller: Annotated[Caller, Depends(require_basic("jobs.read"))],
    services: ServicesOf,
) -> Response:
    """The result of a job that was sent to /inference, in the form of its request; 202 while it is not done,
    424 where it failed.
    """
    found = services.work.answers.read(caller, job_id)
    if isinstance(found, JobView):
        url = arrived(request).site + request.url.path
        return JSONResponse(_pending(found, url).model_dump(mode="json"), 202, {"Retry-After": COME_AGAIN})
    return StreamingResponse(_chunks(found), media_type="application/json")


def _pending(view: JobView, url: str) -> Pending:
    return Pending(
        job=view.id,
        state=view.state,
        queue_position=view.queue_position,
        progress=view.progress.fraction,
        eta_s=view.progress.eta_s,
        status_url=url,
    )


def _wants_text(accept: str) -> bool:
    """Whether the caller wants text rather than JSON, by the Accept header (RFC 9110, 12.5.1). Raises
    NotAcceptable.
    """
    best = {
        kind: max((quality for name, quality in _ranges(accept) if name in names), default=0.0)
        for kind, names in (("json", _JSON), ("text", _TEXT))
    }
    if not any(best.values()):
        raise NotAcceptable("The answer is application/json or text/plain. Accept one of them.")
    return best["text"] > best["json"] or (best["text"] == best["json"] and "application/json" not in accept)


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    """(media range, quality) of an Accept header."""
    for each in accept.lower().split(","):
        name, *parameters = (word.strip() for word in each.split(";"))
        quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            yield name, min(1.0, max(0.0, float(quality)))
        except ValueError:
            yield name, 0.0


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    with source:
        while chunk := source.read(CHUNK):
            yield chunk
