"""What a step costs beyond the network: the engine's time for an evaluation against the forwards in it.

    python bench/step_cost.py [--model FILE] [--rounds 3] [--steps 20] [--threads 1] [--only CASE ...]

Every case runs through the engine while its forwards are timed and their rows recorded; then the same rows go
through `workers.engine.forward.predict` once more with nothing around them, in the same process and by turns.
The steps last from the first forward until the last latent goes to the decoder, without the decodes between
them. Prompts are encoded by a run before, since an encoding is remembered. Two figures say what is beyond the
network, in percent of the engine's time:

- "beyond": 100 (1 - forwards inside / steps), both of one run, so that whatever else the machine does slows
  both alike; the median of the rounds, to be held to the aim of 5 %;
- "against bare": 100 (1 - bare / steps), the least of the rounds each. It shows in addition what the engine
  does to the forwards themselves, and on a busy machine mostly that.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from figures import keep, table

from atelier.contract.parts import EngineSettings, ResolvedPart
from atelier.modelfile import reference
from workers.engine import Engine, ModelFile, decode, forward
from workers.engine.graphs import GraphRunner
from workers.engine.rows import Row
from workers.engine.slots import Slot

PROMPT = "a red circle on a blue background"
ALTERNATING = "a [red|green] circle on a [blue|white|black] background"
COMPOSED = "a red circle on a blue background AND a green square :0.5"
CONCURRENT = 8
PATIENCE = 600.0
AIM = 5.0


@dataclass(frozen=True)
class Case:
    """What is run: a sampler with its schedule, a prompt, how many pictures at once, and whose noise.

    "GPU" is the product's default: the numbers of CUDA's generator, computed on the CPU.
    """

    sampler: str
    prompt: str = PROMPT
    at_once: int = 1
    scheduler: str = "Automatic"
    noise: Literal["GPU", "CPU"] = "GPU"


CASES = {
    "Euler": Case("Euler"),
    "Euler a": Case("Euler a"),
    "DPM++ 2M": Case("DPM++ 2M", scheduler="Karras"),
    "DPM++ SDE": Case("DPM++ SDE", scheduler="Karras"),
    "UniPC": Case("UniPC"),
    "Heun": Case("Heun"),
    "Euler, alternation": Case("Euler", ALTERNATING),
    "Euler, AND": Case("Euler", COMPOSED),
    "Euler, 8 at once": Case("Euler", at_once=CONCURRENT),
    "Euler, alternation, 8 at once": Case("Euler", ALTERNATING, CONCURRENT),
    "Euler a, 8 at once": Case("Euler a", at_once=CONCURRENT),
    "DPM++ SDE, 8 at once": Case("DPM++ SDE", at_once=CONCURRENT, scheduler="Karras"),
    "DPM++ SDE, 8 at once, CPU noise": Case("DPM++ SDE", PROMPT, CONCURRENT, "Karras", "CPU"),
}


@dataclass
class Recorded:
    """One run's calls of the network: (begin, end) of each in seconds, and the UNet's batches."""

    forwards: list[tuple[float, float]] = field(default_factory=list)
    decodes: list[tuple[float, float]] = field(default_factory=list)
    batches: list[tuple[Slot, list[Row]]] = field(default_factory=list)

    @property
    def inside(self) -> float:
        """Seconds inside the forwards."""
        return sum(end - begin for begin, end in self.forwards)

    @property
    def steps(self) -> float:
        """Seconds from the first forward to the decode behind the last, without the decodes between."""
        last = self.forwards[-1][1]
        between = sum(end - begin for begin, end in self.decodes if end < last)
        return min(begin for begin, _ in self.decodes if begin > last) - self.forwards[0][0] - between


class Watch:
    """Stands before the engine's calls of the networks and takes their times."""

    def __init__(self) -> None:
        self._predict, self._decode = forward.predict, decode.decode
        self.seen = Recorded()
        forward.predict, decode.decode = self._timed_predict, self._timed_decode

    def _timed_predict(
        self,
        slot: Slot,
        rows: Sequence[Row],
        graphs: GraphRunner | None = None,
        control: Sequence[torch.Tensor] = (),
    ) -> list[torch.Tensor]:
        begun = time.perf_counter()
        outputs = self._predict(slot, rows, graphs, control)
        self.seen.forwards.append((begun, time.perf_counter()))
        self.seen.batches.append((slot, list(rows)))
        return outputs

    def _timed_decode(self, slot: Slot, latents: Sequence[torch.Tensor], scale: float) -> torch.Tensor:
        begun = time.perf_counter()
        pictures = self._decode(slot, latents, scale)
        self.seen.decodes.append((begun, time.perf_counter()))
        return pictures

    def bare(self) -> float:
        """Seconds that the recorded batches take with nothing around them."""
        begun = time.perf_counter()
        with torch.inference_mode():
            for slot, rows in self.seen.batches:
                self._predict(slot, rows)
        return time.perf_counter() - begun


