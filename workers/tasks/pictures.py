"""Textual inversions that travel as pictures, in the peer's two forms.

A PNG may have a text chunk `sd-ti-embedding`: base64 of JSON, in which a tensor is {"TORCHTENSOR": nested
lists}. Or the pixels carry it: at the left and the right of the picture, each behind one black column, stand
strips whose low four bits per colour are the low and the high halves of bytes, mixed with a known sequence of
numbers; together they are zlib of the same JSON.
"""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from array import array
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, WebPImagePlugin

from atelier.contract.errors import ModelUnusable
from workers.tasks.standins import Storage, Tensor
from workers.tasks.torchfile import TorchFile

CHUNK = "sd-ti-embedding"
TENSOR = "TORCHTENSOR"
MAX_JSON = 64 * 2**20
MAX_PIXELS = 64_000_000
MAX_VALUES = 4_000_000
_FORMATS = ("PNG", "WEBP")


def prepare() -> None:
    """Read one pixel in each format, so that everything reading needs is loaded. Raises nothing."""
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_JSON
    for name in _FORMATS:
        made = io.BytesIO()
        Image.new("RGB", (2, 2)).save(made, name)
        with Image.open(io.BytesIO(made.getvalue()), formats=_FORMATS) as picture:
            np.asarray(picture.convert("RGB"))
    assert WebPImagePlugin.SUPPORTED  # noqa: S101  # Pillow's own wheels have it


def read(file: str, data: memoryview) -> tuple[TorchFile, bytes]:
    """The embedding that the picture `file` carries, as if torch had saved it, and its numbers. Raises
    ModelUnusable.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ModelUnusable(f"{file} has more pixels than a picture with an embedding needs.")
            text = getattr(picture, "text", {}).get(CHUNK)
            packed = base64.b64decode(text) if text else _from_pixels(picture)
        if packed is None:
            raise ModelUnusable(
                f"{file} is a picture without a textual inversion in it, neither as text nor in its pixels.",
                detail={"reason": "no_embedding"},
            )
        told = json.loads(packed)
    except (
        OSError,
        ValueError,
        RecursionError,
        zlib.error,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise ModelUnusable(
            f"{file} cannot be read as a picture with a textual inversion: {str(error)[:200]}."
        ) from error
    return _saved(file, told)


def _from_pixels(picture: Image.Image) -> bytes | None:
    """The JSON in the strips, None where there are none."""
    pixels = np.asarray(picture.convert("RGB"))
    bright = (pixels > 0).all(axis=2)
    rows, columns = np.flatnonzero(np.any(bright, axis=1)), np.flatnonzero(np.any(bright, axis=0))
    if not len(rows):
        return None
    halves = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & 0x0F
    black = np.flatnonzero(halves.sum(axis=(0, 2)) == 0)
    if len(black) < 2:
        return None
    low, high = unmixed(halves[:, : black[0]]), unmixed(halves[:, black[-1] + 1 :])
    if low.shape != high.shape or not low.size:
        return None
    reader = zlib.decompressobj()
    try:
        found = reader.decompress((high << 4 | low).tobytes(), MAX_JSON)
    except zlib.error:  # an ordinary picture with two dark columns
        return None
    return found if reader.eof else None


def unmixed(block: np.ndarray) -> np.ndarray:
    """`block` [rows, columns, 3] of 4-bit numbers with the peer's sequence taken off (or put on: it is the
    same), read along its rows.
    """
    sequence = np.fromiter(_sequence(block.size), np.uint8, block.size).reshape(block.shape)
    return block ^ (sequence & 0x0F)


def _sequence(count: int) -> Any:
    """The linear congruential sequence of Numerical Recipes (a = 1664525, c = 1013904223, m = 2^32, from 0),
    each number modulo 255.
    """
    value = 0
    for _ in range(count):
        value = (1664525 * value + 1013904223) % 2**32
        yield value % 255


def _saved(file: str, told: Any) -> tuple[TorchFile, bytes]:
    table = told.get("string_to_param") if isinstance(told, dict) else None
    if not isinstance(table, dict) or not table:
        raise ModelUnusable(
            f"{file} carries something that is no textual inversion: string_to_param is missing."
        )
    packed = next(iter(table.values()))
    shape, values = _numbers(file, packed.get(TENSOR) if isinstance(packed, dict) else None)
    numbers = array("f", values)
    data = np.asarray(numbers, dtype="<f4").tobytes()
    tensor = Tensor(Storage("0", "F32", len(values)), "F32", shape, (shape[1], 1), 0)
    root = {**told, "string_to_param": {"*": tensor}}
    return TorchFile(root, {"0": (0, len(data))}), data


def _numbers(file: str, rows: Any) -> tuple[tuple[int, int], list[float]]:
    """([vectors, width], their numbers) of nested lists; one list is one vector."""
    if isinstance(rows, list) and rows and not isinstance(rows[0], list):
        rows = [rows]
    width = len(rows[0]) if isinstance(rows, list) and rows else 0
    if not width or any(not isinstance(row, list) or len(row) != width for row in rows):
        raise ModelUnusable(f"{file} carries a textual inversion whose vectors differ in width.")
    if len(rows) * width > MAX_VALUES:
        raise ModelUnusable(f"{file} carries a textual inversion of more numbers than any.")
    values = [value for row in rows for value in row]
    if any(
        type(value) not in (int, float) or not math.isfinite(value) or abs(value) > 3e38 for value in values
    ):
        raise ModelUnusable(f"{file} carries a textual inversion with something that is no number.")
    return (len(rows), width), values
