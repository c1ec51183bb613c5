"""SD 1.5 and SDXL in full size on this machine's GPU, with random weights made in its memory: no files.

    python bench/gpu.py [--only SD1.5 SDXL] [--rounds 5] [--no-compile] [--peak TFLOPS] [--json FILE]
    python bench/gpu.py --small        # the same program with narrow networks on a CPU, in seconds

For each model, in one process: the engine alone (it/s, seconds of a picture), the worker's server around it
over HTTP (seconds with PNG and transport; pictures a second at 1, 4 and 16 at once), and diffusers eager and
compiled, whose prompts come encoded. `it/s` are steps with guidance, two rows each, in the time of a picture
less its text encoder's and its decoder's in the split. The split comes from rounds of its own, in which the
device is waited for around each network; every request has a prompt of its own, so that no encoding is
remembered. Published figures and the aims stand beside.

A machine needs torch with CUDA and the packages of the workers, but no studio. For one without a network that
has torch (2.11 or newer) and transformers, and no diffusers: fetch the wheels elsewhere with `pip download
--no-deps -d wheels diffusers` and every other package that an ImportError names, copy them with the
repository, and there

    pip install --no-deps --no-index --find-links wheels diffusers ...
    PYTHONPATH=. python bench/gpu.py

The engine takes the modules of its networks from diffusers, which is pure Python; without it nothing runs.
Where only its pipelines cannot be imported, the rival is left out and that is said.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import no_vision  # noqa: F401  # before all that might look for it
import torch
from figures import keep, table
from random_models import FULL, NARROW, Architecture, checkpoint, named
from serving import Client, served

from atelier.contract.parts import EngineSettings, PictureFormat, ResolvedPart
from workers.engine import Engine
from workers.engine.handle import EngineResult
from workers.inference.pictures import encode

PROMPT = "a lighthouse on a cliff above a stormy sea, oil painting"
CONCURRENCIES = (1, 4, 16)
PATIENCE = 1800.0
STEPS = {"SD1.5": 20, "SDXL": 30}
AIMS = {"SD1.5": (0.30, 0.19), "SDXL": (1.9, 1.40)}
"""Seconds of a picture over HTTP on an H200: to pass, and to lead."""
RATE_AIM = {"SD1.5": 10.0}
"""Pictures a second at 16 at once."""
PEAKS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L4": 121.0, "A10G": 70.0, "T4": 65.0}
"""Dense half precision by the data sheets, TFLOP/s; the first whose name is in the device's counts."""
PUBLISHED = {
    "SD1.5": (
        ("diffusers eager, H100 (stable-fast README)", 54.5, ""),
        ("torch.compile, H100 (same)", 66.0, ""),
        ("stable-fast, H100 (same)", 104.6, ""),
        ("OneDiff, A800, 20 steps", 76.0, 0.30),
    ),
    "SDXL": (
        ("diffusers eager, H100 (stable-fast README)", 14.9, ""),
        ("torch.compile, H100 (same)", 18.5, ""),
        ("stable-fast, H100 (same)", 21.6, ""),
        ("TensorRT, H100, 30 steps (Stability's model card)", "", 1.471),
        ("OneDiff, A800, 20 steps", 13.62, 1.62),
    ),
}


class Watch:
    """Stands before an engine's networks and adds up the seconds in each, the device waited for."""

    def __init__(self, engine: Engine, device: str) -> None:
        self._networks, self._device = engine._networks, device
        self.seconds = {"text": 0.0, "UNet": 0.0, "VAE": 0.0}

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            self._wait()
            begun = time.perf_counter()
            out = call(*arguments, **options)
            self._wait()
            self.seconds[name] += time.perf_counter() - begun
            return out

        return timed

    def __enter__(self) -> Watch:
        at_work = self._networks
        encoder = at_work.encoder
        replaced = {
            "encoder": lambda *arguments: self._timed("text", encoder(*arguments)),
            "predict": self._timed("UNet", at_work.predict),
            "decode": self._timed("VAE", at_work.decode),
        }
        for name, call in replaced.items():
            setattr(at_work, name, call)
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("encoder", "predict", "decode"):
            delattr(self._networks, name)


