"""/openapi.json and /docs: what the API offers, for whoever is logged in. No script, nothing from other
hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from portal.api.security import Caller, require
from portal.pages.rendering import page

router = APIRouter(include_in_schema=False)
Reader = Annotated[Caller, Depends(require("account.read"))]


@router.get("/openapi.json")
def schema(request: Request, _caller: Reader) -> dict[str, Any]:
    """The OpenAPI description of every route."""
    found: dict[str, Any] = request.app.openapi()
    return found


@router.get("/docs")
def docs(request: Request, _caller: Reader) -> Response:
    """The same for people: routes by group, with what each does."""
    groups: dict[str, list[dict[str, str]]] = {}
    for group, operation in _operations(request.app.openapi()):
        groups.setdefault(group, []).append(operation)
    return page(request, "docs.html", groups=groups)


def _operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            text = operation.get("description") or operation.get("summary", "")
            yield (
                (operation.get("tags") or ["other"])[0],
                {"method": method.upper(), "path": path, "text": text},
            )
