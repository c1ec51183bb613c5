"""Infotexts over HTTP: out of the studio's own pictures, out of the peer's, and out of what means harm."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from atelier import infotext
from tests.live_portal import SMALL, LivePortal

STYLED = "pnginfo-styles"
"""The peer takes the styles out of this one; the studio of these tests has none."""


def told(client: httpx.Client, image: str) -> dict[str, Any]:
    answer = client.post("/sdapi/v1/png-info", json={"image": image})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def plain_file(name: str) -> str:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, name)
    return base64.b64encode(out.getvalue()).decode()


def test_the_recorded_pictures_are_read_like_the_peer_reads_them(live: LivePortal, golden: Path) -> None:
    compared = 0
    for file in sorted((golden / "cases").glob("pnginfo-*.json")):
        case = json.loads(file.read_text())
        answer = told(live.program(), case["payload"]["image"])
        if case["name"] == STYLED:
            assert (answer["info"], answer["items"]) == (case["info"]["info"], {})
        else:
            assert answer == case["info"], case["name"]
        compared += 1
    assert compared >= 5


def test_a_picture_of_the_studio_is_read_and_its_recipe_is_an_item(live: LivePortal) -> None:
    client = live.program()
    made = client.post("/sdapi/v1/txt2img", json={**SMALL, "prompt": "a circle, (red:1.2)"}).json()
    answer = told(client, "data:image/png;base64," + made["images"][0])
    assert answer["info"] == json.loads(made["info"])["infotexts"][0]
    assert answer["parameters"] == infotext.parse(answer["info"])
    assert set(answer["items"]) == {"atelier"}


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "AVIF", "GIF"])
def test_a_picture_without_metadata_says_nothing(live: LivePortal, name: str) -> None:
    answer = told(live.program(), plain_file(name))
    assert (answer["info"], answer["items"], answer["parameters"]["Prompt"]) == ("", {}, "")


@pytest.mark.parametrize("image", ["", "no base64!", "aGVsbG8=", "http://127.0.0.1:1/x.png"])
def test_what_is_no_picture_is_refused_in_the_peers_shape(live: LivePortal, image: str) -> None:
    answer = live.program().post("/sdapi/v1/png-info", json={"image": image})
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "detail", "body", "errors"}
    assert answer.json()["error"] == "HTTPException"
    assert "picture" in answer.json()["detail"] or "encoded image" in answer.json()["detail"]


def test_png_info_needs_a_login_and_takes_no_cookie(live: LivePortal) -> None:
    answer = httpx.post(
        f"{live.url}/sdapi/v1/png-info",
        json={"image": ""},
        headers={"cookie": "atelier_access=x"},
        trust_env=False,
    )
    assert answer.status_code == 401


def test_a_text_becomes_fields_and_overrides(live: LivePortal) -> None:
    text = (
        "a cat\nNegative prompt: a dog\nSteps: 5, Sampler: Euler, Seed: 7, Size: 64x96, Clip skip: 2, ENSD: x"
    )
    answer = live.person().post("/api/v1/infotext", json={"text": text})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["infotext"] == text
    assert body["parameters"]["Size-2"] == "96"
    assert {name: body["fields"][name] for name in ("prompt", "seed", "height", "enable_hr")} == {
        "prompt": "a cat",
        "seed": 7,
        "height": 96,
        "enable_hr": False,
    }
    assert body["overrides"] == {"CLIP_stop_at_last_layers": 2}
    assert body["ignored"] == [{"field": "infotext.ENSD", "reason": "'x' is no whole number"}]


def test_a_picture_becomes_fields_that_make_it_again(live: LivePortal) -> None:
    first = live.program().post("/sdapi/v1/txt2img", json=SMALL).json()
    made, info = first["images"][0], first["info"]
    read = live.person().post("/api/v1/infotext", json={"image": made}).json()
    request = read["fields"] | {"override_settings": read["overrides"]}
    again = live.program().post("/sdapi/v1/txt2img", json=request)
    assert again.status_code == 200, again.text
    one, other = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(each))), np.int16)
        for each in (made, again.json()["images"][0])
    )
    assert np.abs(one - other).max() <= 1  # others in a batch may move the last bit
    assert json.loads(again.json()["info"])["infotexts"] == json.loads(info)["infotexts"]


@pytest.mark.parametrize("body", [{}, {"text": "a", "image": "b"}, {"text": "x" * 1_000_001}, {"more": 1}])
def test_a_body_that_is_neither_text_nor_picture_is_refused(live: LivePortal, body: dict[str, str]) -> None:
    answer = live.person().post("/api/v1/infotext", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_request"


def test_a_browser_of_another_site_cannot_ask(live: LivePortal) -> None:
    answer = httpx.post(f"{live.url}/api/v1/infotext", json={"text": "a"}, trust_env=False)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(" * 200_000,
        "a" * 900_000,
        'aa:"' * 200_000,
        "x\nSteps: 9e999, Sampler: \ud7ff, Seed: " + "9" * 9_000 + ', Hires prompt: "\\ud800, ", Size: 0x0',
        "x\nSteps: 1, Seed: <script>alert(1)</script>, Model: ../../etc/passwd, VAE: ../x, Refiner: %00",
    ],
)
def test_hostile_texts_are_answered(live: LivePortal, text: str) -> None:
    answer = live.person().post("/api/v1/infotext", json={"text": text})
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json()["overrides"] == {}
