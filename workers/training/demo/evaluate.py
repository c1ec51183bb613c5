"""How often a checkpoint draws what it is asked for: the 64 combinations it was never trained on, judged by
pixels.

    python -m workers.training.demo.evaluate [--model FILE] [--cfg 7] [--sampler Euler] [--sheet FILE.png]

The pictures come from the engine that serves the studio, so the figure is the product's, not a training
loop's.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from atelier import modelfile
from atelier.contract.parts import EngineSettings, ResolvedPart
from workers.engine import Engine, ModelFile
from workers.training.demo.judge import Verdict, judge
from workers.training.demo.shapes import SIDE, Scene, held_out
from workers.training.demo.wordings import canonical

BATCH = 8
FIRST_SEED = 1000
PATIENCE = 1800.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """What the judge said of every picture, and of every picture against the next scene's prompt."""

    scenes: tuple[Scene, ...]
    pictures: tuple[np.ndarray, ...]
    verdicts: tuple[Verdict, ...]
    against_another: tuple[Verdict, ...]

    @property
    def right(self) -> float:
        """Share of pictures that show their own prompt."""
        return sum(verdict.right for verdict in self.verdicts) / len(self.verdicts)

    @property
    def wrongly_right(self) -> float:
        """Share of pictures that pass for another's prompt: how easily the judge is pleased."""
        return sum(verdict.right for verdict in self.against_another) / len(self.against_another)

    def faults(self) -> Counter[str]:
        """How often each thing was wrong."""
        found: Counter[str] = Counter()
        for verdict in self.verdicts:
            found["shape"] += not verdict.shape_right
            found["colour"] += not verdict.colour_right
            found["background"] += not verdict.background_right
        return found


def pictures(
    path: Path, prompts: Sequence[str], *, cfg: float, sampler: str, steps: int = 20
) -> list[np.ndarray]:
    """One picture of SIDE x SIDE for each prompt (uint8, height x width x 3), seeds from FIRST_SEED on."""
    model, sidecar = modelfile.reference(path), path.with_suffix(".yaml")
    config = sidecar.read_text() if sidecar.is_file() else None
    engine = Engine(lambda _: ModelFile(path, config))
    engine.start()
    try:
        handles = [
            engine.submit(
                ResolvedPart(
                    checkpoint=model,
                    prompt=prompt,
                    negative_prompt="",
                    sampler=sampler,
                    scheduler="Automatic" if sampler.startswith("Euler") else "Karras",
                    steps=steps,
                    cfg_scale=cfg,
                    width=SIDE,
                    height=SIDE,
                    seeds=(FIRST_SEED + number,),
                    subseeds=(0,),
                    settings=EngineSettings(randn_source="CPU"),
                )
            )
            for number, prompt in enumerate(prompts)
        ]
        return [handle.result(PATIENCE).pictures[0].pixels for handle in handles]
    finally:
        engine.close(10.0)


def score(path: Path, *, cfg: float = 7.0, sampler: str = "Euler", scenes: Sequence[Scene] = ()) -> Score:
    """Judge the checkpoint at `path` on `scenes`, by default all that were held out of its training."""
    chosen = tuple(scenes) or held_out()
    found = pictures(path, [canonical(scene) for scene in chosen], cfg=cfg, sampler=sampler)
    others = (*chosen[1:], chosen[0])
    return Score(
        scenes=chosen,
        pictures=tuple(found),
        verdicts=tuple(judge(picture, scene) for picture, scene in zip(found, chosen, strict=True)),
        against_another=tuple(judge(picture, scene) for picture, scene in zip(found, others, strict=True)),
    )


def sheet(result: Score) -> Image.Image:
    """All pictures on one sheet, eight to a row."""
    rows = -(-len(result.pictures) // BATCH)
    out = Image.new("RGB", (BATCH * SIDE, rows * SIDE))
    for number, picture in enumerate(result.pictures):
        out.paste(Image.fromarray(picture), (number % BATCH * SIDE, number // BATCH * SIDE))
    return out


def main(argv: list[str] | None = None) -> int:
    """Judge and print; 0 when at least 90 % are right and at most 10 % pass for another's prompt."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/atelier-demo.safetensors"))
    parser.add_argument("--cfg", type=float, default=7.0)
    parser.add_argument("--sampler", default="Euler")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    result = score(options.model, cfg=options.cfg, sampler=options.sampler)
    if options.sheet:
        sheet(result).save(options.sheet)
    for scene, verdict in zip(result.scenes, result.verdicts, strict=True):
        if not verdict.right:
            seen = f"{verdict.colour} on {verdict.background}, IoU {verdict.iou:.2f}, a {verdict.closest}"
            log.info("%s: %s", canonical(scene), seen)
    log.info(
        "right %.1f %%, right for another's prompt %.1f %%", 100 * result.right, 100 * result.wrongly_right
    )
    log.info("wrong: %s", dict(result.faults()))
    return 0 if result.right >= 0.9 and result.wrongly_right <= 0.1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
