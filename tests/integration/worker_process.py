"""A real worker process over a store of plain files, with small random checkpoints of Stable Diffusion 1.5's
topology.
"""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy
import psutil
import torch
from PIL import Image
from safetensors.torch import save_file

from atelier import modelfile
from atelier.contract import keys, signing
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.contract.parts import (
    Action,
    EndpointControl,
    InstanceState,
    PartControl,
    PartResult,
    ProgressState,
    ResolvedPart,
)
from atelier.processes import Child, spawn
from atelier.storage.filesystem import FilesystemBlobStore
from tests.waiting import eventually
from workers.engine.loader import ldm_keys, networks
from workers.engine.loader.architecture import TextShape, UNetShape, VaeShape

KEY = "signing-key-of-the-tests-32-bytes"
TOKEN = "token-of-the-tests-which-is-long-enough"
ENDPOINT = "local"
ROOT = Path(__file__).resolve().parents[2]

TINY_UNET = UNetShape(
    in_channels=4,
    out_channels=4,
    widths=(32, 64, 64, 64),
    depths=(1, 1, 1, 0),
    middle=1,
    blocks=2,
    context=64,
    heads=(8, 8, 8, 8),
    linear_projection=False,
)
_VAE = VaeShape(widths=(32, 32, 64, 64), blocks=2, latent_channels=4, channels=3)
_TEXT = TextShape(width=64, layers=2, heads=4, inner=128, vocabulary=49408, positions=77)


def tiny_checkpoint(path: Path, seed: int) -> Path:
    """Write a checkpoint in the LDM layout whose weights are random, small and the same for the same
    `seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = (
        ("model.diffusion_model.", TINY_UNET, ldm_keys.unet_modules(TINY_UNET)),
        ("first_stage_model.", _VAE, ldm_keys.vae_modules(_VAE)),
        ("cond_stage_model.transformer.text_model.", _TEXT, {}),
    )
    tensors: dict[str, torch.Tensor] = {}
    for prefix, shape, modules in parts:
        theirs = {own: ldm for ldm, own in modules.items()}
        for name, size in networks.expected(shape).items():
            if not name.endswith("position_ids"):
                tensors[prefix + _ldm_name(name, theirs)] = _random(name, size, generator)
    save_file(tensors, path)
    return path


def _ldm_name(own: str, theirs: Mapping[str, str]) -> str:
    head = own
    while head and theirs:
        if head in theirs:
            return theirs[head] + own[len(head) :]
        head = head.rpartition(".")[0]
    return own


def _random(name: str, size: torch.Size, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(size, generator=generator)
    if "norm" in name and len(size) == 1:
        return (1.0 + 0.1 * noise if name.endswith("weight") else 0.1 * noise).half()
    return (noise / max(1, size[1:].numel()) ** 0.5).half()


def registered(store: FilesystemBlobStore, path: Path, kind: ModelKind = ModelKind.CHECKPOINT) -> ModelRef:
    """Link a model into the store in place."""
    model = modelfile.reference(path, kind)
    store.link(keys.model(model.blob_sha256), path)
    return model


class Worker:
    """A worker process, its store, and what the portal would do to it."""

    def __init__(self, store: FilesystemBlobStore, place: Path, port: int, **settings: str) -> None:
        place.mkdir(parents=True)
        self.store, self.log, self.instance = store, place / "log", place.name
        env = {
            "ATELIER_STORE": f"file://{store.root}",
            "ATELIER_ENDPOINT": ENDPOINT,
            "ATELIER_INSTANCE": self.instance,
            "ATELIER_WORKER_TOKEN": TOKEN,
            "ATELIER_JOB_KEY": KEY,
            "ATELIER_MODEL_CACHE": str(place / "cache"),
            "ATELIER_DEVICE": "cpu",
            "ATELIER_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "SAGEMAKER_BIND_TO_PORT": str(port),
        }
        argv = [sys.executable, "-m", "workers.inference.server", "serve"]
        self.child: Child = spawn(argv, {**env, **settings}, log=self.log, cwd=ROOT)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self.headers = {"Authorization": f"Bearer {TOKEN}"}

    def ready(self) -> Worker:
        """Wait until it is."""

        def answers() -> bool:
            assert self.child.poll() is None, self.log.read_text()
            return self.ping() == 200

        eventually(answers, within=180, about="the worker did not get ready")
        return self

    def ping(self) -> int:
        """The status of /ping."""
        return self.client.get("/ping").status_code

    def invoke(self, body: Any, **request: Any) -> httpx.Response:
        """POST /invocations with the worker's token."""
        return self.client.post("/invocations", json=body, headers=self.headers, **request)

    def body(self, part: ResolvedPart, name: str, *, attempt: int = 1) -> dict[str, Any]:
        """The signed body of a part, whose control object is written first, as the portal does at
        dispatch.
        """
        self.control(name, attempt)
        stamp = {"job": f"job-{name}", "part": name, "attempt": attempt, "endpoint": ENDPOINT}
        resolved = part.model_dump(mode="json")
        return signing.sign({"task": part.task.value, "resolved": resolved, "job": stamp}, KEY.encode())

    def run(self, part: ResolvedPart, name: str) -> PartResult:
        """Run a part and read its result."""
        response = self.invoke(self.body(part, name))
        assert response.status_code == 200, response.text
        return self.result(response.json()["result"])

    def result(self, key: str) -> PartResult:
        """The PartResult under a key."""
        return PartResult.model_validate_json(self.store.get(key))

    def progress(self, name: str) -> ProgressState:
        """What the running part last said of itself."""
        return ProgressState.model_validate_json(self.store.get(keys.progress(f"job-{name}", name, 1)))

    def state(self) -> InstanceState:
        """What the worker last said of itself."""
        return InstanceState.model_validate_json(self.store.get(keys.instance(ENDPOINT, self.instance)))

    def control(self, name: str, attempt: int, action: Action | None = None) -> None:
        """Write a part's own control object."""
        control = PartControl(attempt=attempt, action=action)
        self.store.put(keys.part_control(f"job-{name}", name), control.model_dump_json().encode())

    def click(self, name: str, action: Action) -> None:
        """What the portal writes when somebody presses a button."""
        self.control(name, 1, action)
        open_actions = EndpointControl(parts={name: PartControl(attempt=1, action=action)})
        self.store.put(keys.endpoint_control(ENDPOINT), open_actions.model_dump_json().encode())

    def stop(self) -> int:
        """SIGTERM and wait; the exit status."""
        self.client.close()
        return self.child.stop(timeout=40)


