"""POST /sdapi/v1/options over HTTP: what a user sets holds for that user's pictures and nobody else's."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.live_portal import SMALL, LivePortal

BASE = {name: value for name, value in SMALL.items() if name != "sampler_name"}


@pytest.fixture
def two(live: LivePortal) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Ann and Bob with the options of newcomers, before and after."""
    clients = live.program("ann"), live.program("bob")
    yield clients
    for client in clients:
        mine = client.get("/sdapi/v1/options").json()
        client.post("/sdapi/v1/options", json=dict.fromkeys(mine)).raise_for_status()


def drawn(client: httpx.Client, **more: Any) -> tuple[dict[str, Any], bytes]:
    """(info, the picture's file) of a small request."""
    answer = client.post("/sdapi/v1/txt2img", json=BASE | more)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return json.loads(body["info"]), base64.b64decode(body["images"][0])


def test_options_are_each_users_own_and_take_part_in_their_pictures_alone(
    live: LivePortal, two: tuple[httpx.Client, httpx.Client]
) -> None:
    ann, bob = two
    before = bob.get("/sdapi/v1/options").json()
    other = next(
        each["title"] for each in ann.get("/sdapi/v1/sd-models").json() if each["model_name"] == "oracle_b"
    )
    mine = {
        "sd_model_checkpoint": "oracle_b",
        "CLIP_stop_at_last_layers": 2,
        "eta_noise_seed_delta": 31337,
        "randn_source": "CPU",
        "sd_vae": "None",
        "samples_format": "webp",
    }
    answer = ann.post("/sdapi/v1/options", json=mine)
    assert (answer.status_code, answer.json()) == (200, None)
    assert bob.post("/sdapi/v1/options", json={"randn_source": "NV"}).json() is None
    shown = ann.get("/sdapi/v1/options").json()
    assert {name: shown[name] for name in mine} == mine | {"sd_model_checkpoint": other}
    assert shown["sd_checkpoint_hash"].startswith(other.split("[")[1][:10])
    assert bob.get("/sdapi/v1/options").json() == before | {"randn_source": "NV"}
    info, picture = drawn(ann, sampler_name="Euler a")
    assert (info["sd_model_name"], info["clip_skip"]) == ("oracle_b", 2)
    assert "ENSD: 31337" in info["infotexts"][0] and "RNG: CPU" in info["infotexts"][0]
    assert picture[8:12] == b"WEBP"
    theirs, png = drawn(bob, sampler_name="Euler a")
    assert (theirs["sd_model_name"], theirs["clip_skip"]) == ("oracle", 1)
    assert "ENSD" not in theirs["infotexts"][0] and png.startswith(b"\x89PNG")
    asked, _ = drawn(ann, override_settings={"CLIP_stop_at_last_layers": 1, "sd_model_checkpoint": "oracle"})
    assert (asked["sd_model_name"], asked["clip_skip"]) == ("oracle", 1)
    trail = live.person("root").get("/api/v1/audit?action=settings.change").json()
    newest = trail["entries"][0] if isinstance(trail, dict) else trail[0]
    assert newest["actor_name"] == "bob" and newest["details"] == {"options": ["randn_source"]}


def test_a_whole_set_of_options_read_changed_and_sent_back_stores_the_change_alone(
    two: tuple[httpx.Client, httpx.Client], live: LivePortal
) -> None:
    ann, _ = two
    everything = ann.get("/sdapi/v1/options").json()
    answer = ann.post("/sdapi/v1/options", json=everything | {"CLIP_stop_at_last_layers": 2})
    assert (answer.status_code, answer.json()) == (200, None)
    assert live.person("ann").get("/api/v1/me").json()["settings"] == {"CLIP_stop_at_last_layers": 2}
    ann.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 1, "rho": 5})
    assert live.person("ann").get("/api/v1/me").json()["settings"] == {"rho": 5.0}
    ann.post("/sdapi/v1/options", json={"rho": None})
    assert live.person("ann").get("/api/v1/me").json()["settings"] == {}


def test_what_is_not_served_is_reported_and_not_stored(two: tuple[httpx.Client, httpx.Client]) -> None:
    ann, _ = two
    sent = {"outdir_samples": "/etc", "api_enable_requests": False, "s_churn": 3}
    answer = ann.post("/sdapi/v1/options", json=sent)
    assert answer.status_code == 200
    ignored = {each["field"]: each["reason"] for each in answer.json()["atelier"]["ignored"]}
    assert sorted(ignored) == ["api_enable_requests", "outdir_samples"]
    assert "nothing was stored" in ignored["outdir_samples"]
    shown = ann.get("/sdapi/v1/options").json()
    assert (shown["outdir_samples"], shown["api_enable_requests"], shown["s_churn"]) == ("", True, 3.0)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CLIP_stop_at_last_layer", 2, "CLIP_stop_at_last_layers"),
        ("CLIP_stop_at_last_layers", 0, "greater than or equal to 1"),
        ("CLIP_stop_at_last_layers", "two", "'two' is not a whole number"),
        ("CLIP_stop_at_last_layers", True, "not a whole number"),
        ("sd_model_checkpoint", "orakle", "'oracle.safetensors ["),
        ("sd_vae", "nothing.pt", "There is no VAE named 'nothing.pt'"),
        ("sd_lora", "nobody", "There is no LoRA named"),
        ("samples_format", "gif", "png, jpg, webp or avif"),
        ("grid_background_color", "white", "pattern"),
        ("hires_fix_refiner_pass", "third", "first pass, second pass, both passes"),
        ("infotext_styles", "Perhaps", "Apply if any"),
        ("infotext_skip_pasting", "Size", "a list of texts"),
        ("sd_noise_schedule", "Karras", "Zero Terminal SNR"),
        ("emphasis", "Loud", "No norm"),
        ("tiling", "yes", "true or false"),
        ("eta_ancestral", "much", "not a number"),
    ],
)
def test_a_bad_value_refuses_everything_and_names_its_option(
    two: tuple[httpx.Client, httpx.Client], name: str, value: Any, said: str
) -> None:
    ann, _ = two
    answer = ann.post("/sdapi/v1/options", json={"s_churn": 5.0, name: value})
    body = answer.json()
    assert answer.status_code == 422, answer.text
    assert set(body) == {"error", "detail", "body", "errors"}
    assert name in body["detail"] and said in body["detail"]
    assert ann.get("/sdapi/v1/options").json()["s_churn"] == 0.0


def test_options_need_a_login_and_an_object(live: LivePortal, two: tuple[httpx.Client, httpx.Client]) -> None:
    url = f"{live.url}/sdapi/v1/options"
    assert httpx.post(url, json={"s_churn": 1.0}, trust_env=False).status_code == 401
    assert two[0].post("/sdapi/v1/options", json=["s_churn"]).status_code == 422
    assert two[0].post("/sdapi/v1/options", content=b'{"rho": NaN}').status_code == 422