class Bench:
    """An engine under watch, and what is measured on it."""

    def __init__(self, args: argparse.Namespace) -> None:
        sidecar = args.model.with_suffix(".yaml")
        config = sidecar.read_text() if sidecar.is_file() else None
        self._args, self._reference = args, reference(args.model)
        self.watch = Watch()
        self.engine = Engine(lambda _: ModelFile(args.model, config))

    def _part(self, case: Case, seed: int) -> ResolvedPart:
        return ResolvedPart(
            checkpoint=self._reference,
            prompt=case.prompt,
            negative_prompt="",
            sampler=case.sampler,
            scheduler=case.scheduler,
            steps=self._args.steps,
            cfg_scale=7.0,
            width=self._args.size,
            height=self._args.size,
            seeds=(seed,),
            subseeds=(0,),
            settings=EngineSettings(randn_source=case.noise),
        )

    def run(self, case: Case) -> Recorded:
        """The case once, one part for each picture."""
        self.watch.seen = Recorded()
        handles = [self.engine.submit(self._part(case, seed)) for seed in range(case.at_once)]
        for handle in handles:
            handle.result(PATIENCE)
        return self.watch.seen

    def measure(self, case: Case) -> dict[str, float]:
        """The rounds of a case: milliseconds of an evaluation and percents beyond the network."""
        self.run(case)
        rounds = [(self.run(case), self.watch.bare()) for _ in range(self._args.rounds)]
        beyond = [(each.steps - each.inside) / len(each.forwards) for each, _ in rounds]
        steps = min(each.steps / len(each.forwards) for each, _ in rounds)
        bare = min(seconds / len(each.forwards) for each, seconds in rounds)
        share = statistics.median(1 - each.inside / each.steps for each, _ in rounds)
        return {
            "forwards": len(rounds[0][0].forwards),
            "engine_ms": round(1e3 * steps, 2),
            "bare_ms": round(1e3 * bare, 2),
            "beyond_ms": round(1e3 * statistics.median(beyond), 3),
            "beyond_percent": round(100 * share, 2),
            "against_bare_percent": round(100 * (1 - bare / steps), 2),
        }


HEAD = ("case", "forwards", "engine ms", "bare ms", "beyond ms", "beyond %", "against bare %")


def main() -> None:
    """Measure the cases and print a table; times are those of one forward and what surrounds it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/atelier-demo.safetensors"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", default=list(CASES))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    bench.engine.start()
    try:
        figures: dict[str, Any] = {name: bench.measure(CASES[name]) for name in args.only}
    finally:
        bench.engine.close(10.0)
    print(f"torch {torch.__version__}, {args.threads} threads, {args.size} px, {args.steps} steps")
    print(table(HEAD, [[name, *row.values()] for name, row in figures.items()]))
    worst = max(figures, key=lambda name: figures[name]["beyond_percent"])
    print(f"worst: {worst}, {figures[worst]['beyond_percent']} % beyond the network (aim: at most {AIM:g} %)")
    keep(figures, args.json)


if __name__ == "__main__":
    main()
