"""How fast a model file comes into memory: the engine's reader against `safetensors.torch.load_file`.

    python bench/loading.py [--megabytes 2000] [--rounds 5] [--json FILE]

The file has tensors of an SDXL checkpoint's sizes in half precision and is made in a temporary folder, so it
lies in the system's cache: what is measured is the reader and not the disk. They take turns, each time in a
process of its own, as a worker reads its first model: within one process whoever keeps the memory of what he
has read before would be spared the first touch of it, which is most of the work.

`load_file` maps the file and reads nothing until a tensor is touched; the engine's reader has every byte in
memory of its own when it returns. So the engine stands beside both: beside `load_file` as it is, and beside
`load_file` whose tensors are then copied into memory of their own, which comes to the same as ours. Figures
are medians of rounds; processor seconds count all threads and hardly see other work on the machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from figures import keep, table
from safetensors.torch import load_file, save_file

from workers.engine.loader import weightfile

_SIDES = ((1280, 1280), (640, 640), (5120, 1280), (1280,), (320, 320, 3, 3))
"""Of tensors, over and over."""

READERS: dict[str, Callable[[Path], Any]] = {
    "engine": lambda path: weightfile.read(path, lambda _: True)[0],
    "load_file, nothing read yet": load_file,
    "load_file, then copied": lambda path: {name: tensor.clone() for name, tensor in load_file(path).items()},
}


def written(path: Path, megabytes: int) -> int:
    """Write a file of about so many megabytes; its bytes."""
    tensors: dict[str, torch.Tensor] = {}
    left = megabytes * 10**6
    while left > 0:
        sides = _SIDES[len(tensors) % len(_SIDES)]
        tensor = torch.randn(sides).half()
        tensors[f"model.diffusion_model.{len(tensors)}.weight"] = tensor
        left -= tensor.nbytes
    save_file(tensors, path)
    return path.stat().st_size


def _told(name: str, path: Path, tell: Connection) -> None:
    """Tell the seconds and processor seconds a reader takes."""
    begun, worked = time.perf_counter(), time.process_time()
    tensors = READERS[name](path)
    tell.send((time.perf_counter() - begun, time.process_time() - worked))
    del tensors


def _alone(name: str, path: Path) -> tuple[float, float]:
    """The same from a process that has read nothing before."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_told, args=(name, path, theirs))
    process.start()
    theirs.close()
    took: tuple[float, float] = ours.recv()
    process.join()
    return took


def measure(path: Path, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(seconds, processor seconds) of every reader by rounds, who begins each by turns; one round before does
    not count.
    """
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in READERS}
    names = list(READERS)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            each = _alone(name, path)
            if number:
                took[name].append(each)
    return took


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        size = written(path, args.megabytes)
        took = measure(path, args.rounds)
    ours = took["engine"]
    figures: dict[str, Any] = {"bytes": size, "rounds": args.rounds, "readers": {}}
    rows = []
    for name, rounds in took.items():
        seconds, worked = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(theirs[0] / own[0] for theirs, own in zip(rounds, ours, strict=True))
        rate = size / seconds / 1e9
        figures["readers"][name] = {
            "s": seconds, "processor_s": worked, "gb_per_s": rate, "engine_times_as_fast": ratio,
        }  # fmt: skip
        rows.append((name, round(seconds, 3), round(worked, 3), round(rate, 2), round(ratio, 2)))
    print(table((f"{size / 1e9:.2f} GB", "s", "processor s", "GB/s", "engine is x times as fast"), rows))
    keep(figures, args.json)


if __name__ == "__main__":
    main()