class Bench:
    """One model under measurement."""

    def __init__(self, name: str, architecture: Architecture, args: argparse.Namespace) -> None:
        self.name, self.architecture, self._args = name, architecture, args
        self.device = "cpu" if args.small else "cuda"
        self.dtype = torch.float32 if args.small else torch.float16
        self.side = args.size or (64 if args.small else architecture.side)
        self.steps = args.steps or (2 if args.small else STEPS[name])
        self._count = 0
        self.ref = named(name, architecture)
        self.checkpoint = checkpoint(self.ref, architecture, self.device, self.dtype)

    def engine(self) -> Engine:
        """A running engine that has the checkpoint."""
        made = Engine(_no_file, device=self.device, dtype=str(self.dtype).removeprefix("torch."))
        made.keep(self.checkpoint)
        made.start()
        return made

    def _fresh(self) -> tuple[str, int]:
        """A prompt and a seed nobody has had."""
        self._count += 1
        return f"{PROMPT}, number {self._count}", self._count

    def part(self) -> ResolvedPart:
        """A request of the engine."""
        prompt, seed = self._fresh()
        return ResolvedPart(
            checkpoint=self.ref, prompt=prompt, negative_prompt="", sampler="Euler", scheduler="Automatic",
            steps=self.steps, cfg_scale=7.0, width=self.side, height=self.side, seeds=(seed,), subseeds=(0,),
            settings=EngineSettings(),
        )  # fmt: skip

    def payload(self) -> dict[str, Any]:
        """The same over HTTP."""
        prompt, seed = self._fresh()
        return {
            "prompt": prompt, "seed": seed, "steps": self.steps, "width": self.side, "height": self.side,
            "sampler_name": "Euler", "cfg_scale": 7.0,
        }  # fmt: skip

    def ours(self) -> dict[str, Any]:
        """The figures of the engine and its server."""
        engine = self.engine()
        try:
            with tempfile.TemporaryDirectory() as place, served(engine, [self.ref], Path(place)) as client:
                for at_once in self._args.concurrency:
                    client.pictures([self.payload() for _ in range(at_once)])
                _forget_peak(self.device)
                alone = [self._alone(engine) for _ in range(self._args.rounds)]
                whole = [_timed(lambda: client.picture(self.payload())) for _ in range(self._args.rounds)]
                rates = {at_once: self._rate(client, at_once) for at_once in self._args.concurrency}
                split = self._split(engine)
        finally:
            engine.close(10.0)
        return self._told(alone, statistics.median(whole), rates, split)

    def _rate(self, client: Client, at_once: int) -> float:
        """Pictures a second with so many requests at once: the median of the rounds."""
        waves = [[self.payload() for _ in range(at_once)] for _ in range(self._args.rounds)]
        return at_once / statistics.median(_timed(partial(client.pictures, wave)) for wave in waves)

    def _alone(self, engine: Engine) -> tuple[float, EngineResult]:
        """Seconds of a picture alone, and the result."""
        begun = time.perf_counter()
        result = engine.submit(self.part()).result(PATIENCE)
        return time.perf_counter() - begun, result

    def _split(self, engine: Engine) -> dict[str, float]:
        """Seconds of a picture in each network, and beside them in the engine: medians."""
        rounds: list[dict[str, float]] = []
        for _ in range(self._args.rounds):
            with Watch(engine, self.device) as watch:
                seconds, _ = self._alone(engine)
            beside = seconds - sum(watch.seconds.values())
            rounds.append({**watch.seconds, "beside the networks": beside})
        return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}

    def _told(
        self,
        alone: Sequence[tuple[float, EngineResult]],
        whole: float,
        rates: dict[int, float],
        split: dict[str, float],
    ) -> dict[str, Any]:
        seconds = statistics.median(each[0] for each in alone)
        pixels = alone[0][1].pictures[0].pixels
        text = f"{PROMPT}\nSteps: {self.steps}"
        png = statistics.median(
            _timed(lambda: encode(pixels, PictureFormat(), text, "0" * 64)) for _ in range(3)
        )
        split |= {"encode (PNG)": png, "server": whole - seconds - png}
        flops = self.architecture.flops(self.side, self.steps)
        return {
            "iterations_per_s": self.steps / (seconds - split["text"] - split["VAE"]),
            "engine_s": seconds,
            "picture_s": whole,
            "split_s": split,
            "pictures_per_s": {str(at_once): rate for at_once, rate in rates.items()},
            "share_of_peak": flops / seconds / self._args.peak / 1e12 if flops and self._args.peak else None,
            "peak_memory_mib": _peak(self.device) >> 20,
        }

    def theirs(self) -> dict[str, Any]:
        """The figures of diffusers, eager and compiled; a sentence for what could not be run."""
        try:
            import rival
        except (ImportError, RuntimeError) as error:  # its lazy imports fail with either
            return {"left out": f"diffusers' pipelines cannot be imported here: {error}"}
        make = rival.pipeline(self.checkpoint, self.device, self.dtype)
        figures: dict[str, Any] = {"diffusers eager": self._rival(make)}
        if self._args.compile:
            try:
                figures["diffusers compiled"] = self._rival(rival.compiled(make, self._args.compile_mode))
            except Exception as error:  # noqa: BLE001  # a compiler has a hundred ways to fail; the rest stands
                figures["left out"] = f"torch.compile did not work here: {str(error)[:200]}"
        return figures

    def _rival(self, make: Callable[[int, int, int, int], object]) -> dict[str, Any]:
        """Seconds of a picture, and pictures a second when as many are made in one call by hand."""
        rates = {}
        for at_once in self._args.concurrency:
            for seed in (1, 2):  # the second finds what the first compiled
                make(at_once, self.side, self.steps, seed)
            again = partial(make, at_once, self.side, self.steps, 3)
            took = [_timed(again) for _ in range(self._args.rounds)]
            rates[str(at_once)] = at_once / statistics.median(took)
        return {"picture_s": 1 / rates["1"] if "1" in rates else None, "pictures_per_s": rates}


