"""The peer's API over real HTTP with a real worker: its clients find what they know, and nothing is dropped
in silence.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from atelier.contract.generation import Txt2ImgPayload
from tests.live_portal import PASSWORD, SMALL, LivePortal
from tests.waiting import eventually

BASE: dict[str, Any] = {name: value for name, value in SMALL.items() if name != "sampler_name"}

OTHER_VALUES: dict[str, Any] = {
    "prompt": "a green square",
    "negative_prompt": "blurry",
    "styles": ["no such style"],
    "seed": 99,
    "subseed": 99,
    "subseed_strength": 0.5,
    "seed_resize_from_h": 128,
    "seed_resize_from_w": 128,
    "sampler_name": "Euler a",
    "scheduler": "Karras",
    "batch_size": 2,
    "n_iter": 2,
    "steps": 3,
    "cfg_scale": 3.0,
    "width": 128,
    "height": 128,
    "restore_faces": True,
    "tiling": True,
    "do_not_save_samples": True,
    "do_not_save_grid": True,
    "eta": 0.5,
    "denoising_strength": 0.5,
    "s_min_uncond": 1.0,
    "s_churn": 4.0,
    "s_tmax": 5.0,
    "s_tmin": 0.1,
    "s_noise": 0.9,
    "override_settings": {"CLIP_stop_at_last_layers": 3},
    "override_settings_restore_afterwards": False,
    "refiner_checkpoint": "oracle_b",
    "refiner_switch_at": 0.5,
    "disable_extra_networks": True,
    "firstpass_image": "aGVsbG8=",
    "comments": {"a": 1},
    "enable_hr": True,
    "firstphase_width": 64,
    "firstphase_height": 64,
    "hr_scale": 1.5,
    "hr_upscaler": "Latent",
    "hr_second_pass_steps": 3,
    "hr_resize_x": 128,
    "hr_resize_y": 128,
    "hr_checkpoint_name": "oracle_b",
    "hr_sampler_name": "Euler a",
    "hr_scheduler": "Karras",
    "hr_prompt": "a green square",
    "hr_negative_prompt": "blurry",
    "force_task_id": "task(mine)",
    "sampler_index": "Euler a",
    "script_name": "Prompt matrix",
    "script_args": [1],
    "send_images": False,
    "save_images": True,
    "alwayson_scripts": {"refiner": {"args": [True]}},
    "infotext": "a cat\nSteps: 3, Sampler: Euler, CFG scale: 3, Clip skip: 3",
}
PEERS_INFO_KEYS = [
    "prompt",
    "all_prompts",
    "negative_prompt",
    "all_negative_prompts",
    "seed",
    "all_seeds",
    "subseed",
    "all_subseeds",
    "subseed_strength",
    "width",
    "height",
    "sampler_name",
    "cfg_scale",
    "steps",
    "batch_size",
    "restore_faces",
    "face_restoration_model",
    "sd_model_name",
    "sd_model_hash",
    "sd_vae_name",
    "sd_vae_hash",
    "seed_resize_from_w",
    "seed_resize_from_h",
    "denoising_strength",
    "extra_generation_params",
    "index_of_first_image",
    "infotexts",
    "styles",
    "job_timestamp",
    "clip_skip",
    "is_using_inpainting_conditioning",
    "version",
]


def generate(live: LivePortal, **payload: Any) -> dict[str, Any]:
    answer = live.program().post("/sdapi/v1/txt2img", json={**BASE, **payload})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.fixture(scope="module")
def baseline(live: LivePortal) -> dict[str, Any]:
    return generate(live)


def test_the_answer_has_the_pictures_the_whole_request_and_the_peers_info(live: LivePortal) -> None:
    answer = generate(live, batch_size=2, n_iter=2)
    assert set(answer) == {"images", "parameters", "info"}
    assert len(answer["images"]) == 4
    image = Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))
    info = json.loads(answer["info"])
    assert image.text["parameters"] == info["infotexts"][0]  # type: ignore[attr-defined]
    assert [*info][: len(PEERS_INFO_KEYS)] == PEERS_INFO_KEYS
    assert info["all_seeds"] == [1234, 1235, 1236, 1237]
    assert list(answer["parameters"]) == list(Txt2ImgPayload.model_fields)
    assert answer["parameters"]["batch_size"] == 2 and answer["parameters"]["sampler_index"] == "Euler"


def test_the_table_of_other_values_names_all_55_fields() -> None:
    assert list(OTHER_VALUES) == list(Txt2ImgPayload.model_fields)
    assert len(OTHER_VALUES) == 55


@pytest.mark.parametrize("field", list(OTHER_VALUES))
def test_every_field_changes_the_picture_or_the_infotext_or_is_named_as_ignored(
    live: LivePortal, baseline: dict[str, Any], field: str
) -> None:
    answer = generate(live, **{field: OTHER_VALUES[field]})
    info, before = json.loads(answer["info"]), json.loads(baseline["info"])
    ignored = {each["field"].split(".")[0]: each["reason"] for each in info["atelier"]["ignored"]}
    changed = answer["images"] != baseline["images"] or info["infotexts"] != before["infotexts"]
    assert changed or ignored.get(field)
    assert answer["parameters"][field] == OTHER_VALUES[field]


@pytest.mark.parametrize("name", ["samplers", "schedulers"])
def test_lists_of_names_are_the_peers(live: LivePortal, golden: Path, name: str) -> None:
    assert live.program().get(f"/sdapi/v1/{name}").json() == json.loads(
        (golden / "lists" / f"{name}.json").read_text()
    )


def test_checkpoints_are_listed_as_the_peer_does(live: LivePortal, golden: Path) -> None:
    assert live.program().get("/sdapi/v1/sd-models").json() == json.loads(
        (golden / "lists" / "sd-models.json").read_text()
    )


def test_options_are_the_peers_defaults_with_what_is_really_in_force(live: LivePortal, golden: Path) -> None:
    defaults = json.loads((golden / "lists" / "options_fresh_defaults.json").read_text())
    options = live.program().get("/sdapi/v1/options").json()
    assert len(defaults) == 329 and set(defaults) <= set(options)
    assert options["sd_model_checkpoint"].startswith("oracle.safetensors [")
    other = {name for name in defaults if options[name] != defaults[name]}
    # The peer's explanations are its own texts, not settings.
    assert other - {"sd_model_checkpoint", "sd_checkpoint_hash"} == {
        name for name in defaults if name.endswith("_explanation")
    }


def test_progress_is_the_peers_zeros_when_nothing_of_ones_own_runs(live: LivePortal, golden: Path) -> None:
    assert live.program("bob").get("/sdapi/v1/progress").json() == json.loads(
        (golden / "lists" / "progress.json").read_text()
    )


def test_progress_tells_of_the_callers_own_work_and_of_nobody_elses(live: LivePortal) -> None:
    ann = live.person()
    job_id = live.submit(ann, steps=150, width=128, height=128)

    def moving() -> Any:
        said = live.program("ann").get("/sdapi/v1/progress").json()
        return said if said["progress"] > 0 and said["current_image"] else None

    seen = eventually(moving, within=30, every=0.1)
    assert seen["state"]["job"] == job_id and seen["state"]["sampling_steps"] == 150
    assert 0 < seen["progress"] < 1
    assert (
        live.program("ann").get("/sdapi/v1/progress?skip_current_image=true").json()["current_image"] is None
    )
    assert live.program("bob").get("/sdapi/v1/progress").json()["state"]["job"] == ""
    ann.post(f"/api/v1/jobs/{job_id}/actions", json={"action": "cancel"})


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        ({"script_name": "nope"}, "Script 'nope' not found"),
        ({"alwayson_scripts": {"nope": {}}}, "Script 'nope' not found"),
        ({"sampler_name": "nope"}, "There is no sampler named 'nope'"),
        ({"scheduler": "Karas"}, "Did you mean 'Karras'?"),
        ({"override_settings": {"sd_model_checkpoint": "orackle"}}, "There is no checkpoint named 'orackle'"),
        ({"override_settings": {"no_such_option": 1}}, "There is no option named"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_mistakes_are_told_in_the_peers_shape(live: LivePortal, payload: dict[str, Any], detail: str) -> None:
    answer = live.program().post("/sdapi/v1/txt2img", json={**BASE, **payload})
    assert answer.status_code == 422
    body = answer.json()
    assert set(body) == {"error", "detail", "body", "errors"}
    assert body["error"] == "HTTPException" and detail in body["detail"]


def test_a_field_of_the_wrong_type_is_told_as_fastapi_does(live: LivePortal) -> None:
    answer = live.program().post("/sdapi/v1/txt2img", json={**BASE, "width": "wide"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "width"]


def test_a_wrong_password_and_a_cookie_are_no_credentials_here(live: LivePortal) -> None:
    wrong = httpx.get(f"{live.url}/sdapi/v1/samplers", auth=("nobody", PASSWORD), trust_env=False)
    assert wrong.status_code == 401
    assert wrong.json() == {
        "error": "HTTPException",
        "detail": "Incorrect username or password",
        "body": "",
        "errors": "",
    }


def test_null_fields_mean_their_defaults(live: LivePortal) -> None:
    nulls = dict.fromkeys(set(Txt2ImgPayload.model_fields) - {"prompt", "steps", "width", "height"})
    answer = generate(live, **nulls)
    assert json.loads(answer["info"])["sampler_name"] == "Euler"


def test_a_client_that_goes_away_leaves_its_job_running_to_its_end(live: LivePortal) -> None:
    known = {job["id"] for job in live.person().get("/api/v1/jobs").json()["jobs"]}
    started = threading.Event()

    def leave() -> None:
        with httpx.Client(base_url=live.url, auth=("ann", PASSWORD), trust_env=False, timeout=1.0) as client:
            started.set()
            with pytest.raises(httpx.ReadTimeout):
                client.post("/sdapi/v1/txt2img", json={**BASE, "steps": 100})

    leave()
    assert started.is_set()
    [job_id] = {job["id"] for job in live.person().get("/api/v1/jobs").json()["jobs"]} - known
    assert len(live.finished(live.person(), job_id).pictures) == 1


@pytest.mark.parametrize(
    "payload",
    [
        {"prompt": "\ud800"},
        {"styles": ["\ud800"]},
        {"override_settings": {"\ud800": 1}},
        {"script_name": "\ud800"},
        {"script_name": "x/y/z plot", "script_args": {"x_type": "Steps", "x_values": "1-10 [0]"}},
        {"enable_hr": True, "denoising_strength": 1e-300},
        {"eta": -1e300, "sampler_name": "DPM++ SDE"},
        {"override_settings": {"sigma_max": 1e300}, "sampler_name": "DPM++ 2M SDE"},
        {"override_settings": {"grid_background_color": "x"}, "batch_size": 2, "save_images": True},
    ],
)
def test_hostile_values_are_refused_with_a_sentence(live: LivePortal, payload: dict[str, Any]) -> None:
    body = json.dumps({**BASE, **payload})
    answer = live.program().post(
        "/sdapi/v1/txt2img", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422, answer.text


def test_a_picture_beyond_all_numbers_is_an_error_and_no_black_file(live: LivePortal) -> None:
    answer = live.program().post("/sdapi/v1/txt2img", json={**BASE, "prompt": f"(a:{'9' * 400})"})
    assert answer.status_code == 422 and "beyond all bounds" in answer.text


def test_a_cell_that_fails_is_told_of_with_the_others(live: LivePortal) -> None:
    args = {
        "x_type": "CFG Scale",
        "x_values": "5,6",
        "y_type": "Prompt S/R",
        "y_values": f"red,(red:{'9' * 400})",
    }
    answer = generate(live, prompt="a red circle", script_name="x/y/z plot", script_args=args)
    assert any("Not every picture" in said for said in json.loads(answer["info"])["atelier"]["warnings"])
