"""One worker process over HTTP whose jobs change checkpoint, family, networks and settings from one to the
next.
"""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file, save_file

from atelier.contract.models import ModelKind, ModelRef
from atelier.contract.parts import NetworkUse
from atelier.storage.filesystem import FilesystemBlobStore
from tests.contract.worker_doubles import a_part
from tests.integration.worker_process import Worker, registered
from tests.lora_files import attentions, lora_file


@pytest.fixture
def store(tmp_path: Path) -> FilesystemBlobStore:
    return FilesystemBlobStore(tmp_path / "store")


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
