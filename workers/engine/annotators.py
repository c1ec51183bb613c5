"""What draws maps: a preprocessor, with its network where it has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from atelier.contract.control import Preprocessing
from workers.engine import hed
from workers.engine.loader.checkpoint import ModelFile
from workers.preprocessing.drawing import DRAWN, Draw


@dataclass(frozen=True, eq=False)
class Annotator:
    """`draw` makes a map of a picture; `size`: bytes in host memory of the network it has."""

    draw: Draw
    size: int = 0


OpenAnnotator = Callable[[Preprocessing, Path | None], Annotator | None]
"""Gives what draws the maps of a preprocessor, whose network is in the file, if it has one; None where nobody
knows it. Raises ModelUnusable.
"""


def open_any(how: Preprocessing, path: Path | None) -> Annotator | None:
    """Every preprocessor the engine knows."""
    if how.module in DRAWN:
        return Annotator(DRAWN[how.module])
    if path is None or how.annotator is None or how.module not in ("hed", "hed_safe", "scribble_hed"):
        return None
    detector = hed.read_detector(ModelFile(path, name=how.annotator.filename))
    if how.module == "scribble_hed":
        return Annotator(partial(hed.scribble, detector), detector.size)
    return Annotator(partial(hed.edges, detector, safe=how.module == "hed_safe"), detector.size)
