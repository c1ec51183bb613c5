"""A model folder of the diffusers library, read into memory and written as one file in the LDM layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from atelier.contract.errors import ModelUnusable
from atelier.contract.models import ModelKind
from workers.engine.loader import weightfile
from workers.engine.loader.diffusers_layout import PARTS, SCHEDULER, Tensors, single_file
from workers.tasks.conversion import convert
from workers.tasks.foldernames import ENDINGS, INDEX, LARGEST_JSON, STEMS


def as_one_file(folder: Path, output: Path, name: str, place: Path) -> None:
    """Write the folder's model as the safetensors file `output`; the same folder gives the same bytes.

    Pickled parts are converted on the way, below `place`. Raises ModelUnusable, naming the folder and what
    is wrong with it.
    """
    if not (folder / INDEX).is_file():
        raise ModelUnusable(f"The folder {name} is no model folder: it has no {INDEX}.")
    _json(folder / INDEX)
    parts = {part: _tensors(folder / part, name, place) for part in PARTS if (folder / part).is_dir()}
    made = single_file(name, parts, _configs(folder))
    save_file(made.tensors, output, made.metadata | {"format": "pt"})


def _configs(folder: Path) -> dict[str, Any]:
    places = {part: folder / part / "config.json" for part in PARTS}
    places[SCHEDULER] = folder / SCHEDULER / "scheduler_config.json"
    return {part: _json(path) for part, path in places.items() if path.is_file()}


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ModelUnusable(f"{path.parent.name}/{path.name} is too large for what it should be.")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnusable(f"{path.parent.name}/{path.name} cannot be read as JSON.") from error
    if not isinstance(found, dict):
        raise ModelUnusable(f"{path.parent.name}/{path.name} is no table.")
    return found


def _tensors(part: Path, name: str, place: Path) -> Tensors:
    """All tensors of a part, from its one file or from the pieces its index names."""
    tensors: Tensors = {}
    for path in _files(part, name):
        readable = path
        if path.suffix == ".bin":
            readable = place / f"{part.name}-{path.stem}.safetensors"
            convert(path, readable, ModelKind.CHECKPOINT, name=f"{name}/{part.name}/{path.name}")
        tensors |= weightfile.read(readable, lambda _: True)[0]
    return tensors


def _files(part: Path, name: str) -> list[Path]:
    candidates = [part / f"{stem}{ending}" for ending in ENDINGS for stem in STEMS]
    whole = next((path for path in candidates if path.is_file()), None)
    if whole is not None:
        return [whole]
    for index in (part / f"{stem}{ending}.index.json" for ending in ENDINGS for stem in STEMS):
        if index.is_file():
            named = _json(index).get("weight_map")
            pieces = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
            if not pieces or any(Path(piece).name != piece for piece in pieces):
                raise ModelUnusable(f"The folder {name} has an index in {part.name} that names no files.")
            missing = [piece for piece in pieces if not (part / piece).is_file()]
            if missing:
                raise ModelUnusable(
                    f"The folder {name} lacks {part.name}/{missing[0]}: it may be half-copied."
                )
            return [part / piece for piece in pieces]
    raise ModelUnusable(f"The folder {name} has no weights in {part.name}.")