def publish(store: FilesystemBlobStore, *models: ModelRef) -> None:
    """Publish a catalogue for direct callers."""
    catalogue = Catalogue(models=models, default_checkpoint=models[0].name)
    store.put(keys.catalogue(ENDPOINT), catalogue.model_dump_json().encode())


def pixels(worker: Worker, result: PartResult, index: int = 0) -> Any:
    """A stored picture as [H, W, 3] of int."""
    return numpy.asarray(Image.open(io.BytesIO(worker.store.get(result.pictures[index].key)))).astype(int)


def side_by_side(worker: Worker, parts: dict[str, ResolvedPart]) -> dict[str, PartResult]:
    """Run parts at the same time: the worker is held until all requests have been sent, so that they reach it
    together however busy the machine is.
    """
    bodies = {name: worker.body(part, name) for name, part in parts.items()}
    sent = threading.Semaphore(0)

    def trace(event: str, _info: object) -> None:
        if event == "http11.send_request_body.complete":
            sent.release()

    process = psutil.Process(worker.child.pid)
    with ThreadPoolExecutor(len(bodies)) as threads:
        process.suspend()
        try:
            answers = {
                name: threads.submit(worker.invoke, body, extensions={"trace": trace})
                for name, body in bodies.items()
            }
            all_sent = all(sent.acquire(timeout=60) for _ in bodies)
        finally:
            process.resume()
    assert all_sent
    for answer in answers.values():
        assert answer.result().status_code == 200, answer.result().text
    return {name: worker.result(answer.result().json()["result"]) for name, answer in answers.items()}


def seconds_of(call: Callable[[], Any]) -> tuple[Any, float]:
    """What `call` gives, and how long it took."""
    began = time.monotonic()
    return call(), time.monotonic() - began


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of a response of ours."""
    error: dict[str, Any] = json.loads(response.content)["error"]
    return error
