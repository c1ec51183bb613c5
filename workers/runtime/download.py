"""A blob into memory in many pieces at once: each goes to where it belongs, is hashed in its turn and, where
it is to be kept, written to a file on the way.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from atelier.storage.base import BlobStat, ReadsRanges

PIECE = 16 * 2**20
"""Bytes of one request: large enough that its round trip is a small part of it."""
THREADS = 16
"""Requests at once: one connection to S3 is far slower than an instance's network."""
_AHEAD = 2
"""Pieces that may be under way for each thread: the others must not fill the memory while one is slow."""

Parts = Sequence[tuple[int, memoryview]]
"""(place in the blob, buffer), in the blob's order, without overlaps."""


def fetch(
    store: ReadsRanges,
    blob: BlobStat,
    parts: Parts,
    *,
    copy: int | None = None,
    threads: int = THREADS,
    piece: int | None = None,
) -> str:
    """Read all of `blob`: what `parts` ask for into their buffers, the rest nowhere; all of it also into the
    file descriptor `copy`. Returns the hex sha256. Raises NotFound, StorageFailed, OSError of the file.
    """
    layout, piece = _Layout(parts), piece or PIECE
    digest = hashlib.sha256()
    under_way: deque[Future[list[memoryview]]] = deque()

    def one(start: int) -> list[memoryview]:
        buffers = layout.buffers(start, min(start + piece, blob.size))
        store.read_into(blob.key, start, buffers, blob.etag)
        if copy is not None:
            _write(copy, buffers, start)
        return buffers

    def hash_the_first() -> None:
        for buffer in under_way.popleft().result():
            digest.update(buffer)

    with ThreadPoolExecutor(threads, thread_name_prefix="download") as pool:
        try:
            for start in range(0, blob.size, piece):
                under_way.append(pool.submit(one, start))
                if len(under_way) >= _AHEAD * threads:
                    hash_the_first()
            while under_way:
                hash_the_first()
        except BaseException:
            for each in under_way:
                each.cancel()
            raise
    return digest.hexdigest()


class _Layout:
    """Which buffers the bytes of a blob go to."""

    def __init__(self, parts: Parts) -> None:
        self._parts = [(start, buffer) for start, buffer in parts if len(buffer)]
        self._starts = [start for start, _ in self._parts]

    def buffers(self, start: int, end: int) -> list[memoryview]:
        """Buffers for the bytes from `start` to `end`, in order; bytes nobody wants get one that is
        forgotten.
        """
        found: list[memoryview] = []
        index = max(0, bisect_right(self._starts, start) - 1)
        at = start
        while at < end:
            begins, buffer = self._parts[index] if index < len(self._parts) else (end, memoryview(b""))
            if at < begins:
                upto = min(begins, end)
                found.append(memoryview(bytearray(upto - at)))
            else:
                upto = min(begins + len(buffer), end)
                if at < upto:
                    found.append(buffer[at - begins : upto - begins])
                else:
                    upto = at
                index += 1
            at = upto
        return found


def _write(file: int, buffers: Sequence[memoryview], at: int) -> None:
    for buffer in buffers:
        left = buffer
        while left:
            count = os.pwrite(file, left, at)
            left, at = left[count:], at + count
