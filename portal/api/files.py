"""/files: finished pictures, byte for byte, to their owner and whom they are shared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import RedirectResponse, Response, StreamingResponse

from portal.api.schema import ELSEWHERE, UNCHANGED, content
from portal.api.security import Caller, require, services_of
from portal.services.container import Services

router = APIRouter(tags=["files"])
CHUNK = 256 * 1024
CSP = "sandbox; default-src 'none'"
"""Whatever the bytes are, a browser runs nothing of them in our origin."""


@router.get(
    "/files/{picture_id}", response_class=Response, responses=content("image/*") | UNCHANGED | ELSEWHERE
)
def file(
    picture_id: str,
    caller: Annotated[Caller, Depends(require("pictures.read"))],
    services: Annotated[Services, Depends(services_of)],
    download: Annotated[bool, Query(description="Save it instead of showing it.")] = False,
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """The stored bytes of a picture. Its ETag is the sha256 of its content, which never changes. What is to
    be saved and has more than 32 MB may be answered by a URL of the store that is good for minutes (307).
    """
    stored, key = services.work.files.describe(caller, picture_id)
    etag = f'"{stored.etag}"'
    headers = {
        "ETag": etag,
        # What others share may be withdrawn: then a browser must not show it again from its cache.
        "Cache-Control": "private, max-age=31536000, immutable" if stored.own else "private, no-cache",
        "Content-Security-Policy": CSP,
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'{"attachment" if download else "inline"}; filename="{stored.name}"',
    }
    if etag in (each.strip().removeprefix("W/") for each in if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    elsewhere = services.work.files.elsewhere(key, stored) if download else None
    if elsewhere is not None:
        # The URL dies, so nobody may remember where this led.
        headers = headers | {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return RedirectResponse(elsewhere, 307, headers=headers)
    headers["Content-Length"] = str(stored.size)
    return StreamingResponse(
        _chunks(services.work.files.open(key)), media_type=stored.media_type, headers=headers
    )


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    with source:
        while chunk := source.read(CHUNK):
            yield chunk
