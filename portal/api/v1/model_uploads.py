"""POST /api/v1/models/upload: a model file as the body, written to disk as it arrives."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from atelier.contract.errors import InvalidRequest
from atelier.contract.models import ModelKind, ModelRef
from portal.api.gate import MODEL_UPLOAD
from portal.api.schema import also
from portal.api.security import Caller, require, services_of
from portal.api.v1.models import ModelView
from portal.services.container import Services
from portal.services.model_uploads import Announced, Arriving
from portal.services.model_views import Record, Wanted

router = APIRouter(tags=["models"])
WRITE_BYTES = 4 * 2**20
"""As much is held in memory before it is written."""
_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    MODEL_UPLOAD, status_code=201, response_model=ModelView, openapi_extra=_FILE, responses=also(409)
)
async def upload(
    request: Request,
    caller: Annotated[Caller, Depends(require("models.upload"))],
    services: Annotated[Services, Depends(services_of)],
    kind: ModelKind,
    filename: Annotated[str, Query(max_length=255)],
    name: Annotated[str, Query(max_length=200)] = "",
    folder: Annotated[str, Query(max_length=400)] = "",
    sha256: Annotated[str, Query(pattern="^([0-9a-fA-F]{64})?$")] = "",
    own: Annotated[bool, Query(description="For the caller alone, until they share it.")] = False,
) -> ModelView:
    """Register the model file in the body: the studio's, where the caller looks after models and does not
    want it for themselves, else the caller's own. With `sha256` it is checked to have arrived as it was; what
    can be refused is refused before the body is read.
    """
    length = request.headers.get("content-length")
    owner = caller.user_id if own or not caller.may("models.manage") else None
    announced = Announced(filename, kind, name, folder, int(length) if length else None, sha256, owner)
    uploads = services.work.uploads
    await run_in_threadpool(uploads.expect, announced)
    with uploads.arriving(announced) as arriving:
        try:
            await _written(request, arriving)
        except ClientDisconnect as error:
            raise InvalidRequest(f"{filename} did not arrive whole: the connection broke.") from error
        found = await run_in_threadpool(uploads.register, caller, announced, arriving)
    return ModelView.of(await run_in_threadpool(_record_of, services, caller, found, owner))


async def _written(request: Request, arriving: Arriving) -> None:
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        if len(held) >= WRITE_BYTES:
            await run_in_threadpool(arriving.write, bytes(held))
            held.clear()
    await run_in_threadpool(arriving.write, bytes(held))


def _record_of(services: Services, caller: Caller, model: ModelRef, owner: str | None) -> Record:
    """The model that was registered: the owner's own, or the studio's where the file is that already."""
    records = services.work.desk.records(Wanted(model.kind, missing=True), caller)
    wanted = (caller.username if owner else "", "")
    found = (each for each in records if each.model == model and each.standing.owner in wanted)
    return max(found, key=lambda each: each.standing.owner)
