"""The engine against plain diffusers on this machine's CPU, in one process and by turns.

    python bench/engine.py [--model FILE] [--rounds 7] [--threads 2] [--size 128] [--steps 20] [--json FILE]

Plain diffusers is `StableDiffusionPipeline` with the same weights, Euler and float32, one request after
another, and eight in one call: a batch made by hand, which only somebody who has all eight before him can
make. The engine gets the same requests: one at a time, then eight at once, each submitted by itself. Figures
are medians over rounds; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTokenizer

import atelier.prompt.tokens
from atelier.contract.parts import EngineSettings, ResolvedPart
from atelier.modelfile import reference
from workers.engine import Engine, ModelFile
from workers.engine.loader import networks
from workers.engine.loader.checkpoint import Weights, read_checkpoint

PROMPT = "a red circle on a blue background"
CONCURRENT = 8
PATIENCE = 600.0


def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer out of the vocabulary that ships with Atelier."""
    file = Path(atelier.prompt.tokens.__file__).parent / "data" / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(file.read_bytes()).decode().split("\n")[1:48895]
    letters = list(atelier.prompt.tokens._byte_letters().values())
    words = letters + [letter + "</w>" for letter in letters] + ["".join(merge.split()) for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def _filled(weights: Weights) -> torch.nn.Module:
    module = networks.library(weights.shape)
    tensors = {name: tensor.float() for name, tensor in weights.tensors.items()}
    module.load_state_dict(tensors, strict=False)
    return module.eval()


def pipeline(model: Path, config: str | None) -> StableDiffusionPipeline:
    """Plain diffusers with the checkpoint's weights."""
    checkpoint = read_checkpoint(ModelFile(model, config), "bench")
    vae, text, unet = (_filled(part) for part in (checkpoint.vae, checkpoint.text, checkpoint.unet))
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    made = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def requests(model: Path, args: argparse.Namespace) -> Callable[[int], ResolvedPart]:
    """A function that gives the request of a seed."""
    named = reference(model)

    def request(seed: int) -> ResolvedPart:
        return ResolvedPart(
            checkpoint=named,
            prompt=PROMPT,
            negative_prompt="",
            sampler="Euler",
            scheduler="Automatic",
            steps=args.steps,
            cfg_scale=7.0,
            width=args.size,
            height=args.size,
            seeds=(seed,),
            subseeds=(0,),
            settings=EngineSettings(randn_source="CPU"),
        )

    return request


def timed(work: Callable[[], object]) -> float:
    """Seconds a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run the rounds; images per second and their ratios."""
    sidecar = args.model.with_suffix(".yaml")
    config = sidecar.read_text() if sidecar.is_file() else None
    rival, request = pipeline(args.model, config), requests(args.model, args)
    engine = Engine(lambda _: ModelFile(args.model, config))
    engine.start()

    def theirs(count: int) -> None:
        for seed in range(count):
            generator = torch.Generator("cpu").manual_seed(seed)
            size = {"height": args.size, "width": args.size}
            rival(PROMPT, num_inference_steps=args.steps, guidance_scale=7.0, generator=generator, **size)

    def batched(count: int) -> None:
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(count)]
        size = {"height": args.size, "width": args.size}
        rival(
            [PROMPT] * count, num_inference_steps=args.steps, guidance_scale=7.0, generator=generators, **size
        )

    def ours(count: int) -> None:
        for handle in [engine.submit(request(seed)) for seed in range(count)]:
            handle.result(PATIENCE)

    try:
        theirs(1)
        batched(CONCURRENT)
        ours(1)
        ours(CONCURRENT)
        rows = [
            {
                "diffusers 1": 4 / timed(lambda: theirs(4)),
                "engine 1": 4 / timed(lambda: [ours(1) for _ in range(4)]),
                "diffusers 8, one by one": CONCURRENT / timed(lambda: theirs(CONCURRENT)),
                "diffusers 8, batched by hand": CONCURRENT / timed(lambda: batched(CONCURRENT)),
                "engine 8": CONCURRENT / timed(lambda: ours(CONCURRENT)),
            }
            for _ in range(args.rounds)
        ]
    finally:
        engine.close(10.0)
    figures = {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}
    ratios = {
        "ratio 1": statistics.median(row["engine 1"] / row["diffusers 1"] for row in rows),
        "ratio 8": statistics.median(row["engine 8"] / row["diffusers 8, one by one"] for row in rows),
        "ratio 8, batched by hand": statistics.median(
            row["engine 8"] / row["diffusers 8, batched by hand"] for row in rows
        ),
    }
    return {"images_per_s": figures, **{name: round(value, 3) for name, value in ratios.items()}}


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/atelier-demo.safetensors"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    diffusers_logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    figures = {"torch": torch.__version__, "machine": platform.machine(), "threads": args.threads} | measure(
        args
    )
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
