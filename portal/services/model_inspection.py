"""What a model's file tells of itself when it comes in."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from atelier import modelkind
from atelier.contract.errors import ModelUnusable
from atelier.contract.models import ModelKind
from atelier.modelfile import family, read_header, resolution

LARGEST_CONFIG = 2**20
"""A model's .yaml has a few KiB; anything beyond is not one."""


class Told(NamedTuple):
    """What a file's header tells: a checkpoint's family, and width and height it was trained at."""

    family: str | None
    resolution: tuple[int, int] | None


def inspect(filename: str, stored: Path, kind: ModelKind, config: Path | None) -> Told:
    """What the safetensors file tells of itself. Raises ModelUnusable, naming it `filename`, for what is not
    of the kind or cannot be served.
    """
    header = read_header(stored)
    modelkind.check(filename, header, kind)
    if kind is not ModelKind.CHECKPOINT:
        return Told(None, resolution(header))
    found = family(header, config.read_text(encoding="utf-8", errors="replace") if config else None)
    if found is None:
        raise ModelUnusable(
            f"{filename} has no UNet and VAE of a Stable Diffusion checkpoint. "
            "Give its kind, if it is another."
        )
    return Told(found, resolution(header))


def configuration(path: Path) -> Path | None:
    """The `.yaml` of the same stem beside a checkpoint, None where there is none. Raises ModelUnusable."""
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        return None
    if beside.stat().st_size > LARGEST_CONFIG:
        raise ModelUnusable(f"{beside.name} is too large for a model's configuration.")
    return beside
