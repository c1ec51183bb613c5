"""Errors as the peer writes them, so that its clients find what they look for; ours say more where it said
nothing.
"""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from atelier.contract.errors import AtelierError

_SCRIPTS = ("script", "always-on script")


def as_peer(request: Request, error: AtelierError, cause: Exception) -> Response:
    """{"error", "detail", "body", "errors"}; FastAPI's own shape for fields of the wrong type."""
    if isinstance(cause, RequestValidationError):
        detail = [
            {"loc": list(each["loc"]), "msg": each["msg"], "type": each["type"]} for each in cause.errors()
        ]
        return JSONResponse({"detail": detail}, error.http_status)
    fields = error.detail.get("fields")
    if isinstance(fields, list):
        return JSONResponse({"detail": [_field(each) for each in fields]}, error.http_status)
    body = {"error": "HTTPException", "detail": _sentence(error), "body": "", "errors": ""}
    return JSONResponse(body, error.http_status)


def _field(fault: dict[str, Any]) -> dict[str, Any]:
    return {"loc": ["body", *str(fault["field"]).split(".")], "msg": fault["reason"], "type": "value_error"}


def _sentence(error: AtelierError) -> str:
    if error.detail.get("kind") in _SCRIPTS:
        return f"Script '{error.detail['name']}' not found"
    return error.message
