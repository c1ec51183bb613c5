"""Direct calls over HTTP to a real worker process that has a store with a catalogue and no portal: the plain
schema, the published text-to-image body, answers by location.
"""

from __future__ import annotations

import base64
import io
import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from atelier.contract.models import ModelKind, ModelRef
from atelier.storage.filesystem import FilesystemBlobStore
from tests.control_files import save_control_of, save_detector
from tests.integration.worker_process import TINY_UNET, Worker, error_of, publish, registered, tiny_checkpoint
from tests.lora_files import attentions, lora_file
from tests.published_requests import BODY, CONTROLNET, LORA_PROMPT, PAYLOAD

SIDES = {"width": 64, "height": 64, "steps": 1}
SMALL = {"width": 64, "height": 64, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("direct")


@pytest.fixture(scope="module")
def store(place: Path) -> FilesystemBlobStore:
    """A store with what an endpoint may use: the published checkpoint's name and an embedding."""
    made = FilesystemBlobStore(place / "store")
    checkpoint = registered(made, tiny_checkpoint(place / "tiny.safetensors", 1))
    named = checkpoint.model_copy(
        update={"name": "v1-5-pruned", "filename": "v1-5-pruned.ckpt", "resolution": (64, 64)}
    )
    lora = lora_file(place / "galGadotLora_v10.safetensors", attentions(place / "tiny.safetensors"), 4)
    adapter = registered(made, lora, ModelKind.LORA)
    others = (an_embedding(made, place / "easynegative.safetensors"), adapter, *control_models(made, place))
    publish(made, named, *others)
    return made


def control_models(store: FilesystemBlobStore, place: Path) -> list[ModelRef]:
    """A narrow ControlNet for the checkpoint and a narrow edge detector, under the published names."""
    path = save_control_of(TINY_UNET, place / "control_v11p_sd15_scribble.safetensors")
    control = registered(store, path, ModelKind.CONTROLNET).model_copy(update={"legacy_hash": "d4ba51ff"})
    detector = registered(store, save_detector(place / "ControlNetHED.safetensors"), ModelKind.ANNOTATOR)
    return [control, detector]


def an_embedding(store: FilesystemBlobStore, path: Path) -> ModelRef:
    """A textual inversion of two vectors, registered."""
    vectors = torch.randn(2, 64, generator=torch.Generator().manual_seed(5))
    save_file({"emb_params": vectors}, path)
    return registered(store, path, ModelKind.EMBEDDING)


@pytest.fixture(scope="module")
def worker(place: Path, store: FilesystemBlobStore, free_ports: Callable[[], int]) -> Iterator[Worker]:
    started = Worker(store, place / "shared", free_ports())
    try:
        yield started.ready()
    finally:
        started.stop()


def pictures(answer: httpx.Response) -> list[Image.Image]:
    """The decoded pictures of a plain answer, which has nothing else in it."""
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["generated_images"]
    found = [Image.open(io.BytesIO(base64.b64decode(each))) for each in answer.json()["generated_images"]]
    assert {image.format for image in found} == {"JPEG"}
    return found


def far(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures in levels."""
    return float(numpy.abs(numpy.asarray(one).astype(int) - numpy.asarray(other).astype(int)).mean())


def said(answer: httpx.Response) -> dict[str, Any]:
    """What the answer's header tells."""
    told: dict[str, Any] = json.loads(answer.headers["x-amzn-sagemaker-custom-attributes"])
    return told


# --- The plain schema.


def test_a_prompt_alone_makes_one_picture_with_the_published_defaults(worker: Worker) -> None:
    answer = worker.invoke({"prompt": "a dog"})
    [image] = pictures(answer)
    assert image.size == (64, 64), "the size the checkpoint was trained at"
    text = image.getexif().get_ifd(0x8769)[0x9286].decode("utf-16-be", "replace")
    assert "Steps: 50, Sampler: Euler, Schedule type: Automatic, CFG scale: 7.5" in text
    assert "x-amzn-sagemaker-custom-attributes" not in answer.headers


def test_n_prompts_with_m_pictures_come_in_the_prompts_order(worker: Worker) -> None:
    body = {"prompt": ["a dog", "a cat"], "negative_prompt": ["", "blurry"], "num_images_per_prompt": 3}
    together = pictures(worker.invoke(body | SMALL | {"seed": 7}))
    assert len(together) == 6
    for number, (prompt, negative) in enumerate([("a dog", ""), ("a cat", "blurry")]):
        alone = pictures(
            worker.invoke({"prompt": prompt, "negative_prompt": negative, "seed": 7 + 3 * number} | SMALL)
        )
        assert far(together[3 * number], alone[0]) < 1
    assert far(together[0], together[1]) > 2


def test_inputs_may_be_wrapped_as_hugging_faces_containers_do(worker: Worker) -> None:
    [bare] = pictures(worker.invoke({"prompt": "a dog", "seed": 1} | SMALL))
    wrapped = [
        {"inputs": "a dog", "parameters": SMALL | {"seed": 1}},
        {"inputs": {"prompt": "a dog"} | SMALL, "seed": 1},
        {"inputs": "a dog", "seed": 1} | SMALL,
    ]
    for body in wrapped:
        assert far(pictures(worker.invoke(body))[0], bare) < 1
    assert len(pictures(worker.invoke({"inputs": ["a dog", "a cat"], "parameters": SMALL}))) == 2


def test_guidance_of_at_most_one_leaves_the_negative_prompt_out_and_says_so(worker: Worker) -> None:
    plain = {"prompt": "a dog", "seed": 3} | SMALL
    first = worker.invoke(plain | {"guidance_scale": 1, "negative_prompt": "red"})
    second = worker.invoke(plain | {"guidance_scale": 0})
    guided = worker.invoke(plain | {"guidance_scale": 7.5, "negative_prompt": "red"})
    assert far(pictures(first)[0], pictures(second)[0]) < 1
    assert far(pictures(first)[0], pictures(guided)[0]) > 1
    assert [each["field"] for each in said(first)["ignored"]] == ["negative_prompt"]
    assert "x-amzn-sagemaker-custom-attributes" not in second.headers


def test_seeds_differ_from_call_to_call_unless_one_is_given(worker: Worker) -> None:
    one, other = (pictures(worker.invoke({"prompt": "a dog"} | SMALL))[0] for _ in range(2))
    assert far(one, other) > 2


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"prompt": ["a", "b"], "negative_prompt": "c"}, "both must be text, or both lists"),
        ({"prompt": ["a", "b"], "negative_prompt": ["c"]}, "1 entries for 2 prompts"),
        ({"prompt": "a", "num_inference_step": 3}, "did you mean 'num_inference_steps'?"),
        ({"prompt": "a", "width": 100}, "such as 96 or 104"),
        ({"prompt": "a", "model": "another"}, "There is no checkpoint named 'another'"),
        ({"inputs": None}, "needs a `prompt`"),
        ({"text": "a"}, "a plain request has a `prompt`"),
    ],
)
def test_a_plain_request_that_cannot_be_done_is_refused_in_words(
    worker: Worker, body: dict[str, Any], told: str
) -> None:
    answer = worker.invoke(body)
    assert answer.status_code == 422
    assert told in error_of(answer)["message"]


