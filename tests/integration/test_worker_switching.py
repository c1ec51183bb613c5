"""One worker process over HTTP whose jobs change checkpoint, family, networks and settings from one to the
next.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from atelier import infotext
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.contract.parts import NetworkUse, ResolvedPart
from atelier.resolve import resolve_txt2img
from atelier.storage.filesystem import FilesystemBlobStore
from tests.contract.worker_doubles import a_part
from tests.integration.worker_process import (
    Worker,
    pixels,
    publish,
    registered,
    side_by_side,
    tiny_checkpoint,
)
from tests.lora_files import attentions, lora_file
from tests.narrow import twin
from workers.engine import Engine, EnginePicture, ModelFile

PATIENCE = 120.0


@pytest.fixture
def store(tmp_path: Path) -> FilesystemBlobStore:
    return FilesystemBlobStore(tmp_path / "store")


@pytest.fixture
def worker(tmp_path: Path, store: FilesystemBlobStore, free_port: int) -> Iterator[Worker]:
    started = Worker(store, tmp_path / "worker", free_port)
    try:
        yield started.ready()
    finally:
        started.stop()


def alone(place: Path, parts: dict[str, ResolvedPart]) -> dict[str, EnginePicture]:
    """The first picture of each part, made one part after another by an engine of this process."""
    engine = Engine(lambda model: ModelFile(place / model.filename), device="cpu", dtype="float32")
    engine.start()
    try:
        return {name: engine.submit(part).result(PATIENCE).pictures[0] for name, part in parts.items()}
    finally:
        engine.close(PATIENCE)


def far(one: Any, other: Any) -> int:
    """The largest difference of two pictures in levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# --- Families.

FAMILIES: dict[str, dict[str, Any]] = {
    "sd1": {"family": "sd1"},
    "sd2-v": {"family": "sd2", "velocity": True},
    "sdxl": {"family": "sdxl"},
}
WAYS = [("Euler", "a red circle", 7.0), ("DPM++ 2M", "a (blue:1.3) star", 4.0), ("Euler a", "a cat", 1.0)]


def family_jobs(models: dict[str, ModelRef]) -> dict[str, ResolvedPart]:
    """Jobs of every family in every way, the families by turns."""
    return {
        f"{name}-{number}": a_part(
            checkpoint=model,
            sampler=sampler,
            prompt=prompt,
            cfg_scale=scale,
            negative_prompt="a green star",
            steps=3,
            seeds=(number,),
            subseeds=(0,),
        )
        for number, (sampler, prompt, scale) in enumerate(WAYS)
        for name, model in models.items()
    }


def test_one_worker_serves_checkpoints_of_three_families_by_turns_and_at_once(
    tmp_path: Path, store: FilesystemBlobStore, worker: Worker
) -> None:
    models = {
        name: registered(store, twin(seed=seed, **more).save(tmp_path / f"{name}.safetensors"))
        for seed, (name, more) in enumerate(FAMILIES.items())
    }
    jobs = family_jobs(models)
    expected = alone(tmp_path, jobs)
    together = side_by_side(worker, jobs)
    by_turns = {name: worker.run(part, f"{name}-again") for name, part in jobs.items()}
    for name, part in jobs.items():
        for result in (together[name], by_turns[name]):
            assert far(pixels(worker, result), expected[name].pixels) <= 1, name
            assert not result.warnings
            assert f"Model: {part.checkpoint.name}" in result.pictures[0].infotext
    assert all(
        far(expected[one].pixels, expected[other].pixels) > 2
        for one, other in itertools.combinations(expected, 2)
    )


# --- Two users.

LOOKS: list[dict[str, Any]] = [
    {
        "prompt": "a dog <lora:first:0.8>",
        "override_settings": {"sd_vae": "other.vae.safetensors", "CLIP_stop_at_last_layers": 2},
    },
    {"prompt": "a dog <lora:second:0.6:0.9>", "override_settings": {"sd_vae": "None"}},
    {"prompt": "a dog", "override_settings": {"sd_vae": "other.vae.safetensors"}},
    {
        "prompt": "a dog <lora:first:0.5><lora:second:0.4>",
        "override_settings": {"CLIP_stop_at_last_layers": 2},
    },
]
TOLD = [
    {'Lora hashes: "first: ', "VAE: other.vae.safetensors", "Clip skip: 2"},
    {'Lora hashes: "second: '},
    {"VAE: other.vae.safetensors"},
    {'Lora hashes: "first: ', ", second: ", "Clip skip: 2"},
]
"""What stands in each one's infotext; of all these nothing else does."""


