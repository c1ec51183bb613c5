"""Tensors out of a torch file's storages into a safetensors file, without torch and without holding more than
one of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import numpy as np

from atelier.contract.errors import ModelUnusable
from workers.tasks.standins import SIZES, Tensor
from workers.tasks.torchfile import TorchFile

MAX_NAME = 1000
_CHUNK = 16 * 2**20
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def write(
    file: str,
    out: BinaryIO,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    source: TorchFile,
    data: memoryview,
    room: int,
) -> None:
    """Write `tensors`, whose numbers lie in `data`, as a safetensors file of at most `room` bytes. Raises
    ModelUnusable, naming `file`.

    The bytes depend on the tensors alone: the same file gives the same conversion.
    """
    # The widest numbers first, so that every tensor begins at a multiple of its element's size.
    order = sorted(tensors, key=lambda name: (-SIZES[tensors[name].dtype], name))
    total = sum(tensor.nbytes for tensor in tensors.values())
    if total > room:
        raise ModelUnusable(
            f"{file} would unfold to {total / 2**20:,.0f} MiB, far more than it holds: its tensors show the "
            "same numbers again and again. It is made to deceive."
        )
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for name in order:
        tensor = tensors[name]
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [place, place + tensor.nbytes],
        }
        place += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        for piece in _pieces(tensors[name], source, data):
            out.write(piece)


def _pieces(tensor: Tensor, source: TorchFile, data: memoryview) -> Iterator[memoryview | bytes]:
    """The tensor's numbers in order, little-endian. Its bounds were checked where it was read."""
    if not tensor.elements:
        return
    width = SIZES[tensor.dtype]
    start, end = source.places[tensor.storage.key]
    own = SIZES[tensor.storage.dtype] if tensor.storage.dtype else 1
    first = start + tensor.storage.offset * own + tensor.offset * width
    if _in_order(tensor) and not (source.big_endian and width > 1):
        for place in range(first, first + tensor.nbytes, _CHUNK):
            yield data[place : min(place + _CHUNK, first + tensor.nbytes)]
        return
    strides = tuple(step * width for step in tensor.strides)
    view: np.ndarray = np.ndarray(tensor.shape, _WORDS[width], data[:end], first, strides)
    for part in _parts(view):
        yield (part.byteswap() if source.big_endian else part).tobytes()


def _in_order(tensor: Tensor) -> bool:
    expected = 1
    for side, step in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if side != 1 and step != expected:
            return False
        expected *= side
    return True


def _parts(view: np.ndarray) -> Iterator[np.ndarray]:
    """`view` in pieces along its first side, so that a copy of it is never whole in memory."""
    if view.ndim == 0:
        yield view
        return
    rows = max(1, _CHUNK // max(1, math.prod(view.shape[1:]) * view.itemsize))
    for row in range(0, view.shape[0], rows):
        yield view[row : row + rows]
