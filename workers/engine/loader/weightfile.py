"""Reading tensors of a safetensors file into host memory: those that are wanted, into one piece of it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import torch

from atelier.contract.errors import ModelUnusable
from atelier.modelfile import Header, read_header

Tensors = dict[str, torch.Tensor]

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_ALIGNMENT = 64
"""Of a tensor's first byte: whatever its type, and a cache line of its own."""


def read(path: Path, wanted: Callable[[str], bool], *, pinned: bool = False) -> tuple[Tensors, Header]:
    """The tensors of `path` whose names are `wanted`, and the file's header. Raises ModelUnusable.

    They share one allocation, so that forgetting them gives it back whole. `pinned`: page-locked, so that a
    GPU can fetch them by itself.
    """
    header = read_header(path)
    chosen = {name: entry for name, entry in header.tensors.items() if wanted(name)}
    places: dict[str, int] = {}
    total = 0
    for name, entry in chosen.items():
        places[name] = total
        total += -(-(entry.end - entry.start) // _ALIGNMENT) * _ALIGNMENT
    room = _room(total, pinned=pinned)
    tensors: Tensors = {}
    try:
        with path.open("rb") as source:
            for name, entry in sorted(chosen.items(), key=lambda each: each[1].start):
                part = room[places[name] : places[name] + entry.end - entry.start]
                _fill(source.fileno(), part, header.data_offset + entry.start)
                tensors[name] = part.view(_TYPES[entry.dtype]).reshape(entry.shape)
    except OSError as error:
        raise ModelUnusable(f"{path.name} cannot be read: {error}.") from error
    return tensors, header


def _room(size: int, *, pinned: bool) -> torch.Tensor:
    """[size] uint8. Pages of their own: a heap would keep those of a small model's file when it is forgotten,
    and a worker would grow as it changes models.
    """
    if pinned or not size:
        return torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=torch.uint8)


def _fill(descriptor: int, part: torch.Tensor, offset: int) -> None:
    """Bytes of the file from `offset` on into `part`. Raises OSError where the file ends before."""
    left = memoryview(part.numpy())
    while left:
        count = os.preadv(descriptor, [left], offset)
        if not count:
            raise OSError("the file ends before its tensors do")
        left, offset = left[count:], offset + count
