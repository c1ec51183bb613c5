"""Pixels into files: finished pictures in the format that was asked for, and small JPEGs for previews."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from atelier import picturefile
from atelier.contract.parts import PictureFormat
from atelier.picturefile import Encoded

_PREVIEW_SIDE = 512
_PREVIEW_QUALITY = 80


def encode(pixels: Any, format: PictureFormat, infotext: str, recipe_hash: str) -> Encoded:
    """The file of uint8 `pixels` (height, width, 3) with its infotext; see picturefile.encode."""
    return picturefile.encode(Image.fromarray(pixels, "RGB"), format, infotext, recipe_hash)


def encode_jpeg(
    pixels: Any, *, longest: int | None = _PREVIEW_SIDE, quality: int = _PREVIEW_QUALITY
) -> bytes:
    """JPEG of uint8 `pixels` (height, width, 3), its longer side at most `longest`."""
    image = Image.fromarray(pixels, "RGB")
    if longest is not None:
        image.thumbnail((longest, longest))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
