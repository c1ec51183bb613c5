"""POST /sdapi/v1/png-info: what a picture file says it was made with."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from atelier import picturefile
from portal.api.security import Caller, require_basic, services_of
from portal.services import infotexts
from portal.services.container import Services

router = APIRouter(prefix="/sdapi/v1", tags=["sdapi"])


class PngInfoRequest(BaseModel):
    """A picture file in base64, with or without `data:image/...;base64,` before it."""

    image: str


class PngInfoResponse(BaseModel):
    """The peer's answer: the infotext ("" without one), the file's other texts, the infotext parsed."""

    info: str
    items: dict[str, str]
    parameters: dict[str, Any]


@router.post("/png-info", response_model=PngInfoResponse)
def png_info(
    body: PngInfoRequest,
    caller: Annotated[Caller, Depends(require_basic("jobs.submit"))],
    services: Annotated[Services, Depends(services_of)],
) -> PngInfoResponse:
    """Read a PNG, JPEG, WebP, AVIF or GIF file. Its pixels are not decoded, and nothing is kept."""
    told = picturefile.read(picturefile.from_base64(body.image))
    parameters, _ = infotexts.read(services.database, caller, told.infotext)
    return PngInfoResponse(info=told.infotext, items=told.items, parameters=parameters)
