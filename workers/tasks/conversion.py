"""One foreign file into one safetensors file, by a confined process with a deadline."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atelier.contract.errors import ModelUnusable, NotFound, from_body
from atelier.contract.models import ModelKind
from atelier.modelfile import read_header
from workers.tasks.confinement import BROKE_OUT, Bounds

SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".png", ".webp")
"""Of files that are converted."""
SECONDS = 600.0
"""How long a conversion may take."""
_BASE_MEMORY = 2**30
"""Address space of the reader itself; the file, which is mapped, comes on top."""
_SPARE_OUTPUT = 64 * 2**20
_MAX_SAID = 64 * 2**10


def convert(
    source: Path, output: Path, kind: ModelKind, *, name: str | None = None, seconds: float = SECONDS
) -> None:
    """Write the safetensors conversion of `source` to the new file `output`. Nothing in `source` is run.

    `name` is what messages call it, its own name where None. Raises ModelUnusable, naming the file; `output`
    is then gone.
    """
    called = name or source.name
    if not source.is_file():
        raise NotFound(f"There is no file {source}.")
    size = source.stat().st_size
    bounds = Bounds(_BASE_MEMORY + size, int(seconds) + 1, 2 * size + _SPARE_OUTPUT)
    order = {
        "source": str(source.resolve()),
        "output": str(output.resolve()),
        "name": called,
        "kind": kind.value,
        "bounds": asdict(bounds),
    }
    try:
        _raise_unless_done(called, *_run(called, order, output.parent, seconds))
        read_header(output)
    except BaseException:
        output.unlink(missing_ok=True)
        raise


def _run(called: str, order: dict[str, Any], folder: Path, seconds: float) -> tuple[int, bytes]:
    """(exit status, what it said)."""
    with subprocess.Popen(
        # -I: nothing of the environment or of the working directory is read; -B: nothing is written
        [sys.executable, "-I", "-B", "-m", "workers.tasks.confined"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        cwd=folder,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(json.dumps(order).encode(), timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise ModelUnusable(
                f"{called} could not be converted within {seconds:.0f} seconds and was given up."
            ) from error
        finally:
            process.kill()
    return process.returncode, said[:_MAX_SAID]


def _raise_unless_done(called: str, status: int, said: bytes) -> None:
    try:
        answer = json.loads(said.splitlines()[0]) if said else {}
    except ValueError:
        answer = {}
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        raise from_body(answer["error"])
    if status == 0 and isinstance(answer, dict) and "tensors" in answer:
        return
    why = f"signal {-status}" if status < 0 else f"status {status}"
    if status == BROKE_OUT:
        why = "it tried what reading a model never needs"
    raise ModelUnusable(f"{called} could not be converted: its reader was ended ({why}). It was left alone.")