# --- Answers by location.


def at(location: str) -> bytes:
    """The bytes of a file URI."""
    return Path(unquote(urlsplit(location).path)).read_bytes()


def test_pictures_may_be_stored_and_answered_by_location(worker: Worker) -> None:
    answer = worker.invoke({"prompt": ["a dog", "a cat"], "output": "s3", "seed": 1} | SMALL)
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["s3_loc"]
    locations = answer.json()["s3_loc"]
    assert len(set(locations)) == 2
    shape = re.escape(worker.store.root.as_uri()) + r"/blobs/answers/local/\d{8}T\d{6}-[0-9a-f]{32}/[01]\.jpg"
    assert all(re.fullmatch(shape, each) for each in locations)
    sent = pictures(worker.invoke({"prompt": ["a dog", "a cat"], "seed": 1} | SMALL))
    for location, image in zip(locations, sent, strict=True):
        assert far(Image.open(io.BytesIO(at(location))), image) < 1


def test_a_published_body_may_ask_for_locations_too_and_cannot_name_one(worker: Worker) -> None:
    payload = {**PAYLOAD, "width": 64, "height": 64, "steps": 2}
    answer = worker.invoke({**BODY, "txt2img_payload": payload, "output": "s3", "s3_loc": "/etc/passwd"})
    assert answer.status_code == 200, answer.text
    [location] = answer.json()["s3_loc"]
    assert "/answers/local/" in location
    info = json.loads(answer.json()["info"])
    assert Image.open(io.BytesIO(at(location))).info["parameters"] == info["infotexts"][0]
    assert "images" not in answer.json()
    assert "s3_loc" in [each["field"] for each in info["atelier"]["ignored"]]
    refused = worker.invoke({**BODY, "output": "s3://somebodys/bucket"})
    assert (refused.status_code, error_of(refused)["code"]) == (422, "unknown_name")


