"""Pictures as arrays: read, brought to a resolution, fitted into the size of the result as the peer does."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from atelier import inputs
from atelier.contract.control import ResizeMode
from atelier.contract.errors import InvalidRequest
from workers.preprocessing import thinning

Array = npt.NDArray[np.uint8]
_PAD = 64
MOST_PIXELS = 16 * 2**20
"""Of a picture that another is scaled to: the largest result has as many."""
_FEW_COLOURS = 200
"""A map with less is one of areas: its colours are names, which must not be mixed."""


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int


def read(data: bytes) -> Array:
    """[h, w, 3] of an encoded picture; what is transparent lies on white. Raises InvalidRequest."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            inputs.check_sides(*image.size)
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError, SyntaxError) as error:
        raise InvalidRequest(f"The image of a ControlNet unit cannot be read: {error}") from error
    pixels = np.asarray(upright).astype(np.float32)
    alpha = pixels[..., 3:] / 255.0
    return (pixels[..., :3] * alpha + 255.0 * (1.0 - alpha)).clip(0, 255).astype(np.uint8)


def read_mask(data: bytes) -> Array | None:
    """[h, w] of a mask; None where nothing or everything is marked."""
    mask = read(data)[..., 0]
    return None if mask.min() == mask.max() and mask.max() in (0, 255) else mask


def scaled_by(k: float, picture: Array) -> Size:
    """The size of `picture` [h, w, ...] times `k`, at least one pixel. Raises InvalidRequest where that is
    more than memory is meant for.
    """
    height, width = picture.shape[:2]
    target = Size(max(1, int(np.round(width * k))), max(1, int(np.round(height * k))))
    if target.width * target.height > MOST_PIXELS:
        raise InvalidRequest(
            f"The image of a ControlNet unit, {width:,} x {height:,}, would be scaled to {target.width:,} x "
            f"{target.height:,} pixels; {MOST_PIXELS:,} may be. Cut its longer side, or ask for a lower "
            "resolution."
        )
    return target


def of_resolution(picture: Array, resolution: float) -> tuple[Array, Callable[[Array], Array]]:
    """`picture` with its shorter side `resolution` long, continued to multiples of 64 by its edges, and what
    cuts that off again.
    """
    k = float(resolution) / min(picture.shape[:2])
    target = scaled_by(k, picture)
    scaled = cv2.resize(picture, target, interpolation=cv2.INTER_CUBIC if k > 1 else cv2.INTER_AREA)
    beyond = [(0, math.ceil(side / _PAD) * _PAD - side) for side in (target.height, target.width)]
    padded = np.pad(scaled, [*beyond, (0, 0)], mode="edge")

    def cut(made: Array) -> Array:
        return np.ascontiguousarray(made[: target.height, : target.width])

    return np.ascontiguousarray(padded), cut


def perfect(picture: Array, size: Size, mode: ResizeMode) -> int:
    """The resolution at which a pixel of the preprocessor's picture is one of the result."""
    height, width = picture.shape[:2]
    scales = (size.height / height, size.width / width)
    k = min(scales) if mode == "Resize and Fill" else max(scales)
    return int(np.round(k * min(height, width)))


def fitted(made: Array, size: Size, mode: ResizeMode) -> Array:
    """A map [h, w, 3 or 4] as large as the result: stretched, cut, or with borders of its edges' colour."""
    if mode == "Just Resize":
        return _resized(made, size)
    height, width = made.shape[:2]
    scales = (size.height / height, size.width / width)
    k = min(scales) if mode == "Resize and Fill" else max(scales)
    if mode == "Crop and Resize" and width * height * k * k > MOST_PIXELS:
        made = _middle(made, Size(math.ceil(size.width / k), math.ceil(size.height / k)))
    scaled = _resized(made, scaled_by(k, made))
    inner = Size(scaled.shape[1], scaled.shape[0])
    if mode == "Resize and Fill":
        ground = np.tile(_edge_colour(made)[None, None], (size.height, size.width, 1))
        top, left = max(0, (size.height - inner.height) // 2), max(0, (size.width - inner.width) // 2)
        ground[top : top + inner.height, left : left + inner.width] = scaled
        return ground
    return _middle(scaled, size)


def _middle(made: Array, size: Size) -> Array:
    """What of a map [h, w, ...] lies around its middle, `size` large or as large as it is."""
    height, width = made.shape[:2]
    top, left = max(0, (height - size.height) // 2), max(0, (width - size.width) // 2)
    return np.ascontiguousarray(made[top : top + size.height, left : left + size.width])


def _edge_colour(made: Array) -> Array:
    edges = np.concatenate([made[0], made[-1], made[:, 0], made[:, -1]], axis=0)
    colour = np.median(edges, axis=0).astype(made.dtype)
    if len(colour) == 4:
        colour[3] = 255  # what lies beyond the picture is to be made
    return colour


def _colours(made: Array) -> int:
    """How many colours a picture [h, w, 3] has, in one pass without sorting its pixels."""
    red, green, blue = (made[..., channel].astype(np.uint32) for channel in range(3))
    seen = np.zeros(2**24, np.bool_)
    seen[red | green << 8 | blue << 16] = True
    return int(np.count_nonzero(seen))


def _resized(made: Array, size: Size) -> Array:
    """A map resized so that lines stay lines and areas keep their colours; as it is where it fits."""
    if (made.shape[1], made.shape[0]) == size:
        return np.ascontiguousarray(made)
    mask = made[..., 3] if made.shape[2] == 4 else None
    made = np.ascontiguousarray(made[..., :3])
    before, after = made.shape[0] * made.shape[1], size.width * size.height
    colours = _colours(made)
    binary = colours == 2 and bool(made.min() < 16 and made.max() > 240)
    lines = binary and thinning.is_of_lines(made)
    if 2 < colours < _FEW_COLOURS:
        how = cv2.INTER_NEAREST
    else:
        how = cv2.INTER_AREA if after < before else cv2.INTER_CUBIC
    scaled = cv2.resize(made, size, interpolation=how)
    if binary:
        grey = scaled.astype(np.float32).mean(axis=2).clip(0, 255).astype(np.uint8)
        flat = thinning.thinned(grey, prune=after > before) if lines else thinning.split(grey)
        scaled = np.stack([flat] * 3, axis=2)
    if mask is None:
        return np.ascontiguousarray(scaled)
    marked = np.where(cv2.resize(mask, size, interpolation=how) > 127, 255, 0).astype(np.uint8)
    return np.concatenate([scaled, marked[..., None]], axis=2)
