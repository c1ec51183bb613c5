"""What networks cost: a change of the LoRA set in a slot, and carrying a set through the steps.

    python bench/networks.py [--model FILE] [--rounds 5] [--steps 10] [--size 128] [--rank 16] [--json FILE]

Two LoRA files of random weights for every linear layer of the UNet's transformers are made in a temporary
folder. A change is the time until a slot has its new weights: from one set to another, back to none, and, to
compare, a whole checkpoint. Carrying is the engine's time for a step with a set against one without, by turns
in one process: networks are merged into the weights, so that it should be the same. Figures are medians of
rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from figures import keep, table
from safetensors.torch import save_file

from atelier.contract.models import ModelKind, ModelRef
from atelier.contract.parts import EngineSettings, NetworkUse, ResolvedPart
from atelier.modelfile import reference
from workers.engine import Engine, ModelFile
from workers.engine.loader.checkpoint import Weights, read_checkpoint
from workers.engine.networks.merging import Use, merged
from workers.engine.networks.reading import read_network
from workers.engine.slots import SlotPool

PATIENCE = 600.0


def lora(path: Path, unet: Weights, rank: int, seed: int) -> Path:
    """Write a LoRA with small random weights."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in unet.tensors.items():
        if ".transformer_blocks." not in name or weight.ndim != 2:
            continue
        module = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        fall, rise = (rank, weight.shape[1]), (weight.shape[0], rank)
        tensors[f"{module}.lora_down.weight"] = torch.randn(fall, generator=generator) * 0.01
        tensors[f"{module}.lora_up.weight"] = torch.randn(rise, generator=generator) * 0.01
        tensors[f"{module}.alpha"] = torch.tensor(float(rank))
    save_file(tensors, path)
    return path


def changes(unet: Weights, files: Sequence[Path], rounds: int) -> tuple[dict[str, list[float]], int]:
    """Seconds of each kind of change by rounds, and how many tensors a set touches."""
    sets = [merged(unet, [Use(read_network(ModelFile(file), file.stem, file.stem), 0.8)]) for file in files]
    other = Weights("other", unet.shape, {name: tensor.clone() for name, tensor in unet.tensors.items()})
    pool = SlotPool("cpu", torch.float32, 1)
    took: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for name, weights in (
            ("the whole checkpoint", unet),
            ("a set onto it", sets[0]),
            ("another set in its place", sets[1]),
            ("back to no set", unet),
            ("another checkpoint", other),
        ):
            begun = time.perf_counter()
            pool.take(weights)
            if number:
                took.setdefault(name, []).append(time.perf_counter() - begun)
    return took, len(sets[0].touched)  # type: ignore[attr-defined]  # sets that change something


def carried(args: argparse.Namespace, config: str | None, file: Path) -> dict[str, list[float]]:
    """Seconds of a step with a set and without, by turns."""
    checkpoint = reference(args.model)
    network = ModelRef(
        kind=ModelKind.LORA, name=file.stem, filename=file.name, sha256="1" * 64, blob_sha256="1" * 64,
        size=file.stat().st_size, short_hash="1" * 10,
    )  # fmt: skip
    refs = {checkpoint.blob_sha256: ModelFile(args.model, config), network.blob_sha256: ModelFile(file)}
    engine = Engine(lambda ref: refs[ref.blob_sha256])
    engine.start()

    def step(uses: tuple[NetworkUse, ...]) -> float:
        part = ResolvedPart(
            checkpoint=checkpoint, prompt="a red circle", negative_prompt="", sampler="Euler",
            scheduler="Automatic", steps=args.steps, cfg_scale=7.0, width=args.size, height=args.size,
            seeds=(1,), subseeds=(0,), settings=EngineSettings(), networks=uses,
        )  # fmt: skip
        told = engine.submit(part).result(PATIENCE)
        assert not told.warnings, told.warnings
        return (told.timeline["decoding"] - told.timeline["steps"]) / args.steps

    took: dict[str, list[float]] = {"without": [], "with": []}
    try:
        for number in range(args.rounds + 1):
            for name, uses in (("without", ()), ("with", (NetworkUse(model=network, unet=0.8),))):
                step(uses)  # the change is not the steps'
                seconds = step(uses)
                if number:
                    took[name].append(seconds)
    finally:
        engine.close(10.0)
    return took


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/atelier-demo.safetensors"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sidecar = args.model.with_suffix(".yaml")
    config = sidecar.read_text() if sidecar.is_file() else None
    unet = read_checkpoint(ModelFile(args.model, config), "bench").unet
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        files = [lora(Path(folder) / f"{name}.safetensors", unet, args.rank, name) for name in (1, 2)]
        took, touched = changes(unet, files, args.rounds)
        steps = carried(args, config, files[0])
    changed = {name: 1e3 * statistics.median(rounds) for name, rounds in took.items()}
    step = {name: 1e3 * statistics.median(rounds) for name, rounds in steps.items()}
    ratio = statistics.median(a / b for a, b in zip(steps["with"], steps["without"], strict=True))
    figures: dict[str, Any] = {
        "touched": touched,
        "change_ms": changed,
        "step_ms": step,
        "carry_ratio": ratio,
    }
    print(table(("change of a slot", "ms"), [(name, round(each, 2)) for name, each in changed.items()]))
    print()
    told = [(name, round(each, 2)) for name, each in step.items()]
    print(table(("a step", "ms"), [*told, ("with / without", round(ratio, 3))]))
    keep(figures, args.json)


if __name__ == "__main__":
    main()
