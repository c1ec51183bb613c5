"""/portal/models/imports and /portal/models/tokens: models by their source, and what opens doors there."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atelier.contract.errors import AtelierError, InvalidRequest
from atelier.contract.models import ModelKind
from portal.api.arrival import arrived
from portal.api.security import Caller, require, services_of
from portal.pages.models import SHOWN_IMPORTS, refused
from portal.pages.rendering import page
from portal.services.container import Services
from portal.services.imports import ImportWish

router = APIRouter(prefix="/portal/models", include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]
Owner = Annotated[Caller, Depends(require("models.upload"))]


@router.get("/imports")
def imports(request: Request, caller: Owner, services: ServicesOf) -> Response:
    """What is on its way, and what came of it: the page itself fetches this every few seconds."""
    return page(request, "imports.html", imports=services.work.imports.listed(caller)[:SHOWN_IMPORTS])


@router.post("/imports")
def import_model(
    request: Request,
    caller: Owner,
    services: ServicesOf,
    source: Annotated[str, Form(max_length=1000)] = "",
    kind: Annotated[str, Form(max_length=20)] = "checkpoint",
    name: Annotated[str, Form(max_length=200)] = "",
    folder: Annotated[str, Form(max_length=400)] = "",
    sha256: Annotated[str, Form(max_length=64)] = "",
    token: Annotated[str, Form(max_length=40)] = "auto",  # noqa: S107  # a choice, no token
    own: Annotated[str, Form(max_length=5)] = "false",
) -> Response:
    """Ask for a model, or say why not."""
    try:
        if kind not in list(ModelKind):
            raise InvalidRequest(f"There is no kind of model named {kind!r}.")
        wish = ImportWish(source, ModelKind(kind), name, folder, sha256, own == "true", token)
        services.work.imports.ask(caller, wish, arrived(request).origin)
    except AtelierError as error:
        return refused(request, services, error)
    return RedirectResponse("/portal/models?done=asked#imports", 303)


@router.post("/imports/{import_id}")
def act_on_import(
    import_id: str,
    request: Request,
    caller: Owner,
    services: ServicesOf,
    what: Annotated[str, Form(max_length=10)] = "cancel",
) -> Response:
    """Cancel it, or begin it again; or say why not."""
    kept = services.work.imports
    try:
        (kept.retry if what == "retry" else kept.cancel)(caller, import_id)
    except AtelierError as error:
        return refused(request, services, error)
    return RedirectResponse("/portal/models/imports", 303)


@router.post("/tokens")
def keep_token(
    request: Request,
    caller: Owner,
    services: ServicesOf,
    name: Annotated[str, Form(max_length=64)] = "",
    site: Annotated[str, Form(max_length=260)] = "",
    token: Annotated[str, Form(max_length=1000)] = "",
    studio: Annotated[str, Form(max_length=5)] = "false",
) -> Response:
    """Keep a token, or say why not."""
    try:
        services.work.imports.tokens.keep(caller, name, site, token, studio=studio == "true")
    except AtelierError as error:
        return refused(request, services, error)
    return RedirectResponse("/portal/models?done=token", 303)


@router.post("/tokens/{token_id}")
def delete_token(token_id: str, request: Request, caller: Owner, services: ServicesOf) -> Response:
    """Forget a token, or say why not."""
    try:
        services.work.imports.tokens.delete(caller, token_id)
    except AtelierError as error:
        return refused(request, services, error)
    return RedirectResponse("/portal/models?done=forgotten", 303)
