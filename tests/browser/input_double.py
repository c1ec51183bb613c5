"""The scripted portal's uploads, and maps that are the picture upside down."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from PIL import Image, ImageOps
from starlette.responses import JSONResponse, Response

NO_PICTURE = "This is no picture that can be read."


def add_inputs(app: FastAPI, assets: Callable[[], dict[str, bytes]]) -> None:
    """The routes of uploads and of a preprocessor's preview; `assets` gives their memory."""

    @app.post("/api/v1/assets", status_code=201)
    async def upload(request: Request) -> Response:
        data = await request.body()
        try:
            size = Image.open(io.BytesIO(data)).size
        except OSError:
            error = {
                "code": "invalid_request",
                "message": "This is no picture that can be read.",
                "retryable": False,
            }
            return JSONResponse({"error": error | {"detail": {}}, "request_id": "x"}, 422)
        name = f"ada-{hashlib.sha256(data).hexdigest()}"
        assets()[name] = data
        told: dict[str, Any] = {"id": name, "width": size[0], "height": size[1], "size": len(data)}
        return JSONResponse(told | {"media_type": "image/png"}, 201)

    @app.get("/api/v1/assets/{name}")
    async def asset(name: str) -> Response:
        return Response(assets()[name], media_type="image/png")

    @app.post("/api/v1/controlnet/preview")
    async def preview(request: Request) -> Response:
        body = await request.json()
        out = io.BytesIO()
        ImageOps.flip(Image.open(io.BytesIO(assets()[body["image"]])).convert("RGB")).save(out, "PNG")
        return Response(out.getvalue(), media_type="image/png")
