"""POST /api/v1/controlnet/preview: what a preprocessor makes of an uploaded picture, for the page."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from portal.api.controlnet import DRAWING
from portal.api.files import CSP
from portal.api.following import patience
from portal.api.schema import content
from portal.api.security import Caller, require, services_of
from portal.services.container import Services
from portal.services.detections import Asked

router = APIRouter(prefix="/api/v1/controlnet", tags=["controlnet"])


class PreviewRequest(BaseModel):
    """`image` is the id of an asset, or the picture as base64; numbers below 0 mean the standard ones."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    module: str = Field("none", max_length=100)
    image: str = Field(min_length=1)
    processor_res: float = -1
    threshold_a: float = -1
    threshold_b: float = -1


@router.post("/preview", response_class=Response, responses=content("image/png"))
async def preview(
    asked: PreviewRequest,
    caller: Annotated[Caller, Depends(require("jobs.submit"))],
    services: Annotated[Services, Depends(services_of)],
    prefer: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """The map as PNG. Everybody has one call for maps at a time; `Prefer: wait=SECONDS` bounds the wait."""
    wanted = Asked(asked.module, asked.image, None, asked.processor_res, asked.threshold_a, asked.threshold_b)
    within = patience(services.settings, prefer)
    [data] = await DRAWING.run(lambda: services.detections.made(caller, [wanted], within))
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": CSP,
        "X-Content-Type-Options": "nosniff",
    }
    return Response(data, media_type="image/png", headers=headers)
