"""Lines one pixel wide: found, and made so again after a change of size (Golay's thinning)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8]
_MOST_ROUNDS = 32


def _turned(*kernels: list[list[int]]) -> list[npt.NDArray[np.int32]]:
    """Each kernel in its four directions."""
    return [np.rot90(np.array(each, dtype=np.int32), turns) for each in kernels for turns in range(4)]


_THIN = _turned([[-1, -1, -1], [0, 1, 0], [1, 1, 1]], [[0, -1, -1], [1, 1, -1], [0, 1, 0]])
_PRUNE = _turned([[-1, -1, -1], [-1, 1, -1], [0, 0, -1]], [[-1, -1, -1], [-1, 1, -1], [-1, 0, 0]])
_LINES = [
    np.array(each, dtype=np.uint8)
    for each in (
        [[0, 0, 0], [1, 1, 1], [0, 0, 0]],
        [[0, 1, 0], [0, 1, 0], [0, 1, 0]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
    )
]


def is_of_lines(made: Array) -> bool:
    """Whether most of what is white in a black and white map [h, w, 3] is thinner than three pixels."""
    square = np.ones((3, 3), dtype=np.uint8)
    opened = cv2.dilate(cv2.erode(made, square), square)
    return 2 * int((opened < made).sum()) > int((made > 127).sum())


def ridges(grey: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """`grey` [h, w] where it is the largest along a line through it in one of four directions, else 0."""
    kept = np.zeros_like(grey)
    for line in _LINES:
        np.putmask(kept, cv2.dilate(grey, kernel=line) == grey, grey)
    return kept


def split(grey: Array) -> Array:
    """`grey` as black and white, parted where it parts best (Otsu)."""
    return cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1].astype(np.uint8)


def thinned(grey: Array, *, prune: bool) -> Array:
    """Lines of a map [h, w], black and white and one pixel wide. `prune`: without the spurs that enlarging
    makes.
    """
    lines = split(ridges(grey).astype(np.uint8))
    for _ in range(_MOST_ROUNDS):
        if not _without(lines, _THIN):
            break
    if prune:
        _without(lines, _PRUNE)
    return lines


def _without(lines: Array, kernels: list[npt.NDArray[np.int32]]) -> bool:
    """Take away what one of the kernels hits; whether there was something."""
    found = False
    for kernel in kernels:
        hit = cv2.morphologyEx(lines, cv2.MORPH_HITMISS, np.ascontiguousarray(kernel)) > 127
        found |= bool(hit.any())
        lines[hit] = 0
    return found