def _no_file(ref: object) -> Any:
    raise AssertionError(f"no file is to be read, and {ref} was asked for")


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> int:
    """Bytes of device memory at the highest point; of the whole process on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def shown(name: str, ours: dict[str, Any], theirs: dict[str, Any], concurrency: Sequence[int]) -> str:
    """The tables of a model, and how it stands to the aims."""
    rates = [f"{at_once} at once, images/s" for at_once in concurrency]
    made = [round(rate, 2) for rate in ours["pictures_per_s"].values()]
    first = (round(ours["iterations_per_s"], 2), round(ours["picture_s"], 3))
    lines: list[tuple[object, ...]] = [("engine, over HTTP", *first, *made)]
    for who, figures in theirs.items():
        if isinstance(figures, dict):
            seconds = figures["picture_s"]
            made = [round(rate, 2) for rate in figures["pictures_per_s"].values()]
            lines.append((who, "", "" if seconds is None else round(seconds, 3), *made))
    blank = ("",) * len(concurrency)
    lines += [(f"published: {who}", rate, seconds, *blank) for who, rate, seconds in PUBLISHED[name]]
    split = [(part, round(1e3 * seconds, 2)) for part, seconds in ours["split_s"].items()]
    share = ours["share_of_peak"]
    beside = [
        ("share of the card's peak", "" if share is None else f"{100 * share:.1f} %"),
        ("peak memory, MiB", ours["peak_memory_mib"]),
    ]
    parts = [table((name, "it/s", "s/image", *rates), lines), table((f"{name}: a picture", "ms"), split)]
    parts += [table((name, ""), beside), *([theirs["left out"]] if "left out" in theirs else [])]
    return "\n\n".join(parts)


def judged(name: str, ours: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(aim, figure, verdict) of a model in full size."""
    (passing, leading), seconds = AIMS[name], ours["picture_s"]
    verdict = "leads" if seconds <= leading else "passes" if seconds <= passing else "misses"
    told = [(f"{name}: <= {passing} s (lead {leading} s)", f"{seconds:.3f} s", verdict)]
    rate = ours["pictures_per_s"].get("16")
    if name in RATE_AIM and rate is not None:
        aim = RATE_AIM[name]
        told.append(
            (f"{name}: >= {aim} images/s at 16", f"{rate:.2f}", "passes" if rate >= aim else "misses")
        )
    return told


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="narrow networks on the CPU")
    parser.add_argument("--only", nargs="+", choices=list(FULL), default=list(FULL))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--concurrency", type=int, nargs="+", default=list(CONCURRENCIES))
    parser.add_argument("--size", type=int, help="side in pixels instead of the model's own")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--peak", type=float, help="TFLOP/s of the card in half precision")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction)
    parser.add_argument("--compile-mode", default="max-autotune")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.small else 5)
    args.compile = not args.small if args.compile is None else args.compile
    if not args.small and not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use here; --small runs narrow networks on the CPU")
    return args


def main() -> None:
    """Measure the models and print their tables."""
    args = arguments()
    warnings.simplefilter("ignore")
    machine = "CPU" if args.small else torch.cuda.get_device_name()
    args.peak = args.peak or next((peak for card, peak in PEAKS.items() if card in machine), None)
    print(f"{machine}, torch {torch.__version__}{', narrow networks' if args.small else ''}\n")
    figures: dict[str, Any] = {"machine": machine, "torch": torch.__version__, "narrow": args.small}
    verdicts: list[tuple[str, str, str]] = []
    for name in args.only:
        bench = Bench(name, (NARROW if args.small else FULL)[name], args)
        ours, theirs = bench.ours(), bench.theirs()
        figures[name] = {"engine": ours, **theirs}
        print(shown(name, ours, theirs, args.concurrency) + "\n")
        verdicts += [] if args.small else judged(name, ours)
        del bench
    if verdicts:
        print(table(("aim on an H200", machine, ""), verdicts))
    keep(figures, args.json)


if __name__ == "__main__":
    main()
