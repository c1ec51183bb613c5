"""/api/v1/assets: pictures to work on, uploaded as they are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from portal.api.files import CSP
from portal.api.schema import content
from portal.api.security import Caller, require, services_of
from portal.services.container import Services

router = APIRouter(prefix="/api/v1/assets", tags=["assets"])
Uploader = Annotated[Caller, Depends(require("assets.upload"))]
ServicesOf = Annotated[Services, Depends(services_of)]
_PICTURE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class AssetView(BaseModel):
    """An uploaded picture. A request names it by its `id`; sides in pixels, `size` in bytes."""

    id: str
    width: int
    height: int
    size: int
    media_type: str


@router.post("", status_code=201, response_model=AssetView, openapi_extra=_PICTURE)
async def upload(request: Request, caller: Uploader, services: ServicesOf) -> AssetView:
    """Store the picture in the body. The same picture again is the same asset; what no job uses is removed
    after some days.
    """
    data = await request.body()
    added = await run_in_threadpool(services.detections.inputs.add, caller, data)
    return AssetView(**vars(added))


@router.get("/{asset_id}", response_class=Response, responses=content("image/*"))
def asset(asset_id: str, caller: Uploader, services: ServicesOf) -> Response:
    """The bytes of one's own uploaded picture."""
    data, media_type = services.detections.inputs.read(caller, asset_id)
    headers = {
        "Cache-Control": "private, max-age=86400, immutable",
        "Content-Security-Policy": CSP,
        "X-Content-Type-Options": "nosniff",
    }
    return Response(data, media_type=media_type, headers=headers)
