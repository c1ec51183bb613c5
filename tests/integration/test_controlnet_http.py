"""ControlNet over HTTP without a worker: lists, uploads, maps of preprocessors, and what a job holds."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from starlette.testclient import TestClient

from atelier.contract import keys
from atelier.contract.control import Preprocessing
from atelier.contract.models import ModelKind
from atelier.contract.parts import ResolvedPart
from portal.app import create_app
from portal.db.work import Job
from portal.services import audit
from portal.services.models import ModelFile
from tests.control_files import control_twin, save_control, save_detector
from tests.jobs_studio import PAYLOAD, Studio
from tests.narrow import twin
from workers.tasks import detection
from workers.tasks.detection import Detection

PASSWORD = "a long enough password"
ANN = ("ann", PASSWORD)


def picture(side: int = 64) -> bytes:
    """A PNG: a white square on black."""
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[side // 4 : side // 2, side // 4 : side // 2] = 255
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Studio, TestClient]]:
    """A portal with ann and bob, a ControlNet and an edge detector."""
    place = tmp_path_factory.mktemp("controlnet")
    studio = Studio(f"sqlite:///{place / 'atelier.db'}", place)
    for name in ("ann", "bob"):
        studio.services.identity.create(audit.SYSTEM, name, PASSWORD, "designer")
    canny = save_control(control_twin(twin("sd1")), place / "control_tiny_canny.safetensors")
    register = studio.work.models.register
    register(audit.SYSTEM, ModelFile(canny, ModelKind.CONTROLNET))
    register(
        audit.SYSTEM,
        ModelFile(save_detector(place / "ControlNetHED.safetensors"), ModelKind.ANNOTATOR),
    )
    with TestClient(create_app(studio.services), base_url="http://127.0.0.1:8000") as client:
        yield studio, client
    studio.close()


def bearer(client: TestClient, name: str) -> dict[str, str]:
    login = client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD}).json()
    return {"Authorization": f"Bearer {login['access_token']}", "Sec-Fetch-Site": "same-origin"}


def asked(**unit: Any) -> dict[str, Any]:
    given = {"enabled": True, "module": "canny", "model": "control_tiny_canny"} | unit
    return {"txt2img_payload": PAYLOAD | {"alwayson_scripts": {"ControlNet": {"args": [given]}}}}


def test_lists_have_the_peers_forms(portal: tuple[Studio, TestClient]) -> None:
    studio, client = portal
    [model] = [each for each in studio.work.models.catalogue().models if each.kind is ModelKind.CONTROLNET]

    def got(path: str) -> Any:
        answer = client.get(f"/controlnet/{path}", auth=ANN)
        assert answer.status_code == 200, answer.text
        return answer.json()

    title = f"control_tiny_canny [{model.legacy_hash}]"
    assert got("version") == {"version": 3}
    assert got("settings") == {"control_net_unit_count": 3}
    assert got("model_list?update=false") == {"model_list": [title]}
    modules = got("module_list")
    assert {"none", "canny", "scribble_hed", "tile_resample"} <= set(modules["module_list"])
    assert modules["module_detail"]["canny"]["sliders"][1] == {
        "name": "Low Threshold", "value": 100, "min": 1, "max": 255, "step": 1.0,
    }  # fmt: skip
    assert "softedge_hed" in got("module_list?alias_names=true")["module_list"]
    types = got("control_types")["control_types"]
    assert types["Canny"] == {
        "module_list": ["none", "invert", "canny"],
        "model_list": ["None", title],
        "default_option": "canny",
        "default_model": title,
    }
    assert types["Depth"]["model_list"] == ["None"]
    assert client.get("/controlnet/version").status_code == 401


def test_maps_are_made_by_a_task_and_bad_requests_refused_in_words(portal: tuple[Studio, TestClient]) -> None:
    _, client = portal

    def made(**body: Any) -> Any:
        return client.post("/controlnet/detect", json=body, auth=ANN)

    answer = made(controlnet_module="canny", controlnet_images=[text(picture())], controlnet_processor_res=64)
    assert answer.status_code == 200, answer.text
    assert answer.json()["info"] == "Success"
    [found] = answer.json()["images"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found))))
    assert pixels.shape == (64, 64, 3) and set(np.unique(pixels)) == {0, 255}
    refused = {
        "unknown": made(controlnet_module="cany", controlnet_input_images=["x"]),
        "none": made(controlnet_module="canny"),
        "masks": made(controlnet_module="inpaint", controlnet_input_images=[text(picture())]),
        "damaged": made(controlnet_module="canny", controlnet_input_images=[text(b"no picture")]),
        "address": made(controlnet_module="canny", controlnet_input_images=["http://127.0.0.1/x.png"]),
    }
    assert {name: each.status_code for name, each in refused.items()} == dict.fromkeys(refused, 422)
    assert "Did you mean 'canny'" in refused["unknown"].json()["detail"]


@pytest.mark.parametrize("sides", [(2000, 1), (1, 33)])
def test_a_picture_far_longer_than_broad_does_not_come_in(
    portal: tuple[Studio, TestClient], sides: tuple[int, int]
) -> None:
    _, client = portal
    out = io.BytesIO()
    Image.new("RGB", sides).save(out, "PNG")
    ann, data = bearer(client, "ann"), out.getvalue()
    refused = [
        client.post("/api/v1/assets", content=data, headers=ann),
        client.post("/api/v1/jobs", json=asked(image=text(data)), headers=ann),
        client.post("/controlnet/detect", json={"controlnet_images": [text(data)]}, auth=ANN),
    ]
    assert [each.status_code for each in refused] == [422] * 3
    assert all("32 times the shorter one" in each.text for each in refused)


def test_a_map_that_needs_a_network_is_made_with_its_registered_file(
    portal: tuple[Studio, TestClient], tmp_path: Path
) -> None:
    studio, _ = portal
    models = studio.work.models.catalogue().models
    [annotator] = [each for each in models if each.kind is ModelKind.ANNOTATOR]
    how = Preprocessing(module="scribble_hed", resolution=64, annotator=annotator)
    studio.store.put(keys.asset("x-picture"), picture())
    document = Detection(how=how, image="x-picture").model_dump_json().encode()
    detection.detect(document, tmp_path / "map", studio.store, tmp_path)
    with Image.open(tmp_path / "map") as made:
        assert made.size == (64, 64)


def test_an_upload_is_its_owners_and_once_in_the_store(portal: tuple[Studio, TestClient]) -> None:
    studio, client = portal
    ann, bob = bearer(client, "ann"), bearer(client, "bob")
    first, again = (client.post("/api/v1/assets", content=picture(), headers=ann) for _ in range(2))
    assert first.status_code == 201, first.text
    assert first.json() == again.json()
    assert (first.json()["width"], first.json()["media_type"]) == (64, "image/png")
    name = first.json()["id"]
    assert studio.store.stat(keys.asset(name)) is not None
    shown = client.get(f"/api/v1/assets/{name}", headers=ann)
    assert shown.content == picture()
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"/api/v1/assets/{name}", headers=bob).status_code == 404
    assert client.get("/api/v1/assets/nothing", headers=ann).status_code == 404
    assert client.post("/api/v1/jobs", json=asked(image=name), headers=ann).status_code == 202
    refused = client.post("/api/v1/jobs", json=asked(image=name), headers=bob)
    assert refused.status_code == 422
    assert "upload it again" in refused.json()["error"]["message"]
    assert client.post("/api/v1/assets", content=b"<svg/>", headers=ann).status_code == 422


def test_a_preview_is_a_picture_of_ones_own_asset(portal: tuple[Studio, TestClient]) -> None:
    _, client = portal
    ann = bearer(client, "ann")
    name = client.post("/api/v1/assets", content=picture(), headers=ann).json()["id"]
    body = {"module": "threshold", "image": name, "processor_res": 64}
    answer = client.post("/api/v1/controlnet/preview", json=body, headers=ann)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (64, 64)


def test_a_job_holds_ids_of_its_pictures_and_no_picture(portal: tuple[Studio, TestClient]) -> None:
    studio, client = portal
    ann = bearer(client, "ann")
    data = picture(96)
    unit = {"image": {"image": f"data:image/png;base64,{text(data)}", "mask": text(picture())}}
    answer = client.post("/api/v1/jobs", json=asked(**unit), headers=ann)
    assert answer.status_code == 202, answer.text
    [part] = studio.parts(answer.json()["id"])
    resolved = ResolvedPart.model_validate(part.resolved)
    assert resolved.control[0].model is not None and resolved.control[0].mask is not None
    assert studio.store.get(keys.asset(resolved.control[0].image)) == data
    with studio.database.reading() as session:
        job = session.scalars(select(Job).where(Job.id == answer.json()["id"])).one()
        stored = str(job.request)
    assert text(data)[:80] not in stored + str(part.resolved)
    assert resolved.control[0].image in stored


def test_several_units_keep_their_numbers_and_those_that_are_off_their_silence(
    portal: tuple[Studio, TestClient],
) -> None:
    studio, client = portal
    ann = bearer(client, "ann")
    on = {"enabled": True, "model": "control_tiny_canny", "image": text(picture())}
    units = [{"enabled": False, "image": "http://nowhere"}, on | {"module": "invert"}, on | {"weight": 0.5}]
    payload = PAYLOAD | {"alwayson_scripts": {"controlnet": {"args": units}}, "n_iter": 2}
    answer = client.post("/api/v1/jobs", json={"txt2img_payload": payload}, headers=ann)
    assert answer.status_code == 202, answer.text
    first, second = (ResolvedPart.model_validate(each.resolved) for each in studio.parts(answer.json()["id"]))
    assert [each.number for each in first.control] == [1, 2]
    assert [key for key in first.extra_params if key.startswith("ControlNet")] == [
        "ControlNet 1",
        "ControlNet 2",
    ]
    assert [each.shows_map for each in (*first.control, *second.control)] == [True, True, False, False]
    assert first.control[0].preprocessing.resolution == 0.5
    assert first.models[-1].kind is ModelKind.CONTROLNET
