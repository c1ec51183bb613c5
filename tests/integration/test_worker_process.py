"""A real worker process over HTTP: contract, jobs, buttons, batching, drain. The networks are small and
random.
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest
from PIL import Image

from atelier.contract import keys
from atelier.contract.models import ModelRef
from atelier.contract.parts import Action
from atelier.storage.filesystem import FilesystemBlobStore
from tests.contract.worker_doubles import a_part
from tests.integration.worker_process import (
    Worker,
    error_of,
    pixels,
    publish,
    registered,
    side_by_side,
    tiny_checkpoint,
)
from tests.waiting import eventually
from workers.engine import Engine, ModelFile

MIXED = [
    {"sampler": sampler, "scheduler": scheduler, "seeds": (seed,), "subseeds": (0,), "cfg_scale": cfg}
    for seed, (sampler, scheduler, cfg) in enumerate(
        [
            ("Euler", "Automatic", 7.0),
            ("Euler a", "Automatic", 5.0),
            ("DPM++ 2M", "Karras", 3.5),
            ("Euler", "Karras", 1.0),
            ("DPM++ 2M", "Uniform", 9.0),
            ("Euler a", "Karras", 1.0),
            ("Euler", "Automatic", 12.0),
            ("DPM++ 2M", "Karras", 7.0),
        ],
        start=100,
    )
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def store(place: Path) -> FilesystemBlobStore:
    return FilesystemBlobStore(place / "store")


@pytest.fixture(scope="module")
def tiny(place: Path, store: FilesystemBlobStore) -> ModelRef:
    return registered(store, tiny_checkpoint(place / "tiny.safetensors", 1))


@pytest.fixture(scope="module")
def other(place: Path, store: FilesystemBlobStore) -> ModelRef:
    return registered(store, tiny_checkpoint(place / "other.safetensors", 2))


@pytest.fixture(scope="module")
def worker(place: Path, store: FilesystemBlobStore, free_ports: Callable[[], int]) -> Iterator[Worker]:
    """A worker that many tests use."""
    started = Worker(store, place / "shared", free_ports())
    try:
        yield started.ready()
    finally:
        started.stop()


@pytest.fixture
def another(
    request: pytest.FixtureRequest, place: Path, store: FilesystemBlobStore, free_port: int
) -> Iterator[Worker]:
    """A worker of this test alone, with time to drain on a busy machine too."""
    started = Worker(store, place / request.node.name[:60], free_port, ATELIER_DRAIN_SECONDS="100")
    try:
        yield started.ready()
    finally:
        started.stop()


def under_way(worker: Worker, name: str) -> bool:
    said = worker.progress(name)
    return said.phase == "steps" and said.step >= 2


# --- The contract.


def test_only_a_caller_with_the_token_and_a_valid_signature_is_served(worker: Worker, tiny: ModelRef) -> None:
    body = worker.body(a_part(checkpoint=tiny), "signed")
    assert worker.client.post("/invocations", json=body).status_code == 401
    wrong = worker.client.post("/invocations", json=body, headers={"Authorization": "Bearer no"})
    assert (wrong.status_code, error_of(wrong)["code"]) == (401, "not_authenticated")
    unsigned = {**body, "job": {**body["job"], "signature": ""}}
    tampered = {**body, "resolved": {**body["resolved"], "prompt": "something else"}}
    for refused in (worker.invoke(unsigned), worker.invoke(tampered)):
        assert (refused.status_code, error_of(refused)["code"]) == (403, "not_permitted")


def test_bodies_that_cannot_be_served_are_refused_with_a_reason(worker: Worker) -> None:
    bad = worker.client.post("/invocations", content=b"{no", headers=worker.headers)
    assert (bad.status_code, error_of(bad)["code"]) == (400, "malformed_body")
    unknown = worker.invoke({"task": "make-coffee"})
    assert (unknown.status_code, error_of(unknown)["code"]) == (422, "unknown_name")
    large = worker.client.post("/invocations", content=b" " * (33 * 2**20), headers=worker.headers)
    assert (large.status_code, error_of(large)["code"]) == (413, "payload_too_large")
    assert worker.ping() == 200


def test_an_attempt_that_is_not_current_returns_at_once(worker: Worker, tiny: ModelRef) -> None:
    body = worker.body(a_part(checkpoint=tiny, steps=150), "stale")
    worker.control("stale", 2)
    answer = worker.invoke(body)
    assert answer.json() == {"job": "job-stale", "part": "stale", "attempt": 1, "result": "superseded"}
    assert not list(worker.store.list("jobs/job-stale/stale/1/"))


def test_a_model_that_is_missing_fails_with_its_name(worker: Worker, tiny: ModelRef) -> None:
    lost = tiny.model_copy(update={"blob_sha256": "0" * 64, "filename": "lost.safetensors"})
    answer = worker.invoke(worker.body(a_part(checkpoint=lost), "lost"))
    assert (answer.status_code, error_of(answer)["code"]) == (422, "model_unusable")
    assert "lost.safetensors" in error_of(answer)["message"]
    assert json.loads(worker.store.get(keys.error("job-lost", "lost", 1)))["error"] == error_of(answer)


# --- Pictures.


def test_a_job_makes_the_engines_pixels_with_both_chunks_and_a_timeline(
    worker: Worker, tiny: ModelRef, place: Path
) -> None:
    part = a_part(checkpoint=tiny, steps=4)
    result = worker.run(part, "plain")
    engine = Engine(lambda _: ModelFile(place / "tiny.safetensors"), device="cpu", dtype="float32")
    engine.start()
    try:
        made = engine.submit(part).result(60)
    finally:
        engine.close(10)
    for index, picture in enumerate(made.pictures):
        assert numpy.abs(pixels(worker, result, index) - picture.pixels).max() <= 1
    image = Image.open(io.BytesIO(worker.store.get(result.pictures[0].key)))
    assert image.info["parameters"] == result.pictures[0].infotext
    assert json.loads(image.info["atelier"])["recipe"] == part.recipe_hash
    times = list(result.timeline.values())
    assert list(result.timeline) == [
        "received",
        "loading",
        "encoding",
        "steps",
        "decoding",
        "storing",
        "stored",
    ]
    assert times == sorted(times)


def test_a_direct_call_is_answered_like_the_peer_does(worker: Worker, tiny: ModelRef) -> None:
    publish(worker.store, tiny)
    payload = {"prompt": "a dog", "seed": 3, "steps": 2, "width": 64, "height": 64, "sampler_name": "Euler a"}
    answer = worker.invoke({"task": "text-to-image", "model": "tiny", "txt2img_payload": payload})
    assert answer.status_code == 200, answer.text
    info = json.loads(answer.json()["info"])
    image = Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0])))
    assert image.info["parameters"] == info["infotexts"][0]
    assert info["sd_model_name"] == "tiny"
    unknown = worker.invoke({"task": "text-to-image", "txt2img_payload": {**payload, "sampler_name": "Eule"}})
    assert (unknown.status_code, error_of(unknown)["detail"]["nearest"]) == (422, "Euler")


def test_two_checkpoints_by_turns_each_make_their_own_pictures(
    worker: Worker, tiny: ModelRef, other: ModelRef
) -> None:
    part = a_part(checkpoint=tiny, steps=4, seeds=(1,), subseeds=(0,))
    first = worker.run(part, "turn-1")
    second = worker.run(part.model_copy(update={"checkpoint": other}), "turn-2")
    third = worker.run(part, "turn-3")
    assert numpy.abs(pixels(worker, first) - pixels(worker, second)).max() > 8
    assert numpy.array_equal(pixels(worker, first), pixels(worker, third))
    assert f"Model hash: {other.short_hash}, Model: other" in second.pictures[0].infotext


def test_eight_requests_at_once_share_their_forwards_and_equal_single_pictures(
    worker: Worker, another: Worker, tiny: ModelRef
) -> None:
    parts = {f"mix-{n}": a_part(checkpoint=tiny, steps=20, **each) for n, each in enumerate(MIXED)}
    together = side_by_side(another, parts)
    assert another.stop() == 0
    assert another.state().forwards <= 30
    for name in ("mix-1", "mix-2", "mix-3"):
        single = worker.run(parts[name], f"{name}-alone")
        assert numpy.abs(pixels(worker, together[name]) - pixels(worker, single)).max() <= 1


# --- Buttons.


@pytest.mark.parametrize("action", [Action.STOP_NOW, Action.CANCEL])
def test_a_click_ends_running_work_soon(worker: Worker, tiny: ModelRef, action: Action) -> None:
    name = f"click-{action.value}"
    body = worker.body(a_part(checkpoint=tiny, steps=150, width=256, height=256), name)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(worker.invoke, body)
        eventually(lambda: under_way(worker, name), within=120)
        preview = eventually(lambda: worker.progress(name).preview, within=60, about="no preview came")
        seen = Image.open(io.BytesIO(worker.store.get(keys.preview(f"job-{name}", name, 1, preview))))
        clicked = time.time()
        worker.click(name, action)
        result = worker.result(answer.result(120).json()["result"])
    assert seen.format == "JPEG"
    assert result.timeline["stored"] - clicked < 5
    assert result.stopped
    kept = [
        each.key
        for each in worker.store.list(f"jobs/job-{name}/{name}/1/")
        if not each.key.endswith("progress.json")
    ]
    if action is Action.CANCEL:
        assert result.cancelled
        assert kept == [keys.result(f"job-{name}", name, 1)]
    else:
        assert [picture.complete for picture in result.pictures] == [False, False]
        assert len(kept) == 3


# --- Ends.


def test_sigterm_under_load_lets_running_parts_finish_and_exits_with_0(
    another: Worker, tiny: ModelRef
) -> None:
    part = a_part(checkpoint=tiny, steps=30, width=128, height=128)
    bodies = [another.body(part, f"load-{n}") for n in range(3)]
    late = another.body(part, "late")
    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(another.invoke, body) for body in bodies]
        eventually(lambda: all(under_way(another, f"load-{n}") for n in range(3)), within=120)
        another.child.terminate()
        eventually(lambda: another.ping() == 503, within=60)
        refused = another.invoke(late)
        found = [answer.result(120) for answer in answers]
    assert (refused.status_code, error_of(refused)["retryable"]) == (503, True)
    assert [response.status_code for response in found] == [200, 200, 200]
    for response in found:
        result = another.result(response.json()["result"])
        assert [picture.complete for picture in result.pictures] == [True, True]
        assert all(another.store.stat(picture.key) for picture in result.pictures)
    assert another.child.wait(60) == 0
    assert another.state().status == "stopped"


def test_a_part_that_outlasts_the_drain_time_fails_as_something_to_try_again(
    place: Path, store: FilesystemBlobStore, tiny: ModelRef, free_port: int
) -> None:
    hasty = Worker(store, place / "hasty", free_port, ATELIER_DRAIN_SECONDS="0.2").ready()
    try:
        body = hasty.body(a_part(checkpoint=tiny, steps=150, width=256, height=256), "long")
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(hasty.invoke, body)
            eventually(lambda: under_way(hasty, "long"), within=120)
            hasty.child.terminate()
            response = answer.result(120)
        assert (response.status_code, error_of(response)["code"]) == (503, "work_returned")
        assert store.stat(keys.result("job-long", "long", 1)) is None
        assert hasty.child.wait(60) == 0
    finally:
        hasty.stop()


def test_a_worker_whose_parent_is_gone_ends(another: Worker) -> None:
    another.child.release()
    assert another.child.wait(60) == 0
    assert another.state().status == "stopped"


def test_settings_that_cannot_be_used_are_all_named_at_once(
    place: Path, store: FilesystemBlobStore, free_port: int
) -> None:
    broken = Worker(store, place / "broken", free_port, ATELIER_JOB_KEY="short", ATELIER_DEVICE="abacus")
    try:
        assert broken.child.wait(60) == 2
        said = broken.log.read_text()
        assert "device" in said
        assert "short" not in said
    finally:
        broken.stop()


def test_a_direct_call_with_a_script_is_answered_with_its_grid(worker: Worker, tiny: ModelRef) -> None:
    publish(worker.store, tiny)
    script = {"script_name": "prompt matrix", "script_args": [False, True, "positive", "comma", 4]}
    payload = {"prompt": "a dog|red|blue", "seed": 3, "steps": 1, "width": 64, "height": 64} | script
    answer = worker.invoke({"task": "text-to-image", "model": "tiny", "txt2img_payload": payload})
    assert answer.status_code == 200, answer.text
    images = [Image.open(io.BytesIO(base64.b64decode(each))) for each in answer.json()["images"]]
    info = json.loads(answer.json()["info"])
    assert [image.size for image in images] == [(180, 140)] + [(64, 64)] * 4
    assert info["index_of_first_image"] == 1
    assert info["infotexts"] == [image.info["parameters"] for image in images]
    assert info["all_prompts"] == ["a dog", "a dog, red", "a dog, blue", "a dog, red, blue"]
