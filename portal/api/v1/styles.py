"""/api/v1/styles: prompt styles, one's own and the studio's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from atelier import stylefile
from atelier.contract.errors import PayloadTooLarge
from atelier.stylefile import PromptStyle
from portal.api.arrival import arrived
from portal.api.schema import also, content
from portal.api.security import Caller, require, services_of
from portal.services.container import Services
from portal.services.styles import Scope, StyleView

router = APIRouter(prefix="/api/v1/styles", tags=["styles"])
ServicesOf = Annotated[Services, Depends(services_of)]
Reader = Annotated[Caller, Depends(require("styles.read"))]
Changer = Annotated[Caller, Depends(require("styles.change"))]

CSV = "text/csv"
_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {CSV: {"schema": {"type": "string", "format": "binary"}}},
    }
}


class StyleBody(BaseModel):
    """The texts of a style. `{prompt}` in one is where the request's goes; without it the style goes
    behind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = ""
    negative_prompt: str = ""


class StyleOut(StyleBody):
    """A style, and whose it is."""

    id: str
    name: str
    scope: Scope
    owner: str
    """The user's name; "" for the studio's."""
    visibility: str
    team: str | None


class StylesOut(BaseModel):
    """Styles in their order."""

    styles: list[StyleOut]


class RefusalOut(BaseModel):
    """A row of a file that became no style, by the line it begins on."""

    line: int
    name: str
    reason: str


class IntakeOut(BaseModel):
    """What became of a file's rows."""

    added: int
    replaced: int
    refused: list[RefusalOut]


async def sent_file(request: Request) -> bytes:
    """The body of a request as it came. Raises PayloadTooLarge beyond the size of a file of styles."""
    taken = bytearray()
    async for chunk in request.stream():
        taken += chunk
        if len(taken) > stylefile.MAX_BYTES:
            raise PayloadTooLarge(
                f"The file is larger than {stylefile.MAX_BYTES // 2**20} MiB, "
                "the most a file of styles may have."
            )
    return bytes(taken)


@router.get("", response_model=StylesOut)
def styles(caller: Reader, services: ServicesOf, scope: Scope | None = None) -> StylesOut:
    """The styles the caller's requests may name, an own one in place of the studio's of that name. With
    `scope`, all of the caller's own, all of the studio's, or all that others share with the caller.
    """
    return StylesOut(styles=[_out(view) for view in services.styles.listed(caller, scope)])


@router.post("/import", response_model=IntakeOut, openapi_extra=_FILE)
def import_styles(
    request: Request,
    caller: Changer,
    services: ServicesOf,
    file: Annotated[bytes, Depends(sent_file)],
    scope: Scope = Scope.OWN,
) -> IntakeOut:
    """Take in a styles.csv, sent as the body. A style of a name that is there is replaced; rows that cannot
    be kept are told with the reason.
    """
    _allow(caller, scope, services)
    intake = services.styles.take_in(caller, scope, file, arrived(request).origin)
    return IntakeOut.model_validate(asdict(intake))


@router.get("/export", response_class=Response, responses=content(CSV))
def export_styles(caller: Reader, services: ServicesOf, scope: Scope = Scope.OWN) -> Response:
    """The caller's own styles, or the studio's, as a styles.csv."""
    return Response(
        services.styles.written(caller, scope),
        media_type=f"{CSV}; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="styles.csv"'},
    )


@router.put("/{name:path}", response_model=StyleOut, responses=also(409))
def save_style(
    name: str,
    body: StyleBody,
    request: Request,
    caller: Changer,
    services: ServicesOf,
    scope: Scope = Scope.OWN,
) -> StyleOut:
    """Make a style, or replace the one of that name."""
    _allow(caller, scope, services)
    style = PromptStyle(name, body.prompt, body.negative_prompt)
    return _out(services.styles.save(caller, scope, style, arrived(request).origin))


@router.delete("/{name:path}", status_code=204)
def delete_style(
    name: str, request: Request, caller: Changer, services: ServicesOf, scope: Scope = Scope.OWN
) -> None:
    """Take a style away."""
    _allow(caller, scope, services)
    services.styles.delete(caller, scope, name, arrived(request).origin)


def _allow(caller: Caller, scope: Scope, services: Services) -> None:
    """Raise NotPermitted for a change of the studio's styles by somebody who may not."""
    if scope is Scope.STUDIO and not caller.may(_STUDIO):
        services.identity.note_denied(caller, _STUDIO)
        caller.demand(_STUDIO)


_STUDIO = "styles.manage_studio"


def _out(view: StyleView) -> StyleOut:
    return StyleOut.model_validate(asdict(view))
