"""/portal/models: the files to draw with. Everybody sees those that are open to them; administrators upload,
change and delete, and whoever has models of their own does so with those.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Query, UploadFile
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atelier.contract.errors import AtelierError, InvalidRequest, NotAuthenticated
from atelier.contract.models import ModelKind
from portal.api.arrival import arrived
from portal.api.security import Caller, require, services_of
from portal.api.v1.models import preview_url
from portal.domain.sharing import Visibility
from portal.pages.rendering import page
from portal.services.container import Services
from portal.services.model_desk import ModelChange
from portal.services.model_previews import MAX_BYTES
from portal.services.model_views import Wanted
from portal.services.sharing import Owned, Wish

router = APIRouter(prefix="/portal/models", include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]
Keeper = Annotated[Caller, Depends(require("models.manage"))]
Owner = Annotated[Caller, Depends(require("models.upload"))]

DONE = {
    "changed": "The model was changed.",
    "standard": "It is the standard checkpoint now.",
    "preview": "The preview was replaced.",
    "deleted": "The model was deleted. Jobs that were accepted are still drawn with it.",
    "uploaded": "The model was uploaded.",
    "shared": "Who sees the model was changed.",
    "asked": "The import was asked for. It is followed below.",
    "token": "The token is kept. It is sent to its own site alone.",
    "forgotten": "The token was forgotten.",
    "refreshed": "The linked folders were looked through.",
    "missing": "The linked folders were looked through. Files that are gone are marked as missing below.",
}
"""What the page says after a change, by the word in its address."""
SHOWN_IMPORTS = 10
"""The newest ones, above the list."""


@router.get("")
def models(
    request: Request,
    _caller: Annotated[Caller, Depends(require("models.read"))],
    services: ServicesOf,
    kind: Annotated[str, Query(max_length=20)] = "",
    search: Annotated[str, Query(max_length=200)] = "",
    done: str = "",
) -> Response:
    """The list, with what can be done about each."""
    return _page(request, services, kind=kind, search=search, said=DONE.get(done, ""))


@router.post("/refresh")
def refresh(caller: Keeper, services: ServicesOf) -> Response:
    """Look through the linked folders."""
    found = services.work.folders.refresh(caller)
    return _back("missing" if found.missing else "refreshed")


@router.post("/{model_id}")
def change_model(
    model_id: str,
    request: Request,
    caller: Owner,
    services: ServicesOf,
    name: Annotated[str, Form(max_length=400)] = "",
    description: Annotated[str, Form(max_length=8_000)] = "",
    activation_text: Annotated[str | None, Form(max_length=8_000)] = None,
    negative_text: Annotated[str | None, Form(max_length=8_000)] = None,
    preferred_weight: Annotated[str | None, Form(max_length=20)] = None,
    family_override: Annotated[str, Form(max_length=40)] = "",
    vae: Annotated[str | None, Form(max_length=255)] = None,
) -> Response:
    """Change what is known of a model, or say why not."""
    try:
        said: dict[str, Any] = {
            "description": description,
            "activation_text": activation_text,
            "negative_text": negative_text,
            "preferred_weight": None if preferred_weight is None else _number(preferred_weight),
            "vae": vae,
        }
        # What a form has no field for stays as it is.
        notes = {field: value for field, value in said.items() if value is not None}
        change = ModelChange(name, notes, family_override)
        services.work.desk.change(caller, model_id, change, arrived(request).origin)
    except AtelierError as error:
        return refused(request, services, error)
    return _back("changed")


@router.post("/{model_id}/standard")
def make_standard(model_id: str, request: Request, caller: Keeper, services: ServicesOf) -> Response:
    """Let it be the standard checkpoint, or say why not."""
    try:
        services.work.desk.change(caller, model_id, ModelChange(standard=True), arrived(request).origin)
    except AtelierError as error:
        return refused(request, services, error)
    return _back("standard")


@router.post("/{model_id}/delete")
def delete_model(model_id: str, request: Request, caller: Owner, services: ServicesOf) -> Response:
    """Take it away, or say why not."""
    try:
        services.work.desk.delete(caller, model_id, arrived(request).origin)
    except AtelierError as error:
        return refused(request, services, error)
    return _back("deleted")


@router.post("/{model_id}/preview")
def set_preview(
    model_id: str,
    request: Request,
    caller: Owner,
    services: ServicesOf,
    picture: Annotated[UploadFile | None, File()] = None,
) -> Response:
    """Replace its preview by an uploaded picture, or say why not."""
    try:
        data = picture.file.read(MAX_BYTES + 1) if picture else b""
        if not 0 < len(data) <= MAX_BYTES:
            raise InvalidRequest(f"Choose a picture of at most {MAX_BYTES // 2**20} MiB.")
        services.work.desk.set_preview(caller, model_id, data, arrived(request).origin)
    except AtelierError as error:
        return refused(request, services, error)
    return _back("preview")


@router.post("/{model_id}/sharing")
def share_model(
    model_id: str,
    request: Request,
    caller: Annotated[Caller, Depends(require("sharing.own"))],
    services: ServicesOf,
    seen_by: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Let others see it or no longer: `seen_by` is private, studio or a team's id."""
    try:
        broad = seen_by in (Visibility.PRIVATE, Visibility.STUDIO)
        wish = Wish(Visibility(seen_by)) if broad else Wish(Visibility.TEAM, seen_by)
        services.sharing.share(caller, Owned.MODEL, model_id, wish)
    except AtelierError as error:
        return refused(request, services, error)
    return _back("shared")


def _page(
    request: Request,
    services: Services,
    *,
    status_code: int = 200,
    kind: str = "",
    search: str = "",
    said: str = "",
    wrong: str = "",
) -> Response:
    kinds = [each.value for each in ModelKind]
    wanted = Wanted(ModelKind(kind) if kind in kinds else None, search=search, missing=True)
    caller, asked = request.state.caller, services.work.imports
    may_import = caller.may("models.upload")
    found = services.work.desk.records(wanted, caller)
    return page(
        request,
        "models.html",
        status_code,
        models=[(each, preview_url(each)) for each in found],
        kinds=kinds,
        teams=services.teams.of(caller.user_id) if caller.may("sharing.own") else (),
        imports=asked.listed(caller)[:SHOWN_IMPORTS] if may_import else (),
        tokens=asked.tokens.listed(caller) if may_import else (),
        hub=asked.tokens.hub_site,
        vaes=[each.filename for each, _ in services.work.models.listed(ModelKind.VAE)],
        kind=kind,
        search=search,
        said=said,
        wrong=wrong,
    )


def refused(request: Request, services: Services, error: AtelierError) -> Response:
    """The list again, with what was wrong. Raises NotAuthenticated."""
    if isinstance(error, NotAuthenticated):
        raise error
    return _page(request, services, status_code=error.http_status, wrong=error.message)


def _number(text: str) -> float:
    try:
        return float(text or 0)
    except ValueError as error:
        raise InvalidRequest("The preferred weight has to be a number.") from error


def _back(done: str) -> Response:
    return RedirectResponse(f"/portal/models?done={done}", 303)
