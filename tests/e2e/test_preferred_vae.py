"""A checkpoint's preferred VAE over real HTTP with a real worker: it is the one that Automatic takes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from atelier.contract.models import ModelKind
from portal.services import audit
from portal.services.models import ModelFile
from tests.live_portal import SMALL, LivePortal


def drawn(live: LivePortal, **options: Any) -> tuple[bytes, str]:
    """(the picture, its infotext) of a small request under options."""
    body = SMALL | {"override_settings": options | {"enable_pnginfo": False}}
    answer = live.program().post("/sdapi/v1/txt2img", json=body)
    assert answer.status_code == 200, answer.text
    return base64.b64decode(answer.json()["images"][0]), json.loads(answer.json()["info"])["infotexts"][0]


def test_the_vae_of_a_models_notes_draws_its_pictures_and_stands_in_their_infotext(
    live: LivePortal, golden: Path
) -> None:
    vae = ModelFile(golden / "models" / "alt_vae.safetensors", ModelKind.VAE, link=True)
    live.services.work.models.register(audit.SYSTEM, vae)
    named, told = drawn(live, sd_vae="alt_vae.safetensors")
    inside, plain = drawn(live)
    assert named != inside and "VAE: alt_vae.safetensors" in told and "VAE" not in plain
    root = live.person("root")
    models = root.get("/api/v1/models?kind=checkpoint").json()
    place = next(f"/api/v1/models/{each['id']}" for each in models if each["standard"])
    root.patch(place, json={"vae": "alt_vae"}).raise_for_status()
    try:
        assert drawn(live) == (named, told)
        assert drawn(live, sd_vae="None") == (inside, plain)
        wins = {"sd_vae": "None", "sd_vae_overrides_per_model_preferences": False}
        assert drawn(live, **wins) == (named, told)
    finally:
        root.patch(place, json={"vae": ""}).raise_for_status()
    assert drawn(live) == (inside, plain)
