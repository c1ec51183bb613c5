"""A picture made with styles is the picture the peer made with them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.live_portal import LivePortal

TOLERANCE = 2
"""Of 255: what the peer itself differs by between two runs."""


def pixels(image: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")).astype(np.int64)


def test_the_peers_styles_in_a_request_give_the_peers_picture_and_infotext(
    live: LivePortal, golden: Path
) -> None:
    person = live.person("bob")
    recorded = json.loads((golden / "cases" / "pnginfo-styles.json").read_text())
    fields = recorded["info"]["parameters"]
    sent = person.post("/api/v1/styles/import", content=(golden / "styles.csv").read_bytes())
    assert sent.status_code == 200, sent.text
    try:
        request = {
            "prompt": fields["Prompt"],
            "negative_prompt": fields["Negative prompt"],
            "styles": fields["Styles array"],
            "steps": int(fields["Steps"]),
            "sampler_name": fields["Sampler"],
            "cfg_scale": float(fields["CFG scale"]),
            "seed": int(fields["Seed"]),
            "width": int(fields["Size-1"]),
            "height": int(fields["Size-2"]),
            "override_settings": {"randn_source": fields["RNG"]},
        }
        answer = live.program("bob").post("/sdapi/v1/txt2img", json=request)
        assert answer.status_code == 200, answer.text
        info = json.loads(answer.json()["info"])
        assert info["infotexts"][0].splitlines()[:2] == recorded["info"]["info"].splitlines()[:2]
        assert (info["styles"], info["atelier"]["ignored"]) == (["wrap", "plain"], [])
        off = pixels(answer.json()["images"][0]) - pixels(recorded["payload"]["image"])
        worst = int(np.abs(off).max())
        assert worst <= TOLERANCE, worst
    finally:
        for name in fields["Styles array"]:
            person.delete(f"/api/v1/styles/{name}")