# --- The published text-to-image body.


def test_the_published_body_works_as_written_and_names_what_had_no_effect(worker: Worker) -> None:
    # the sides are those of the small network; every other field is as published
    answer = worker.invoke({**BODY, "txt2img_payload": {**PAYLOAD, "width": 128, "height": 128}})
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["images", "parameters", "info"]
    info = json.loads(answer.json()["info"])
    image = Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0])))
    assert image.size == (128, 128)
    text = image.info["parameters"]
    assert "(police badge:1.2)" in text
    assert "Steps: 30, Sampler: Euler a, Schedule type: Automatic, CFG scale: 6.0" in text
    assert "Model: v1-5-pruned" in text
    assert 'TI hashes: "easynegative: ' in text
    idle = {each["field"] for each in info["atelier"]["ignored"]}
    assert {"username", "denoising_strength", "s_tmax", "restore_faces"} <= idle
    assert not idle & {"prompt", "negative_prompt", "steps", "cfg_scale", "width", "sampler_index", "seed"}
    assert all(each["reason"] for each in info["atelier"]["ignored"])
    assert info["sd_model_name"] == "v1-5-pruned"


def test_the_lora_of_the_published_prompt_is_the_registered_one_and_controlnet_does_not_fail(
    worker: Worker,
) -> None:
    small = {"alwayson_scripts": controlled(), "width": 64, "height": 64, "steps": 2, "seed": 1}
    made = []
    for prompt in (LORA_PROMPT, LORA_PROMPT.replace("<lora:galGadotLora_v10:0.8>", "")):
        answer = worker.invoke({**BODY, "txt2img_payload": {**PAYLOAD, **small, "prompt": prompt}})
        assert answer.status_code == 200, answer.text
        info = json.loads(answer.json()["info"])
        assert info["infotexts"][0].startswith(prompt)
        named = "<lora:" in prompt
        assert ('Lora hashes: "galGadotLora_v10: ' in info["infotexts"][0]) == named
        assert not any("galGadotLora_v10" in warning for warning in info["atelier"]["warnings"])
        assert not any("controlnet" in each["field"] for each in info["atelier"]["ignored"])
        made.append(Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0]))))
    assert far(made[0], made[1]) > 0.5


def controlled(**changes: Any) -> dict[str, Any]:
    """The published unit with a picture: a gradient with a dark square in it."""
    rows, columns = numpy.mgrid[0:64, 0:64]
    pixels = numpy.stack([rows * 4, columns * 4, rows + columns], axis=2).astype(numpy.uint8)
    pixels[20:44, 20:44] = 0
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    unit = CONTROLNET["controlnet"]["args"][0] | {"image": base64.b64encode(out.getvalue()).decode()}
    return {"controlnet": {"args": [unit | changes]}}


def test_the_published_controlnet_unit_gives_a_controlled_picture_and_its_map(worker: Worker) -> None:
    plain = {"width": 64, "height": 64, "steps": 4, "seed": 1}
    answers = [
        worker.invoke({**BODY, "txt2img_payload": {**PAYLOAD, **plain, "alwayson_scripts": scripts}})
        for scripts in ({}, controlled(), controlled(weight=0.0), controlled(low_vram=True))
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
    images = [
        [Image.open(io.BytesIO(base64.b64decode(each))) for each in one.json()["images"]] for one in answers
    ]
    assert [len(each) for each in images] == [1, 2, 2, 2]
    assert far(images[0][0], images[1][0]) > 1
    assert far(images[0][0], images[2][0]) < 1
    assert images[1][1].size == (64, 64)
    assert set(numpy.unique(numpy.asarray(images[1][1]))) <= {0, 255}
    info = json.loads(answers[1].json()["info"])
    assert info["extra_generation_params"]["ControlNet 0"] == (
        "Module: scribble_hed, Model: control_v11p_sd15_scribble [d4ba51ff], Weight: 0.7, "
        "Resize Mode: Crop and Resize, Processor Res: 512, Threshold A: 0.5, Threshold B: 0.5, "
        "Guidance Start: 0.0, Guidance End: 0.7, Pixel Perfect: False, Control Mode: Balanced"
    )
    ignored = json.loads(answers[3].json()["info"])["atelier"]["ignored"]
    assert "alwayson_scripts.controlnet.args.0.low_vram" in [each["field"] for each in ignored]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": ""}, "has no image"),
        ({"image": "http://127.0.0.1/x.png"}, "addresses are not fetched"),
        ({"image": "bm8gcGljdHVyZQ=="}, "cannot be read"),
        ({"model": "control_v11p_sd15_scrible"}, "Did you mean 'control_v11p_sd15_scribble'"),
        ({"model": "None"}, "names no model"),
        ({"module": "openpose"}, "is not run here"),
        ({"guidance_start": 0.9}, "guidance_start"),
        ({"weight": 3}, "weight"),
        ({"resize_mode": "Somehow"}, "resize_mode"),
        ({"advanced_weighting": [1.0] * 3}, "advanced_weighting"),
    ],
)
def test_a_controlnet_unit_that_cannot_be_is_refused_in_words(
    worker: Worker, changes: dict[str, Any], words: str
) -> None:
    answer = worker.invoke(
        {**BODY, "txt2img_payload": {**PAYLOAD, **SIDES, "alwayson_scripts": controlled(**changes)}}
    )
    assert answer.status_code == 422, answer.text
    assert words in error_of(answer)["message"], answer.text


