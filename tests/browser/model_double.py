"""The scripted portal's models: a few of each kind, with notes, previews and folders."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from PIL import Image
from starlette.responses import Response

VIEW: dict[str, Any] = {
    "alias": None,
    "addnet_hash": None,
    "detected_family": None,
    "family_override": None,
    "resolution": None,
    "standard": False,
    "folder": "",
    "description": "",
    "notes": "",
    "activation_text": "",
    "preferred_weight": 0.0,
    "negative_text": "",
    "sd_version": "",
    "vae": "",
    "missing_since": None,
    "preview_url": None,
    "created": 1000.0,
    "modified": 1000.0,
    "size": 151_000_000,
    "sha256": "0123456789" * 6 + "abcd",
    "legacy_hash": None,
}


def model(name: str, kind: str = "checkpoint", family: str | None = "sd1", **more: Any) -> dict[str, Any]:
    """A model as GET /api/v1/models lists it."""
    filename, short = f"{name}.safetensors", "0123456789"
    named = {"id": f"{kind}-{name}", "kind": kind, "name": name, "filename": filename, "prompt_name": name}
    hashes = {"short_hash": short, "title": f"{filename} [{short}]", "family": family}
    return VIEW | named | hashes | {"standard": name == "atelier-demo"} | more


def some_models() -> list[dict[str, Any]]:
    """What the scripted portal starts with."""
    return [
        model("atelier-demo", resolution=(128, 128)),
        model("painter"),
        model("large", family="sdxl"),
        model("soft", "vae", None),
        model("bad-hands", "embedding", "sd1"),
        model("edges", "controlnet"),
        model("calm", "hypernetwork", None, preferred_weight=0.6),
        model(
            "ada",
            "lora",
            prompt_name="ada_v2",
            folder="people/friends",
            description="Ada as she looks.",
            activation_text="ada, hat",
            preferred_weight=0.8,
            negative_text="bald",
            created=3000.0,
        ),
        model(
            "zebra", "lora", folder="animals", preview_url="/api/v1/models/lora-zebra/preview", created=2000.0
        ),
        model("grand", "lora", "sdxl", description="<b>For the large ones</b>"),
    ]


def add_models(
    app: FastAPI, models: Callable[[], list[dict[str, Any]]], who: Callable[[Request], str]
) -> None:
    """The routes of models. `models` gives the memory, `who` refuses strangers."""

    def found(model_id: str) -> dict[str, Any]:
        known = next((each for each in models() if each["id"] == model_id), None)
        if known is None:
            raise HTTPException(404)
        return known

    @app.get("/api/v1/models")
    async def listed(request: Request, kind: str = "") -> list[dict[str, Any]]:
        who(request)
        return [each for each in models() if kind in ("", each["kind"]) and not each["missing_since"]]

    @app.post("/api/v1/models/refresh")
    async def refresh(request: Request) -> dict[str, Any]:
        who(request)
        models().append(model("fresh", "lora"))
        gone = [each["title"] for each in models() if each["missing_since"]]
        told = {"added": ["fresh.safetensors [0123456789]"], "moved": [], "returned": [], "missing": gone}
        return told | {"refused": {}}

    @app.get("/api/v1/models/{model_id}")
    async def one(request: Request, model_id: str) -> dict[str, Any]:
        who(request)
        words = [{"word": "smile", "count": 12}, {"word": "outdoors", "count": 4}]
        metadata = {"ss_output_name": "x", "ss_tag_frequency": '{"10_ada": {"smile": 12}}'}
        more = {"metadata": metadata, "suggested_words": words, "families": ["sd1", "sd2", "sdxl"]}
        return found(model_id) | more

    @app.patch("/api/v1/models/{model_id}")
    async def change(request: Request, model_id: str) -> dict[str, Any]:
        who(request)
        known = found(model_id)
        known.update(await request.json())
        known["family"] = known["family_override"] or known["family"]
        return known

    @app.get("/api/v1/models/{model_id}/preview")
    async def preview(request: Request, model_id: str) -> Response:
        who(request)
        out = io.BytesIO()
        Image.new("RGB", (200, 300), "teal").save(out, "WEBP")
        return Response(out.getvalue(), media_type="image/webp")

    @app.put("/api/v1/models/{model_id}/preview")
    async def set_preview(request: Request, model_id: str, picture: str) -> dict[str, Any]:
        who(request)
        found(model_id)["preview_url"] = f"/api/v1/models/{model_id}/preview?v={picture}"
        return found(model_id)
