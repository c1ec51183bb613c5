"""The published asynchronous call, letter for letter, at a portal with a real worker."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from atelier.client import collect, invoke
from atelier.contract.errors import InvalidRequest
from atelier.contract.models import ModelKind
from portal.services import audit
from portal.services.models import ModelFile
from tests.live_portal import PASSWORD, LivePortal
from tests.published_requests import BODY, PAYLOAD
from tests.waiting import eventually

NAMED = "v1-5-pruned"
SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 5}


@pytest.fixture(scope="module")
def guide(
    live: LivePortal, checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> httpx.Client:
    """A program of somebody with a checkpoint of the published name, which nobody else sees."""
    user = live.services.identity.create(audit.SYSTEM, "guide", PASSWORD, "designer")
    path = tmp_path_factory.mktemp("published") / f"{NAMED}.ckpt"
    weights = load_file(checkpoints[0])
    first = sorted(weights)[0]
    torch.save({"state_dict": {**weights, first: weights[first] * 0.999}}, path)
    model = live.services.work.models.register(
        audit.SYSTEM, ModelFile(path, ModelKind.CHECKPOINT, owner_id=user.id)
    )
    assert (model.name, model.filename) == (NAMED, f"{NAMED}.ckpt")
    return live.program("guide")


def answered(client: httpx.Client, url: str) -> httpx.Response:
    """What a job of /inference is answered with once it is done."""

    def done() -> httpx.Response | None:
        answer = client.get(url)
        assert answer.status_code != 202 or float(answer.headers["Retry-After"]) >= 1
        return None if answer.status_code == 202 else answer

    found = eventually(done, within=180, every=0.05, about=f"{url} had no answer")
    assert found is not None
    return found


def test_the_published_curl_call_works_as_written(
    live: LivePortal, guide: httpx.Client, tmp_path: Path
) -> None:
    curl = shutil.which("curl")
    assert curl, "the published call is made with curl"
    # The sides are those of the small network; every other field is as published.
    body = {**BODY, "txt2img_payload": {**PAYLOAD, "width": 128, "height": 128}}
    (tmp_path / "inference.json").write_text(json.dumps(body, indent=2), encoding="utf-8")
    (tmp_path / "who").write_text(f'user = "guide:{PASSWORD}"\n', encoding="utf-8")
    call = ["curl", "-X", "POST", "-H", "Content-Type: application/json"]
    call += [f"{live.url}/inference?endpoint_name=local", "--data", "@./inference.json"]
    asked = ["-sS", "--noproxy", "*", "-K", "who", "-w", "\n%{http_code}"]
    said = subprocess.run([*call, *asked], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    told, status = said.rsplit("\n", 1)
    accepted = json.loads(told)
    assert status == "202", told
    assert accepted["endpoint"] == "local"
    assert accepted["status_url"] == f"{live.url}/inference/{accepted['job']}" == accepted["output_location"]
    answer = answered(guide, accepted["status_url"])
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["images", "parameters", "info"]
    picture = Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0])))
    assert picture.size == (128, 128)
    assert "Steps: 30, Sampler: Euler a" in picture.info["parameters"]
    assert f"Model: {NAMED}" in picture.info["parameters"]
    info = json.loads(answer.json()["info"])
    idle = {each["field"] for each in info["atelier"]["ignored"]}
    assert {"username", "denoising_strength", "restore_faces"} <= idle
    view = guide.get(f"/inference/{accepted['job']}")
    assert view.json() == answer.json(), "it stays what it is"


def test_a_plain_request_makes_the_pictures_of_all_its_prompts_in_order(guide: httpx.Client) -> None:
    body = {"prompt": ["a red circle", "a blue square"], "num_images_per_prompt": 2, "num_inference_steps": 2}
    body |= {"height": 64, "width": 64, "seed": 5, "username": "somebody"}
    accepted = guide.post("/inference", params={"endpoint_name": "local"}, json=body)
    assert accepted.status_code == 202, accepted.text
    answer = answered(guide, accepted.headers["Location"])
    files = [base64.b64decode(each) for each in answer.json()["generated_images"]]
    pictures = [Image.open(io.BytesIO(each)) for each in files]
    assert [(each.format, each.size) for each in pictures] == [("JPEG", (64, 64))] * 4
    texts = [each.getexif().get_ifd(0x8769)[0x9286].decode("utf-16-be", "ignore") for each in pictures]
    assert ["red" in text for text in texts] == [True, True, False, False]
    assert [f"Seed: {seed}" in text for seed, text in zip((5, 6, 7, 8), texts, strict=True)] == [True] * 4


def test_the_clients_own_call_waits_for_the_answer(live: LivePortal, guide: httpx.Client) -> None:
    made = guide.post("/api/v1/auth/token", json={"username": "guide", "password": PASSWORD})
    url, request = f"{live.url}/inference?endpoint_name=local", {"prompt": "a red circle", "height": 64}
    request |= {"width": 64, "num_inference_steps": 2}
    found = invoke(url, request, token=made.json()["access_token"], patience=180)
    assert [Image.open(io.BytesIO(each)).size for each in found.pictures] == [(64, 64)]
    elsewhere = {"OutputLocation": "https://elsewhere.example/inference/x"}
    with pytest.raises(InvalidRequest, match="Give `fetch`"):
        collect(elsewhere)


def test_a_job_that_fails_says_why_once_and_asking_again_changes_nothing(
    live: LivePortal, guide: httpx.Client
) -> None:
    body: dict[str, Any] = {**BODY, "txt2img_payload": {**PAYLOAD, **SMALL, "steps": 150, "n_iter": 8}}
    accepted = guide.post("/inference?endpoint_name=local", json=body).json()
    token = guide.post("/api/v1/auth/token", json={"username": "guide", "password": PASSWORD}).json()
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    cancelled = httpx.post(
        accepted["job_url"] + "/actions", json={"action": "cancel"}, headers=bearer, trust_env=False
    )
    assert cancelled.status_code == 200, cancelled.text
    answer = answered(guide, accepted["status_url"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (424, "job_failed")
    assert answer.json()["error"]["detail"]["error"]["code"] == "conflict"
    assert "Retry-After" not in answer.headers
    assert guide.get(accepted["status_url"]).json()["error"] == answer.json()["error"]
