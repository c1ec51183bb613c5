"""What it costs to change a checkpoint: the weights in place, modules built anew, and diffusers'
`from_single_file`, in one process and by turns.

    python bench/switching.py [--families SD1 SD2 SDXL] [--width 128] [--rounds 5] [--threads 2] [--json FILE]

Two checkpoints of each architecture with random weights are written as float16 files: the published topology
(levels, layers, text encoders) with `--width` channels at the first level instead of 320, so that it fits a
small machine; 320 is the real size. All three makers end with a UNet, an autoencoder and the text encoders in
float32, ready to run. Both files stay in the operating system's cache. Figures are medians over rounds; what
counts is the ratio.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from figures import keep, table
from safetensors.torch import save_file

from workers.engine.host_cache import HostCache
from workers.engine.loader import networks
from workers.engine.loader.architecture import TIME_WIDTH, TextShape, UNetShape, VaeShape
from workers.engine.loader.checkpoint import Checkpoint, ModelFile, Weights, read_checkpoint
from workers.engine.loader.diffusers_layout import TEXT, TEXT_2, UNET, VAE, single_file
from workers.engine.slots import SlotPool

HEAD = 64
REAL_WIDTH = 320
FAMILIES = ("SD1", "SD2", "SDXL")
Shapes = dict[str, UNetShape | VaeShape | TextShape]


def narrowed(width: int, real: int, step: int = HEAD) -> int:
    """What is `real` where the UNet begins with 320 channels, where it begins with `width`: in steps."""
    return max(real * width // REAL_WIDTH // step, 1) * step


def text(width: int, layers: int, *, open_clip: bool = True, projection: int = 0) -> TextShape:
    """A text encoder."""
    activation = "gelu" if open_clip else "quick_gelu"
    return TextShape(width, layers, width // HEAD, 4 * width, 49408, 77, activation, projection)


def shapes(family: str, width: int) -> Shapes:
    """The architecture of each network, by the sub-folder of a diffusers folder it would be in."""
    vae = VaeShape(tuple(narrowed(width, n, 32) for n in (128, 256, 512, 512)), 2, 4, 3)
    widths = (width, 2 * width, 4 * width, 4 * width)
    heads = tuple(max(each // HEAD, 1) for each in widths)
    clip, open_clip, large = (narrowed(width, n) for n in (768, 1024, 1280))
    if family == "SD1":
        unet = UNetShape(4, 4, widths, (1, 1, 1, 0), 1, 2, clip, (8, 8, 8, 8), False)
        return {UNET: unet, VAE: vae, TEXT: text(clip, 12, open_clip=False)}
    if family == "SD2":
        unet = UNetShape(4, 4, widths, (1, 1, 1, 0), 1, 2, open_clip, heads, True)
        return {UNET: unet, VAE: vae, TEXT: text(open_clip, 23)}
    told = large + 6 * TIME_WIDTH
    unet = UNetShape(4, 4, widths[:3], (0, 2, 10), 10, 2, clip + large, heads[:3], True, told)
    encoders = {TEXT: text(clip, 12, open_clip=False), TEXT_2: text(large, 32, projection=large)}
    return {UNET: unet, VAE: vae, **encoders}


def written(family: str, width: int, place: Path, seed: int) -> Path:
    """A checkpoint with random weights, and beside it the configurations that diffusers wants."""
    torch.manual_seed(seed)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, shape in shapes(family, width).items():
        module = networks.library(shape)
        parts[name] = {key: tensor.half() for key, tensor in module.state_dict().items()}
        if name in (UNET, VAE):
            module.save_config(place / name)
    configs = {UNET: json.loads((place / UNET / "config.json").read_text())}
    made = single_file("bench", parts, configs)
    path = place / f"{seed}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in made.tensors.items()}, path, made.metadata)
    return path


def all_weights(checkpoint: Checkpoint) -> list[Weights]:
    """The networks of a checkpoint."""
    return [checkpoint.unet, checkpoint.vae, *checkpoint.texts]


def rebuilt(checkpoint: Checkpoint) -> list[torch.nn.Module]:
    """Modules made anew and filled."""
    modules = []
    for weights in all_weights(checkpoint):
        module = networks.library(weights.shape)
        module.load_state_dict(weights.tensors, strict=False)
        modules.append(module.eval())
    return modules


def single_files(path: Path) -> list[torch.nn.Module]:
    """The same by diffusers, which takes the UNet and the autoencoder (its text encoders need a whole
    pipeline with tokenizers: they are left out, in its favour).
    """
    folder = str(path.parent)
    options: dict[str, Any] = {"config": folder, "local_files_only": True, "torch_dtype": torch.float32}
    return [
        UNet2DConditionModel.from_single_file(str(path), subfolder=UNET, **options),
        AutoencoderKL.from_single_file(str(path), subfolder=VAE, **options),
    ]


def timed(work: Callable[[], object]) -> float:
    """Seconds a call takes; what it gives is forgotten before the next."""
    gc.collect()
    begun = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - begun
    del kept
    return seconds


def measure(family: str, width: int, rounds: int, place: Path) -> dict[str, Any]:
    """Run the rounds with one architecture; seconds of a switch and the ratios."""
    files = [written(family, width, place, seed) for seed in (1, 2)]
    cache, pool = HostCache(2**40), SlotPool("cpu", torch.float32, 1)

    def read(path: Path) -> Checkpoint:
        return read_checkpoint(ModelFile(path), path.stem)

    def switch(checkpoint: Checkpoint) -> None:
        for weights in all_weights(checkpoint):
            pool.take(weights)

    def kept(path: Path) -> Checkpoint:
        return cache.get(path.stem, lambda: read(path))

    for path in files:
        switch(kept(path))
    rows: list[dict[str, float]] = []
    for number in range(2 * rounds):
        path = files[number % 2]
        makers: dict[str, Callable[[], object]] = {
            "switch, file in host memory": lambda path=path: switch(kept(path)),  # type: ignore[misc]
            "modules built anew, file in host memory": lambda path=path: rebuilt(kept(path)),  # type: ignore[misc]
            "diffusers from_single_file": lambda path=path: single_files(path),  # type: ignore[misc]
        }
        row = {name: timed(maker) for name, maker in makers.items()}
        switch(kept(files[1 - number % 2]))
        row["switch, file read again"] = timed(lambda path=path: switch(read(path)))  # type: ignore[misc]
        rows.append(row)
    first, *_ = rows[0]
    return {
        "megabytes": round(files[0].stat().st_size / 1e6, 1),
        "seconds": {name: round(statistics.median(row[name] for row in rows), 4) for name in rows[0]},
        "times_a_switch": {
            name: round(statistics.median(row[name] / row[first] for row in rows), 2) for name in rows[0]
        },
    }


def main() -> None:
    """Measure, print a table and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    diffusers_logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    found: dict[str, Any] = {}
    for family in args.families:
        with tempfile.TemporaryDirectory() as place, torch.no_grad():
            found[family] = measure(family, args.width, args.rounds, Path(place))
        lines = [
            (name, found[family]["seconds"][name], ratio)
            for name, ratio in found[family]["times_a_switch"].items()
        ]
        head = (f"{family}, {found[family]['megabytes']} MB", "seconds", "times a switch")
        print(table(head, lines) + "\n", flush=True)
    keep({"width": args.width} | found, args.json)


if __name__ == "__main__":
    main()
