"""LoRAs over real HTTP with a real worker: plotted by search and replace, and pasted under another name."""

from __future__ import annotations

import base64
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atelier.contract.models import ModelKind
from portal.services import audit
from portal.services.models import ModelFile
from tests.live_portal import SMALL, LivePortal


@pytest.fixture
def studio(live: LivePortal, golden: Path) -> LivePortal:
    """The live portal with two LoRAs."""
    for name in ("lora_a", "locon_b"):
        path = golden / "models" / f"{name}.safetensors"
        live.services.work.models.register(audit.SYSTEM, ModelFile(path, ModelKind.LORA, link=True))
    return live


def drawn(live: LivePortal, **payload: Any) -> tuple[list[Image.Image], dict[str, Any]]:
    """(the pictures of the answer, its info)."""
    answer = live.program().post("/sdapi/v1/txt2img", json={**SMALL, **payload})
    assert answer.status_code == 200, answer.text
    files = [io.BytesIO(base64.b64decode(each)) for each in answer.json()["images"]]
    return [Image.open(file).convert("RGB") for file in files], json.loads(answer.json()["info"])


def apart(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of a channel of a pixel, in levels."""
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())


def test_search_and_replace_plots_the_weights_of_a_lora_and_a_lora_against_another(
    studio: LivePortal,
) -> None:
    values = ["<lora:lora_a:0>", "<lora:lora_a:0.5>", "<lora:lora_a:1:0.25>", "<lora:locon_b:1>", "blurred"]
    plot = {
        "x_type": "Prompt S/R",
        "x_values": ", ".join(values),
        "draw_legend": False,
        "include_lone_images": True,
    }
    pictures, info = drawn(studio, prompt=f"a circle {values[0]}", script_name="x/y/z plot", script_args=plot)
    grid, *cells = pictures
    assert (grid.size, len(cells)) == ((64 * len(values), 64), len(values))
    alone = [drawn(studio, prompt=f"a circle {value}") for value in values]
    for number, (cell, ([single], told)) in enumerate(zip(cells, alone, strict=True)):
        assert apart(cell, single) <= 1  # others in the batch move the last bits
        assert grid.crop((64 * number, 0, 64 * number + 64, 64)).tobytes() == cell.tobytes()
        assert info["infotexts"][1 + number] == told["infotexts"][0]
    assert min(apart(one, other) for one, other in itertools.combinations(cells, 2)) > 8
    texts = info["infotexts"][1:]
    assert [values[number] in text.split("\n")[0] for number, text in enumerate(texts)] == [True] * 5
    hashes = ["lora_a: " in text and "locon_b: " not in text for text in texts]
    assert hashes == [True, True, True, False, False]
    assert 'Lora hashes: "locon_b: ' in texts[3] and "Lora hashes" not in texts[4]
    assert "X Type: Prompt S/R" in info["infotexts"][0] and values[2] in info["infotexts"][0]
    assert info["atelier"]["warnings"] == []


def test_a_lora_named_beside_the_prompt_makes_the_picture_of_its_tag(studio: LivePortal) -> None:
    member = {"lora": {"args": [{"name": "lora_a", "te": 0.5, "unet": 0.9}]}}
    [beside], told = drawn(studio, prompt="a circle", alwayson_scripts=member)
    [tagged], info = drawn(studio, prompt="a circle <lora:lora_a:0.5:0.9>")
    [plain], _ = drawn(studio, prompt="a circle")
    assert apart(beside, tagged) <= 1 and apart(beside, plain) > 8
    assert told["infotexts"] == info["infotexts"]
    assert told["atelier"]["ignored"] == []
    member["lora"]["args"][0]["name"] = "lora_x"
    refused = studio.program().post("/sdapi/v1/txt2img", json={**SMALL, "alwayson_scripts": member})
    assert refused.status_code == 422 and "no LoRA named 'lora_x'" in refused.text


def test_a_picture_pastes_into_the_same_picture_after_its_lora_was_renamed(studio: LivePortal) -> None:
    root = studio.person("root")
    prompt = "a circle <lora:lora_a:0.8>"
    before, info = drawn(studio, prompt=prompt)
    text = info["infotexts"][0]
    models = root.get("/api/v1/models?kind=lora").json()
    place = next(f"/api/v1/models/{each['id']}" for each in models if each["filename"].startswith("lora_a"))
    # the file itself goes by another name: nothing but its hash says that it is the one
    other = next(each for each in models if each["filename"].startswith("locon_b"))
    told = text.replace("lora_a", "of another studio")
    pasted = studio.person().post("/api/v1/infotext", json={"text": told}).json()
    assert pasted["fields"]["prompt"] == prompt and pasted["ignored"] == []
    root.patch(place, json={"name": "circles"}).raise_for_status()
    try:
        again, renamed = drawn(studio, prompt="", negative_prompt="", infotext=told)
        assert renamed["prompt"] == ""  # what a request sets itself wins, also when it is empty
        body = {name: SMALL[name] for name in ("width", "height")} | {"infotext": told}
        answer = studio.program().post("/sdapi/v1/txt2img", json=body).json()
        [picture] = [Image.open(io.BytesIO(base64.b64decode(each))) for each in answer["images"]]
        assert apart(picture.convert("RGB"), before[0]) <= 1 < apart(again[0], before[0])
        assert json.loads(answer["info"])["prompt"] == "a circle <lora:circles:0.8>"
        swapped = text.replace("lora_a:0.8", f"{other['name']}:0.8").replace("lora_a: ", f"{other['name']}: ")
        named = studio.person().post("/api/v1/infotext", json={"text": swapped}).json()
        assert named["fields"]["prompt"] == "a circle <lora:circles:0.8>", "the hash counts, not the name"
    finally:
        root.patch(place, json={"name": "lora_a"}).raise_for_status()
