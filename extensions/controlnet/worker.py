"""ControlNet at work: what draws the maps of its preprocessors."""

from __future__ import annotations

from pathlib import Path

from atelier.contract.control import Preprocessing
from atelier.extension import hookimpl
from workers.engine import annotators
from workers.engine.annotators import Annotator


@hookimpl
def annotator(how: Preprocessing, path: Path | None) -> Annotator | None:
    """What draws the maps of a preprocessor."""
    return annotators.open_any(how, path)
