"""The table of speeds that the first published studio gave, for this machine: seconds of a request by size
and by number of pictures.

    python bench/seed_table.py [--model FILE] [--steps 20] [--threads N] [--no-rival] [--json FILE]

The published requests took the defaults of their library: 50 steps of PLMS, guidance 7.5, one prompt. Here
all of it is the same but the steps, of which 20 are made unless `--steps 50` is given: seconds go with the
steps. The sizes are made with one picture, the numbers of pictures at the largest size. Plain diffusers
(`StableDiffusionPipeline`, PNDM, float32, the same weights) makes the same requests in the same process, each
right behind the engine's, unless `--no-rival` leaves it out.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine as against_diffusers
import torch
from diffusers import PNDMScheduler
from diffusers.utils import logging as diffusers_logging
from figures import keep, table

from atelier.contract.parts import ResolvedPart
from atelier.modelfile import reference
from workers.engine import Engine, ModelFile

PROMPT = "a red circle on a blue background"
GUIDANCE = 7.5
SIZES = (512, 256, 128, 64)
NUMBERS = (1, 2, 3, 4)
PATIENCE = 7200.0
PUBLISHED = {
    "published: g4dn.xlarge (T4), SD 1.4, 50 steps": (8, 5, 4, 4, 8, 17, 20, 24),
    "published: t3.medium (2 cores), SD 1.4, 50 steps": (9, "", "", "", 9, "", "", ""),
}
"""Seconds as they were reported, by column: the sizes with one picture, then the numbers of pictures at 512.
That of the CPU is hard to believe and no target.
"""

Make = Callable[[int, int], object]
"""(side in pixels, number of pictures) -> the pictures."""


def rival(model: Path, config: str | None, steps: int) -> Make:
    """Plain diffusers as the published studio ran it."""
    pipeline = against_diffusers.pipeline(model, config)
    pipeline.scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )

    def make(side: int, number: int) -> object:
        options = {"num_images_per_prompt": number, "num_inference_steps": steps, "guidance_scale": GUIDANCE}
        return pipeline(PROMPT, height=side, width=side, **options)

    return make


def ours(engine: Engine, model: Path, steps: int) -> Make:
    """The engine, with the pictures of a request as one part."""
    named = reference(model)

    def make(side: int, number: int) -> object:
        part = ResolvedPart(
            checkpoint=named,
            prompt=PROMPT,
            negative_prompt="",
            sampler="PLMS",
            scheduler="Automatic",
            steps=steps,
            cfg_scale=GUIDANCE,
            width=side,
            height=side,
            seeds=tuple(range(number)),
            subseeds=(0,) * number,
        )
        return engine.submit(part).result(PATIENCE).pictures

    return make


def requests(sizes: list[int], numbers: list[int]) -> list[tuple[int, int]]:
    """(side, number of pictures) of each column that has to be made."""
    wanted = [(side, 1) for side in sizes] + [(max(sizes), number) for number in numbers]
    return sorted(set(wanted))


def measure(makers: dict[str, Make], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of every request by who makes it: medians of the rounds, by turns."""
    for make in makers.values():
        make(min(args.sizes), 1)
    found: dict[str, dict[str, float]] = {name: {} for name in makers}
    for side, number in requests(args.sizes, args.numbers):
        taken: dict[str, list[float]] = {name: [] for name in makers}
        for _ in range(args.rounds):
            for name, make in makers.items():
                begun = time.perf_counter()
                make(side, number)
                taken[name].append(time.perf_counter() - begun)
        for name, seconds in taken.items():
            found[name][f"{side}x{number}"] = round(statistics.median(seconds), 2)
    return found


def shown(found: dict[str, dict[str, float]], args: argparse.Namespace) -> str:
    """The table, with the published row where the columns are the published ones."""
    columns = [f"{side}x1" for side in args.sizes] + [f"{max(args.sizes)}x{each}" for each in args.numbers]
    head = [
        "seconds",
        *(f"{side} px" for side in args.sizes),
        *(f"{each} at {max(args.sizes)} px" for each in args.numbers),
    ]
    rows: list[list[object]] = [[name, *(row[each] for each in columns)] for name, row in found.items()]
    if len(found) == 2:
        first, second = found.values()
        ratios = [round(second[each] / first[each], 2) for each in columns]
        rows.append(["times as fast as diffusers", *ratios])
    if (tuple(args.sizes), tuple(args.numbers)) == (SIZES, NUMBERS):
        rows += [[name, *seconds] for name, seconds in PUBLISHED.items()]
    return table(head, rows)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/atelier-demo.safetensors"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--numbers", type=int, nargs="+", default=list(NUMBERS))
    parser.add_argument("--rival", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    diffusers_logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    sidecar = args.model.with_suffix(".yaml")
    config = sidecar.read_text() if sidecar.is_file() else None
    engine = Engine(lambda _: ModelFile(args.model, config))
    engine.start()
    try:
        makers = {"engine": ours(engine, args.model, args.steps)}
        if args.rival:
            makers["diffusers"] = rival(args.model, config, args.steps)
        found = measure(makers, args)
    finally:
        engine.close(10.0)
    made = f"{args.model.stem}, {args.steps} steps of PLMS (published: 50), guidance {GUIDANCE}"
    print(f"{made}, {args.threads} threads, torch {torch.__version__}, float32 on the CPU")
    print(shown(found, args))
    figures: dict[str, Any] = {"steps": args.steps, "threads": args.threads, "seconds": found}
    keep(figures, args.json)


if __name__ == "__main__":
    main()