def catalogue_of_looks(place: Path, store: FilesystemBlobStore) -> Catalogue:
    """A checkpoint, the autoencoder of another, and two LoRA."""
    checkpoint = tiny_checkpoint(place / "tiny.safetensors", 1)
    tensors = load_file(tiny_checkpoint(place / "other.safetensors", 2))
    vae = {key: tensor for key, tensor in tensors.items() if key.startswith("first_stage_model.")}
    save_file(vae, place / "other.vae.safetensors")
    models = [registered(store, checkpoint)]
    models.append(registered(store, place / "other.vae.safetensors", ModelKind.VAE))
    for seed, name in enumerate(("first", "second")):
        path = lora_file(place / f"{name}.safetensors", attentions(checkpoint), seed)
        models.append(registered(store, path, ModelKind.LORA))
    publish(store, *models)
    return Catalogue(models=tuple(models), default_checkpoint=models[0].name)


def answered(answer: httpx.Response) -> tuple[str, Any]:
    """The infotext and the pixels of an answer with one picture."""
    assert answer.status_code == 200, answer.text
    [text] = json.loads(answer.json()["info"])["infotexts"]
    [picture] = answer.json()["images"]
    return text, np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))


def test_users_with_other_networks_vae_and_clip_skip_at_once_have_each_their_own_picture_and_infotext(
    tmp_path: Path, store: FilesystemBlobStore, worker: Worker
) -> None:
    served = catalogue_of_looks(tmp_path, store)
    plain = {"steps": 4, "width": 64, "height": 64, "sampler_name": "Euler a", "cfg_scale": 5.5}
    payloads = {
        f"{look}-{seed}": {**plain, **LOOKS[look], "seed": seed}
        for seed in (1, 2)
        for look in range(len(LOOKS))
    }
    parts = {name: resolve_txt2img(payload, served).parts[0] for name, payload in payloads.items()}
    expected = alone(tmp_path, parts)
    bodies = [{"task": "text-to-image", "txt2img_payload": payload} for payload in payloads.values()]
    with ThreadPoolExecutor(len(bodies)) as threads:
        found = dict(zip(payloads, map(answered, threads.map(worker.invoke, bodies)), strict=True))
    for name, (text, picture) in found.items():
        assert far(picture, expected[name].pixels) <= 1, name
        assert text == infotext.render(parts[name], 0)
        own = TOLD[int(name[0])]
        assert {said for said in set().union(*TOLD) if said in text} == own
    assert all(far(one[1], other[1]) > 2 for one, other in itertools.combinations(found.values(), 2))


# --- Memory.

SWITCHES, EARLY = 200, 20


def three_of_a_kind(store: FilesystemBlobStore, place: Path, checkpoints: list[Path]) -> list[ModelRef]:
    """Checkpoints of one architecture: one more than an engine has slots for it."""
    third = place / "third.safetensors"
    weights = load_file(checkpoints[0])
    weights["model.diffusion_model.out.2.weight"] = weights["model.diffusion_model.out.2.weight"] / 3
    save_file(weights, third)
    return [registered(store, path) for path in (*checkpoints, third)]


def lora_sets(store: FilesystemBlobStore, place: Path, checkpoint: Path) -> list[tuple[NetworkUse, ...]]:
    """No LoRA, one, another, both."""
    names = attentions(checkpoint)
    paths = [lora_file(place / f"lora-{seed}.safetensors", names, seed) for seed in range(2)]
    one, other = (
        NetworkUse(model=registered(store, path, ModelKind.LORA), called=path.stem, te=0.8, unet=0.7)
        for path in paths
    )
    return [(), (one,), (other,), (one, other)]


@pytest.mark.long
def test_two_hundred_switches_cost_no_more_memory_than_twenty(
    tmp_path: Path, store: FilesystemBlobStore, checkpoints: list[Path], free_port: int
) -> None:
    models = three_of_a_kind(store, tmp_path, checkpoints)
    sets = lora_sets(store, tmp_path, checkpoints[0])
    # two of the three files fit into host memory, which is half of this: each is read again at its turn
    memory = 5 * max(model.size for model in models)
    worker = Worker(store, tmp_path / "worker", free_port, ATELIER_MODEL_MEMORY=str(memory))
    try:
        process = psutil.Process(worker.ready().child.pid)
        resident = {}
        for number in range(1, SWITCHES + 1):
            part = a_part(
                checkpoint=models[number % 3],
                networks=sets[number % 4],
                prompt=f"picture {number}",
                negative_prompt=f"not {number}",
                steps=1,
                seeds=(number,),
                subseeds=(0,),
            )
            worker.run(part, f"switch-{number}")
            resident[number] = process.memory_info().rss
    finally:
        assert worker.stop() == 0
    assert worker.state().weight_changes == SWITCHES
    grown = resident[SWITCHES] / resident[EARLY] - 1
    assert abs(grown) <= 0.02, [f"{number}: {rss >> 20} MiB" for number, rss in resident.items()]
