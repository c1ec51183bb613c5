"""/sd_extra_networks: cards of models as the peer serves them, by our ids instead of paths."""

from __future__ import annotations

import base64
import binascii
import html
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import Response

from atelier import extension
from atelier.contract.errors import InvalidRequest, NotFound
from atelier.contract.models import ModelKind
from atelier.controls import OWN_PAGES, card_pages
from atelier.extension import Hooks
from portal.api.schema import UNCHANGED, also, content
from portal.api.security import Caller, require, services_of
from portal.api.v1.models import preview_response, preview_url
from portal.services import model_previews
from portal.services.container import Services
from portal.services.model_views import Record, Wanted

router = APIRouter(prefix="/sd_extra_networks", tags=["sdapi"])
ServicesOf = Annotated[Services, Depends(services_of)]
Reader = Annotated[Caller, Depends(require("models.read"))]
_COVERS = "ssmd_cover_images"
"""Pictures in a network's metadata: a JSON list of base64, as kohya's additional-networks extension
wrote it.
"""


@router.get(
    "/thumb",
    response_class=Response,
    responses=content(model_previews.MEDIA_TYPE) | UNCHANGED | also(404),
)
def thumb(
    caller: Reader,
    services: ServicesOf,
    filename: Annotated[str, Query(max_length=64, description="The model's id.")] = "",
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """A model's preview picture."""
    return preview_response(services, caller, filename, if_none_match)


@router.get("/metadata")
def metadata(
    caller: Reader,
    services: ServicesOf,
    page: Annotated[str, Query(max_length=40)] = "",
    item: Annotated[str, Query(max_length=200)] = "",
) -> dict[str, str]:
    """{"metadata": JSON as text} of a card, {} where its file has none."""
    found = _found(services, caller, page, item)
    told = services.work.desk.details(found.id).metadata if found else {}
    return {"metadata": json.dumps(told, indent=4, ensure_ascii=False)} if told else {}


@router.get(
    "/cover-images", response_class=Response, responses=content(model_previews.MEDIA_TYPE) | also(404)
)
def cover_images(
    caller: Reader,
    services: ServicesOf,
    page: Annotated[str, Query(max_length=40)] = "",
    item: Annotated[str, Query(max_length=200)] = "",
    index: Annotated[int, Query(ge=0, le=1000)] = 0,
) -> Response:
    """A picture out of the metadata of a file, encoded anew. Raises NotFound."""
    found = _found(services, caller, page, item)
    told = services.work.desk.details(found.id).metadata if found else {}
    try:
        data = base64.b64decode(json.loads(told[_COVERS])[index], validate=True)
        picture = model_previews.encoded(data)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        RecursionError,
        binascii.Error,
        InvalidRequest,
    ) as error:
        raise NotFound("This file has no such cover picture.") from error
    return Response(picture, media_type=model_previews.MEDIA_TYPE)


@router.get("/get-single-card", responses=also(404))
def single_card(
    caller: Reader,
    services: ServicesOf,
    page: Annotated[str, Query(max_length=40)] = "",
    tabname: Annotated[str, Query(max_length=40)] = "txt2img",
    name: Annotated[str, Query(max_length=200)] = "",
) -> dict[str, Any]:
    """{"html": the card}, without any script. Raises NotFound."""
    found = _found(services, caller, page, name)
    if found is None:
        raise NotFound(f"There is no card {name!r} on the page {page!r}.")
    return {"html": _card(found, tabname)}


def pages(hooks: Hooks) -> dict[str, ModelKind]:
    """The pages of cards by their titles in lower case, as the peer names them: our own, and those that the
    extensions in `hooks` add.
    """
    return {each.title.lower(): each.kind for tab in OWN_PAGES for each in card_pages(tab, hooks)}


def _found(services: Services, caller: Caller, page: str, item: str) -> Record | None:
    kind = pages(extension.installed("ui")).get(page.lower())
    records = services.work.desk.records(Wanted(kind), caller) if kind else []
    wanted = item.lower()
    return next((each for each in records if wanted in (each.model.name.lower(), each.id)), None)


def _card(record: Record, tabname: str) -> str:
    told = {"name": record.model.name, "sort-name": record.model.name.lower(), "tab": tabname}
    data = "".join(f' data-{key}="{html.escape(value)}"' for key, value in told.items())
    url = preview_url(record)
    picture = f'<img src="{html.escape(url)}" class="preview" loading="lazy" alt="">' if url else ""
    return (
        f'<div class="card"{data}>{picture}<div class="actions">'
        f'<span class="name">{html.escape(record.model.name)}</span>'
        f'<span class="description">{html.escape(record.notes.description)}</span></div></div>'
    )
