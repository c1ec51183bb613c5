"""/api/v1/infotext: generation parameters, pasted or in a picture, as the fields of a request."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from atelier import picturefile
from atelier.contract.errors import InvalidRequest
from portal.api.security import Caller, require, services_of
from portal.services import infotexts
from portal.services.container import Services

router = APIRouter(prefix="/api/v1/infotext", tags=["jobs"])
LONGEST_TEXT = 1_000_000


class InfotextRequest(BaseModel):
    """Either generation parameters as text, or a picture file in base64 that has them in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = Field(default=None, max_length=LONGEST_TEXT)
    image: str | None = None


class IgnoredView(BaseModel):
    """An entry that sets nothing here, and why."""

    field: str
    reason: str


class InfotextView(BaseModel):
    """The text, its entries, and what they set: `fields` of a text-to-image request, and options as its
    `override_settings`.
    """

    infotext: str
    parameters: dict[str, Any]
    fields: dict[str, Any]
    overrides: dict[str, Any]
    ignored: list[IgnoredView]


@router.post("", response_model=InfotextView)
def read_infotext(
    body: InfotextRequest,
    caller: Annotated[Caller, Depends(require("jobs.submit"))],
    services: Annotated[Services, Depends(services_of)],
) -> InfotextView:
    """What an infotext sets, with the caller's options and the studio's models. Nothing is kept."""
    if (body.text is None) == (body.image is None):
        raise InvalidRequest("Send either `text` or `image`.")
    found = body.text
    if body.image is not None:
        found = picturefile.read(picturefile.from_base64(body.image)).infotext
    parameters, pasted = infotexts.read(services.database, caller, found or "")
    return InfotextView(
        infotext=found or "",
        parameters=parameters,
        fields=pasted.fields,
        overrides=pasted.overrides,
        ignored=[IgnoredView(field=each.field, reason=each.reason) for each in pasted.ignored],
    )
