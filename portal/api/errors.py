"""The one place where a failure becomes an HTTP answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from atelier.contract.errors import (
    AtelierError,
    InternalError,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    PayloadTooLarge,
    StillRunning,
    TooManyRequests,
)
from atelier.contract.routes import for_programs

log = logging.getLogger(__name__)

Shape = Callable[[Request, AtelierError, Exception], Response]
"""How one family of routes writes an error: (request, the error, the exception it was made from) ->
response.
"""

RETRY_SECONDS = 5
"""When to come again after a failure that may pass, where nothing better is known."""

_BY_STATUS: dict[int, type[AtelierError]] = {
    401: NotAuthenticated,
    403: NotPermitted,
    404: NotFound,
    413: PayloadTooLarge,
    429: TooManyRequests,
}


class PlainHttpError(InvalidRequest):
    """A failure of HTTP itself (405, 406, 415, ...), which keeps its status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.http_status = status  # type: ignore[misc]  # the one error whose status is not its class's


def as_json(request: Request, error: AtelierError, cause: Exception) -> Response:
    """/api/v1: {"error": {...}, "request_id"}."""
    body = {"error": error.body(), "request_id": request.state.arrival.request_id}
    return JSONResponse(body, error.http_status)


def respond(request: Request, cause: Exception, shapes: Mapping[str, Shape]) -> Response:
    """The answer to `cause` in the shape of the route's family: the longest prefix in `shapes`, else
    /api/v1's.
    """
    error = _translated(cause)
    path = request.url.path
    prefixes = [each for each in shapes if path == each or path.startswith(each + "/")]
    shape = shapes[max(prefixes, key=len)] if prefixes else as_json
    response = shape(request, error, cause)
    for name, value in _headers(path, error, cause).items():
        response.headers.setdefault(name, value)
    return response


def install(app: FastAPI, shapes: Mapping[str, Shape]) -> None:
    """Every exception of a route of `app` is answered by `respond`; what is no AtelierError and no HTTP error
    by the Gate.
    """

    def handle(request: Request, cause: Exception) -> Response:
        return respond(request, cause, shapes)

    for kind in (AtelierError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, handle)


def unexpected(
    request: Request, cause: Exception, shapes: Mapping[str, Shape], told: AtelierError | None = None
) -> Response:
    """A defect, or a database that fails: logged with its traceback and the request id. A defect is told to
    nobody; `told` is what is said instead.
    """
    route = getattr(request.scope.get("route"), "path", "no route")
    log.error("%s failed", route, exc_info=cause)
    return respond(request, told or InternalError(_DEFECT), shapes)


_DEFECT = (
    "Something went wrong on our side. Try again; if it happens again, tell an administrator the request id."
)


def _translated(cause: Exception) -> AtelierError:
    if isinstance(cause, AtelierError):
        return cause
    if isinstance(cause, RequestValidationError):
        return InvalidRequest(_sentence(cause), detail={"fields": _fields(cause)})
    if isinstance(cause, HTTPException):
        known = _BY_STATUS.get(cause.status_code)
        message = str(cause.detail or HTTPStatus(cause.status_code).phrase)
        return known(message) if known else PlainHttpError(cause.status_code, message)
    return InternalError(_DEFECT)


def _headers(path: str, error: AtelierError, cause: Exception) -> dict[str, str]:
    headers = dict(cause.headers or {}) if isinstance(cause, HTTPException) else {}
    if error.http_status == 401:
        headers["WWW-Authenticate"] = (
            'Basic realm="Atelier", charset="UTF-8"' if for_programs(path) else "Bearer"
        )
    if isinstance(error, StillRunning):
        headers["Location"] = str(error.detail["status_url"])
    seconds = error.detail.get("retry_after", RETRY_SECONDS if error.retryable else None)
    if seconds is not None:
        headers["Retry-After"] = str(max(1, round(seconds)))
    return headers


def _fields(error: RequestValidationError) -> list[dict[str, Any]]:
    """Where and what; never the value, which may be a password."""
    return [{"field": ".".join(map(str, each["loc"][1:])), "message": each["msg"]} for each in error.errors()]


def _sentence(error: RequestValidationError) -> str:
    if broken := next((each for each in error.errors() if each["type"] == "json_invalid"), None):
        return f"The body is no JSON, from its character {broken['loc'][-1]} on."
    said = "; ".join(f"{each['field'] or 'body'}: {each['message']}" for each in _fields(error)[:5])
    return f"The request cannot be understood. {said}."
