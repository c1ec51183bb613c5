"""Reading tensors of a safetensors file into host memory: those that are wanted, into one piece of it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch

from atelier.contract.errors import ModelUnusable
from atelier.modelfile import Header, header_in

Tensors = dict[str, torch.Tensor]

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_ALIGNMENT = 64
"""Of a tensor's first byte: whatever its type, and a cache line of its own."""


class Source(Protocol):
    """The bytes of a model file, wherever they are."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def size(self) -> int:
        """All its bytes."""
        ...

    def read(self, start: int, count: int) -> bytes:
        """A few of them: those of the header."""
        ...

    def fill(self, parts: Sequence[tuple[int, memoryview]]) -> None:
        """Fill each buffer with the bytes from its place in the file on; the parts come in the file's order
        and do not overlap. Raises ModelUnusable where the file is not the one that is meant.
        """
        ...


class FileSource:
    """A file of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name

    @property
    def size(self) -> int:
        """See Source. Raises ModelUnusable where it cannot be read."""
        with self._told():
            return self._path.stat().st_size

    def read(self, start: int, count: int) -> bytes:
        """See Source."""
        with self._told(), self._path.open("rb") as source:
            source.seek(start)
            return source.read(count)

    def fill(self, parts: Sequence[tuple[int, memoryview]]) -> None:
        """See Source."""
        with self._told(), self._path.open("rb") as source:
            for offset, part in parts:
                _fill(source.fileno(), part, offset)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelUnusable(f"{self.name} cannot be read: {error}.") from error


def header_of(source: Source) -> Header:
    """The header of a safetensors file. Raises ModelUnusable."""
    return header_in(source.name, source.size, source.read)


def read(
    given: Path | Source, wanted: Callable[[str], bool], *, pinned: bool = False
) -> tuple[Tensors, Header]:
    """The tensors of a file whose names are `wanted`, and the file's header. Raises ModelUnusable.

    They share one allocation, so that forgetting them gives it back whole. `pinned`: page-locked, so that a
    GPU can fetch them by itself.
    """
    source = FileSource(given) if isinstance(given, Path) else given
    header = header_of(source)
    chosen = {name: entry for name, entry in header.tensors.items() if wanted(name)}
    places: dict[str, int] = {}
    total = 0
    for name, entry in chosen.items():
        places[name] = total
        total += -(-(entry.end - entry.start) // _ALIGNMENT) * _ALIGNMENT
    room = _room(total, pinned=pinned)
    tensors: Tensors = {}
    parts: list[tuple[int, memoryview]] = []
    for name, entry in sorted(chosen.items(), key=lambda each: each[1].start):
        part = room[places[name] : places[name] + entry.end - entry.start]
        parts.append((header.data_offset + entry.start, memoryview(part.numpy())))
        tensors[name] = part.view(_TYPES[entry.dtype]).reshape(entry.shape)
    source.fill(parts)
    return tensors, header


def _room(size: int, *, pinned: bool) -> torch.Tensor:
    """[size] uint8. Pages of their own: a heap would keep those of a small model's file when it is forgotten,
    and a worker would grow as it changes models.
    """
    if pinned or not size:
        return torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=torch.uint8)


def _fill(descriptor: int, part: memoryview, offset: int) -> None:
    """Bytes of the file from `offset` on into `part`. Raises OSError where the file ends before."""
    left = part
    while left:
        count = os.preadv(descriptor, [left], offset)
        if not count:
            raise OSError("the file ends before its tensors do")
        left, offset = left[count:], offset + count
