"""The OpenAPI description: what FastAPI finds in the routes, and what every route truly answers where it
refuses. Who is let in stands in the permission a route declares; the shapes of errors in one place each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from atelier.contract.errors import ERRORS
from portal.api.gate import PROBES
from portal.api.security import guard_of

Json = dict[str, Any]

JSON = "application/json"
PEERS = ("/sdapi", "/controlnet")
"""Routes below them write errors as the peer does."""
COMPONENTS = "#/components/schemas/"
REASONS: dict[int, str] = {
    400: "The body cannot be read.",
    401: "There is no valid login.",
    403: "Not permitted, or the request came from another site or over plain http.",
    404: "There is no such thing, or it is somebody else's.",
    406: "No media type that is accepted could be answered.",
    409: "What is there already forbids it.",
    410: "It waited longer than it may.",
    413: "The body is larger than it may be.",
    422: "The request cannot be understood or done.",
    424: "The job ended without an answer.",
    429: "Too much at once, or more than a quota; Retry-After says for how long, where that is known.",
    503: "The database, the store or a worker did not answer. Try again.",
    504: "The job was not done within the call. It goes on.",
    507: "The disk is full, or the picture does not fit into the worker's memory.",
}
"""What a status means here, in every answer that has it."""


class Told(BaseModel):
    """An error: a word for programs, a sentence for people, whether trying again may help, and what belongs
    to that kind of error.
    """

    code: str = Field(json_schema_extra={"enum": [*sorted(ERRORS)]})
    message: str
    retryable: bool
    detail: dict[str, Any]


class Failure(BaseModel):
    """What is answered where something was not done. Logs know the request by its id."""

    error: Told
    request_id: str


class PeerFailure(BaseModel):
    """A failure as the peer writes it."""

    error: str
    detail: str
    body: str
    errors: str


class PeerField(BaseModel):
    """A field of a request that is wrong."""

    loc: list[str | int]
    msg: str
    type: str


class PeerFields(BaseModel):
    """Wrong fields of a request as the peer writes them."""

    detail: list[PeerField]


def also(*statuses: int) -> dict[int | str, Json]:
    """For a route's `responses`: what it answers beyond what every route of its kind does."""
    return {status: {"description": REASONS[status]} for status in statuses}


def content(*media_types: str) -> dict[int | str, Json]:
    """For a route's `responses`: its 200 is of one of these media types, and no JSON."""
    return {200: {"content": {each: {} for each in media_types}}}


UNCHANGED: dict[int | str, Json] = {304: {"description": "It is as the browser has it."}}
"""For a route's `responses`: it knows what the browser has by its ETag."""

ELSEWHERE: dict[int | str, Json] = {307: {"description": "It is saved from the store's own URL, soon."}}
"""For a route's `responses`: what is large does not pass through the portal."""


def describe(app: FastAPI, routers: Iterable[APIRouter]) -> Json:
    """The description of the routes of `routers` in `app`, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = made["components"]["schemas"]
        for model in (Failure, PeerFailure, PeerFields):
            schemas |= _definitions(model)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        made["components"]["securitySchemes"] = _SCHEMES
        for route in _routes(routers):
            for method in route.methods or ():
                _complete(made["paths"][route.path_format][method.lower()], route)
        app.openapi_schema = made
    return app.openapi_schema


_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An access token or an API key."},
    "basic": {"type": "http", "scheme": "basic", "description": "A user name with a password or an API key."},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "atelier", "description": "A browser's login."},
}


def _routes(routers: Iterable[APIRouter]) -> Iterator[APIRoute]:
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                yield route


def _complete(operation: Json, route: APIRoute) -> None:
    """Add to FastAPI's description of a route who may use it and how it refuses."""
    guard = guard_of(route)
    operation["security"] = []
    if guard is not None:
        ways = ("basic", "bearer") if guard.wants_program(route.path) else ("bearer", "cookie")
        operation["security"] = [{way: []} for way in ways]
        operation["x-permission"] = guard.permission
    responses: Json = operation["responses"]
    for each in _refusals(operation, route):
        responses.setdefault(str(each), {})
    for status, response in responses.items():
        if status[0] in "45":
            response.update(_as_error(int(status), route.path, guard.permission if guard else None))
    operation["responses"] = dict(sorted(responses.items()))


def _refusals(operation: Json, route: APIRoute) -> Iterator[int]:
    """What every route of this kind may answer."""
    if route.path == PROBES[0]:
        return
    yield 503
    if route.path in PROBES:
        return
    yield from (403, 413, 422)
    if route.methods and route.methods - {"GET", "HEAD"}:
        yield 507
    if "requestBody" in operation:
        yield 400
    if "{" in route.path:
        yield 404
    guard = guard_of(route)
    if guard is not None:
        yield 401
        if guard.wants_program(route.path):
            yield 429  # so many wrong passwords that none is looked at


def _as_error(status: int, path: str, permission: str | None) -> Json:
    schema: Json = {"$ref": f"{COMPONENTS}Failure"}
    if path.startswith(PEERS):
        schema = {"anyOf": [{"$ref": f"{COMPONENTS}{each}"} for each in ("PeerFailure", "PeerFields")]}
    reason = REASONS[status]
    if status == 403 and permission:
        reason = f"Needs the permission {permission}. {reason}"
    return {"description": reason, "content": {JSON: {"schema": schema}}}


def _definitions(model: type[BaseModel]) -> Json:
    """The schema of a model and of those in it, by name."""
    schema = json.loads(json.dumps(model.model_json_schema(ref_template=COMPONENTS + "{model}")))
    inner: Json = schema.pop("$defs", {})
    return {**inner, model.__name__: schema}