def test_a_lora_that_is_not_registered_is_told_and_the_picture_made(worker: Worker) -> None:
    changes = {"prompt": "a dog <lora:galGadotLora_v9:0.8>", "width": 64, "height": 64, "steps": 2}
    answer = worker.invoke({**BODY, "txt2img_payload": {**PAYLOAD, **changes}})
    assert answer.status_code == 200, answer.text
    [told] = json.loads(answer.json()["info"])["atelier"]["warnings"]
    assert told.startswith("Lora not found: galGadotLora_v9.")
    assert "galGadotLora_v10" in told


def test_an_embedding_in_the_negative_prompt_changes_the_picture(worker: Worker) -> None:
    small = {**PAYLOAD, "width": 64, "height": 64, "steps": 2, "seed": 1}
    with_, without = (
        worker.invoke({**BODY, "txt2img_payload": {**small, "negative_prompt": negative}}).json()
        for negative in ("easynegative", "easy negative")
    )
    one, other = (Image.open(io.BytesIO(base64.b64decode(each["images"][0]))) for each in (with_, without))
    assert far(one, other) > 0.5
    assert "TI hashes" in json.loads(with_["info"])["infotexts"][0]
    assert "TI hashes" not in json.loads(without["info"])["infotexts"][0]


@pytest.mark.parametrize(
    "task", ["image-to-image", "extras-single-image", "interrogate", "reload-all-models"]
)
def test_a_task_that_is_not_served_is_refused_naming_those_that_are(worker: Worker, task: str) -> None:
    answer = worker.invoke({"task": task})
    assert (answer.status_code, error_of(answer)["code"]) == (422, "invalid_request")
    assert error_of(answer)["detail"] == {"task": task, "served": ["text-to-image"]}
    assert "text-to-image" in error_of(answer)["message"]


# --- As stock programs send it.


def test_a_stock_sdk_predictor_can_call_it(worker: Worker) -> None:
    """What JSONSerializer sends and JSONDeserializer reads: UTF-8 JSON both ways, with these headers."""
    sent = json.dumps({"prompt": "a dög"} | SMALL).encode()
    request = urllib.request.Request(
        f"{worker.client.base_url}/invocations",
        data=sent,
        headers={"Content-Type": "application/json", "Accept": "application/json", **worker.headers},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers.get_content_type() == "application/json"
        read = json.loads(answer.read().decode("utf-8"))
    assert len(read["generated_images"]) == 1


def test_a_deployment_may_answer_by_location_and_refuses_what_does_not_fit(
    place: Path, store: FilesystemBlobStore, free_port: int
) -> None:
    narrow = {"ATELIER_OUTPUT": "s3", "ATELIER_MODEL_MEMORY": str(96 * 2**20)}
    storing = Worker(store, place / "storing", free_port, **narrow).ready()
    try:
        body = {"prompt": "a dog"} | SMALL
        assert list(storing.invoke(body).json()) == ["s3_loc"]
        assert list(storing.invoke(body | {"output": "base64"}).json()) == ["generated_images"]
        large = storing.invoke({"prompt": "a dog", "width": 2048, "height": 2048})
        assert (large.status_code, error_of(large)["code"]) == (507, "out_of_memory")
        assert "the largest square that fits is" in error_of(large)["message"]
    finally:
        storing.stop()


def test_the_documented_example_is_answered_as_the_page_says(worker: Worker) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    body = json.loads(re.findall(r"localhost:8080/invocations.*?-d '(.*?)'", page, re.DOTALL)[0])
    assert len(pictures(worker.invoke({**body, **SMALL}))) == 4
