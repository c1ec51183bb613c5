"""The map that a preprocessor makes of a picture, without a picture being drawn by it."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict

from atelier.contract import keys
from atelier.contract.control import Preprocessing
from atelier.contract.errors import InvalidRequest
from atelier.storage.base import BlobStore
from workers.preprocessing import pictures
from workers.preprocessing.drawing import DRAWN, Draw, Numbers


class Detection(BaseModel):
    """What is to be made: of the input `image`, with `mask` where one is marked."""

    model_config = ConfigDict(frozen=True)

    how: Preprocessing
    image: str
    mask: str | None = None


def detect(asked: bytes, output: Path, store: BlobStore, place: Path) -> None:
    """Write the PNG of the map that the document `asked` wants. `place` is a folder for intermediate files.
    Raises InvalidRequest, ModelUnusable.
    """
    wanted = Detection.model_validate_json(asked)
    picture = pictures.read(store.get(keys.asset(wanted.image)))
    mask = None if wanted.mask is None else pictures.read_mask(store.get(keys.asset(wanted.mask)))
    how = wanted.how
    if mask is not None and how.module == "inpaint":
        if mask.shape != picture.shape[:2]:
            raise InvalidRequest("The mask and the image have different sizes: give both in one size.")
        picture[mask > 127] = 0
    numbers = Numbers(how.resolution, how.threshold_a, how.threshold_b)
    made = _draw(how, store, place)(picture, numbers)
    out = io.BytesIO()
    Image.fromarray(made, "RGB").save(out, "PNG")
    output.write_bytes(out.getvalue())


def _draw(how: Preprocessing, store: BlobStore, place: Path) -> Draw:
    if how.annotator is None:
        return DRAWN[how.module]
    from workers.engine import annotators  # brings torch, which the others do not need

    key = keys.model(how.annotator.blob_sha256)
    path = store.local_path(key)
    if path is None:
        path = place / "annotator.safetensors"
        path.write_bytes(store.get(key))
    found = annotators.open_any(how, path)
    if found is None:
        raise InvalidRequest(f"The preprocessor {how.module!r} is not run here.")
    return found.draw
