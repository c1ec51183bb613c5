"""Two users with settings that differ in everything, generating at once on one worker: each picture and each
infotext is its owner's.
"""

from __future__ import annotations

import base64
import io
import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.live_portal import LivePortal

SIZE = {"width": 64, "height": 64, "cfg_scale": 5}
SETTINGS: dict[str, dict[str, Any]] = {
    "ann": {
        "sd_model_checkpoint": "oracle_b",
        "sd_vae": "None",
        "CLIP_stop_at_last_layers": 2,
        "eta_noise_seed_delta": 31337,
        "randn_source": "CPU",
        "eta_ancestral": 0.5,
    },
    "bob": {
        "sd_model_checkpoint": "oracle",
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "randn_source": "NV",
        "s_churn": 4.0,
    },
}
STYLES = {"ann": ("in ink", "a drawing in ink of {prompt}"), "bob": ("in oil", "{prompt}, thick oil paint")}
SAID = {"ann": ("Model: oracle_b", "Clip skip: 2", "RNG: CPU"), "bob": ("RNG: NV",)}
NEVER = {
    "ann": ("Model: oracle,", "RNG: NV", "thick oil"),
    "bob": ("oracle_b", "Clip skip", "ENSD", "in ink"),
}
SAMPLERS = {"ann": ("Euler a", "DPM++ 2M"), "bob": ("Euler", "DPM++ 2M")}


@pytest.fixture
def two(live: LivePortal) -> Iterator[dict[str, httpx.Client]]:
    """Ann and Bob with settings and a style of their own, which are gone again afterwards."""
    clients = {name: live.program(name) for name in SETTINGS}
    for name, client in clients.items():
        client.post("/sdapi/v1/options", json=SETTINGS[name]).raise_for_status()
        style, prompt = STYLES[name]
        body = {"prompt": prompt, "negative_prompt": ""}
        live.person(name).put(f"/api/v1/styles/{style}", json=body).raise_for_status()
    yield clients
    for name, client in clients.items():
        client.post("/sdapi/v1/options", json=dict.fromkeys(SETTINGS[name])).raise_for_status()
        live.person(name).delete(f"/api/v1/styles/{STYLES[name][0]}").raise_for_status()


def asked(name: str, number: int) -> dict[str, Any]:
    """The request that a user sends in a round: four kinds of them, by turns."""
    kind = number % 4
    more = {"seed": 50 + kind, "steps": 2 + kind % 3, "sampler_name": SAMPLERS[name][kind % 2]}
    return {**SIZE, **more, "prompt": "a red circle", "styles": [STYLES[name][0]]}


def drawn(client: httpx.Client, body: dict[str, Any]) -> tuple[np.ndarray, str]:
    """(the picture's pixels of 0 to 255 in height x width x 3, its infotext)."""
    answer = client.post("/sdapi/v1/txt2img", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    with Image.open(io.BytesIO(base64.b64decode(told["images"][0]))) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.int16)
    return pixels, str(json.loads(told["info"])["infotexts"][0])


def difference(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of a value between two pictures, of 255."""
    return int(np.abs(one - other).max())


@pytest.mark.parametrize("rounds", [16, pytest.param(200, marks=pytest.mark.long)])
def test_two_users_with_other_settings_at_once_have_each_their_own_pictures_and_infotexts(
    two: dict[str, httpx.Client], rounds: int
) -> None:
    alone = {
        (name, kind): drawn(client, asked(name, kind)) for name, client in two.items() for kind in range(4)
    }
    others = [
        difference(one, another) for one, another in combinations([each for each, _ in alone.values()], 2)
    ]
    work = [(name, number) for name in two for number in range(rounds)]
    random.Random(5).shuffle(work)  # noqa: S311 - an order, the same at every run
    begin = threading.Barrier(8)

    def carry_out(share: list[tuple[str, int]]) -> list[tuple[str, int, tuple[np.ndarray, str]]]:
        begin.wait()
        return [(name, number, drawn(two[name], asked(name, number))) for name, number in share]

    with ThreadPoolExecutor(8) as pool:
        shares = list(pool.map(carry_out, [work[first::8] for first in range(8)]))
    found = [each for share in shares for each in share]
    assert len(found) == 2 * rounds
    worst = 0
    for name, number, (pixels, infotext) in found:
        mine, text = alone[name, number % 4]
        worst = max(worst, difference(pixels, mine))
        assert infotext == text, f"{name}'s request {number}"
        assert all(said in infotext for said in SAID[name]), infotext
        assert not any(other in infotext for other in NEVER[name]), infotext
    assert worst <= 1 < min(others), "batched with others, a value may round the other way"
